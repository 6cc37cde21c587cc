"""What is worth trying beyond the probe: how deep to train, from which head, with views or at which rate.

The rules of the field decide what is tried and in which order, never what is delivered: with little data the top
stages alone come first; with more, deeper ones come in, down to the whole network; stages above the best probe are
dropped, or kept and trained where the last layer is not far behind it. Where the probe is poor with plenty of data, its
head is replaced by one that starts fresh, and by one with a layer more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

from regraft.cut import Cut
from regraft.data.audio import WINDOWS, share_of_long
from regraft.probe import ProbeResult
from regraft.search.explain import describe_probe
from regraft.search.price import seconds_beside, seconds_of
from regraft.search.prospect import Prospect
from regraft.search.starts import with_values
from regraft.search.trial import plans_for
from regraft.spec import AudioSpec
from regraft.tune import RECIPES, Plan, Recipe, places_below

# Stages with parameters below the head that are trained, for few and for many examples of a class.
_DEPTHS = (1, 2, 4)
_DEEPER = (8,)
MANY_PER_CLASS = 50
_KINDS_OF_NUMBERS = 10  # numbers are learned from about as many examples as so many classes
_RATE, _FASTER = 3e-4, 1e-3
# Heads in the place of a probe that gets this share of the validation split wrong with many examples of a class.
NEW_HEADS = ("linear", "mlp:256")
POOR = 0.25
# A last layer further behind the best probe than this is not worth training up to.
_FAR = 0.15
VIEWS = 4  # of each picture or short recording, the plain one included
FEW_LONG = 0.05  # share of the recordings that may be longer than what the network hears


@dataclass(frozen=True)
class Idea:
    """A way to train further from a probe.

    Args:
        name: unique among ideas, for people and for files.
        recipe: what to train, and how.
        probe: the head it starts from, with values.
        plan: the recipe resolved; `plan.seconds` is the time of all its updates.
        fixed: seconds that a run takes however short it is: frozen passes and evaluations.
        alone: whether it is tried in the place of the shallower ones, not beside them.
    """

    name: str
    recipe: Recipe
    probe: ProbeResult
    plan: Plan
    fixed: float = 0.0
    alone: bool = False

    @property
    def seconds(self) -> float:
        """Expected of a full run, which early stopping shortens."""
        return seconds_of(self.plan, self.fixed)

    @property
    def params(self) -> dict[str, str | float]:
        """What distinguishes it from other ideas."""
        reads = describe_probe(self.probe) if self.recipe.head == "probe" else self.recipe.taps
        params = {"cut": self.recipe.cut, "reads": reads, "lr": self.recipe.lr}
        return params | ({"views": float(self.recipe.views)} if self.recipe.views else {})


def ideas(prospect: Prospect, n_classes: int) -> Iterator[Iterator[Idea]]:
    """Ideas for one source: for each head to start from, ever deeper and so ever dearer training.

    Each is made, and its time estimated, when it is asked for.

    Args:
        prospect: the source.
        n_classes: of the new head.
    """
    if prospect.source.input.modality == "text" and prospect.features.data.task.one_of:
        return iter([_contrastive(prospect, n_classes)])
    deeper = (_deeper(prospect, probe, n_classes) for probe in _starts(prospect))
    poor = prospect.profile.best.val_accuracy <= 1 - POOR
    plenty = per_class(prospect) >= MANY_PER_CLASS
    return chain(deeper, [_with_new_heads(prospect, n_classes)]) if poor and plenty else deeper


def per_class(prospect: Prospect) -> float:
    """Training examples of each class, on average; of numbers, as if they were of so many."""
    data = prospect.features.data
    kinds = _KINDS_OF_NUMBERS if data.task.numeric else len(data.classes)
    return len(prospect.features.labels("train")) / kinds


def has_views(prospect: Prospect) -> bool:
    """Whether examples have other versions than the plain one: pictures and recordings do, texts do not."""
    return not prospect.source.input.ragged


def viewed(idea: Idea, prospect: Prospect) -> Idea:
    """The same idea, learnt from several views of each picture, which are averaged at prediction if that helps.

    Of recordings that the source does not hear at once the views are windows, and predictions always their mean.

    Args:
        idea: what to train.
        prospect: the source; each view is a frozen pass over its training and validation pictures.
    """
    recipe = _windowed(idea) if _long(prospect) else _augmented(idea)
    return _with_recipe(idea, recipe, prospect)


def _idea(recipe: Recipe, prospect: Prospect, probe: ProbeResult, plan: Plan, *, alone: bool = False) -> Idea:
    return Idea(recipe.name, recipe, probe, plan, seconds_beside(plan, prospect.features), alone)


def _with_recipe(idea: Idea, recipe: Recipe, prospect: Prospect) -> Idea:
    """The idea with other views or another rate, which leave its plan as it is."""
    return _idea(recipe, prospect, idea.probe, replace(idea.plan, recipe=recipe))


def _augmented(idea: Idea) -> Recipe:
    return idea.recipe.with_(name=f"{idea.name}, {VIEWS} views", views=VIEWS, average_views="auto")


def _windowed(idea: Idea) -> Recipe:
    """The last epoch is kept: training looks at the middle windows to choose one, and they may hold nothing."""
    name = f"{idea.name}, {WINDOWS} windows"
    return idea.recipe.with_(name=name, views=WINDOWS, average_views=WINDOWS, keep="last", patience=0)


def _long(prospect: Prospect) -> bool:
    spec = prospect.source.input
    return isinstance(spec, AudioSpec) and share_of_long(prospect.features.data.split("train"), spec) > FEW_LONG


def _deeper(prospect: Prospect, probe: ProbeResult, n_classes: int) -> Iterator[Idea]:
    with_views = has_views(prospect) and not _long(prospect)
    for cut in _cuts(prospect, _lowest(prospect, probe)):
        name = f"{describe_probe(probe)}, trained above {cut}"
        recipe = RECIPES["finetune"].with_(name=f"{name} at {_RATE:g}", cut=cut, lr=_RATE)
        (plan,) = plans_for(recipe, prospect.features, n_classes, probe)
        idea = _idea(recipe, prospect, probe, plan)
        yield idea
        if with_views:
            # Predictions look at the plain view alone: further ones would be passes over the validation split too.
            learnt = recipe.with_(name=f"{recipe.name}, learnt from {VIEWS} views", views=VIEWS)
            yield _with_recipe(idea, learnt, prospect)
        else:
            yield _with_recipe(idea, recipe.with_(name=f"{name} at {_FASTER:g}", lr=_FASTER), prospect)


def _with_new_heads(prospect: Prospect, n_classes: int) -> Iterator[Idea]:
    """A head on the last layer that no probe has settled, plain and with a layer more."""
    single, last = prospect.profile.single, prospect.traced.feature
    for cut in _cuts(prospect, last):
        for layers in NEW_HEADS:
            name = f"a new {layers} head on {last.name}, trained above {cut} at {_RATE:g}"
            recipe = RECIPES["finetune"].with_(
                name=name, cut=cut, lr=_RATE, head="fresh", taps="feature", head_layers=layers
            )
            (plan,) = plans_for(recipe, prospect.features, n_classes, None)
            yield _idea(recipe, prospect, single, plan)


def _contrastive(prospect: Prospect, n_classes: int) -> Iterator[Idea]:
    """On texts one recipe with a head of its own did better than all that start from a probe, and as deep as the time
    allows better than higher up: rivals would take the time of half its updates (docs/text.md).
    """
    single = prospect.profile.single
    for cut in _cuts(prospect, _lowest(prospect, single)):
        recipe = RECIPES["contrastive"]
        recipe = recipe.with_(name=f"{recipe.name} above {cut}", cut=cut)
        (plan,) = plans_for(recipe, prospect.features, n_classes, None)
        yield _idea(recipe, prospect, single, plan, alone=True)


def _starts(prospect: Prospect) -> Iterator[ProbeResult]:
    """The best probe; the best single one; then the last layer's, unless that is the same or far behind."""
    profile = prospect.profile
    if profile.best.candidate.taps != profile.single.candidate.taps:
        yield with_values(prospect, profile.best)
    yield profile.single
    name = prospect.traced.stages[-1].name
    of_last = [r for r in profile.results if [tap.cut for tap in r.candidate.taps] == [name]]
    last = max(of_last, key=lambda r: r.score, default=None)
    if last and last.candidate.taps != profile.single.candidate.taps and last.score > profile.single.score - _FAR:
        yield with_values(prospect, last)


def _lowest(prospect: Prospect, probe: ProbeResult) -> Cut:
    """The lowest activation that a probe reads."""
    return min((prospect.traced.cut(tap.cut) for tap in probe.candidate.taps), key=lambda cut: cut.index)


def _cuts(prospect: Prospect, lowest: Cut) -> list[str]:
    """The cuts to train above, below all that a head reads, the highest first; the input last, and with many examples.

    A stage counts where it has parameters: above a pooling layer the head alone would train.
    """
    _, *places = places_below(prospect.traced, lowest)
    names = [place.name for place in places if not place.needs_input]
    many = per_class(prospect) >= MANY_PER_CLASS
    cuts = [names[-depth] for depth in (*_DEPTHS, *(_DEEPER if many else ())) if depth <= len(names)]
    return [*cuts, "input"] if many or not cuts else cuts
