"""Scope: what a recipe means for each tensor of one network; decided before any row or optimizer is made."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from regraft.cache import Tap
from regraft.cut import Cut, Traced, around, between, linear_layers, statistics
from regraft.errors import RecipeError
from regraft.head import NEED_PLACES, has_places, make_head, parse_layers
from regraft.probe import ProbeResult
from regraft.tune.edit import edited
from regraft.tune.lora import adapters, require_peft
from regraft.tune.names import matching, required
from regraft.tune.network import head_shape
from regraft.tune.plan import HEAD
from regraft.tune.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Scope:
    """Which tensors of a body and its head are kept, trained, fresh.

    The body's names are the source's; the head's begin with "head.", as may the source's own: they are kept apart.

    Args:
        recipe: the intent.
        traced: the network, with the recipe's replaced blocks.
        taps: what the head reads.
        cut: what lies above it can be trained.
        head: as it starts where it starts fresh.
        delivered: names of tensors that are part of the delivered model.
        trained: of the body's parameters that are trained by gradient, and statistics that follow the batches.
        head_trained: of the head's parameters that are trained.
        measured: of statistics that are measured once, before training.
        fresh: of tensors that do not have the source's values.
        adapters: matrices beside frozen weights, by name, with shapes and without values.
    """

    recipe: Recipe
    traced: Traced
    taps: tuple[Tap, ...]
    cut: str
    head: nn.Module
    delivered: frozenset[str]
    trained: frozenset[str]
    head_trained: frozenset[str]
    measured: frozenset[str]
    fresh: frozenset[str]
    adapters: dict[str, nn.Parameter]

    def tensors(self, source: nn.Module) -> dict[str, Tensor]:
        """Every tensor of a source, of what replaces its blocks, and of adapters; what a name replaced is gone."""
        return {**source.state_dict(keep_vars=True), **_named_tensors(self.traced), **self.adapters}

    @property
    def parameters(self) -> set[str]:
        """Names of all parameters of the body."""
        return {name for name, _ in self.traced.graph.named_parameters()} | self.adapters.keys()

    @property
    def trained_parameters(self) -> set[str]:
        """Names of those that are trained by gradient, of the body and of the head."""
        return (self.parameters & self.trained) | self.head_trained

    def stage_of(self) -> dict[str, int]:
        """For each tensor in the graph the number of the stage in which it is first used."""
        order = {node.name: i for i, node in enumerate(self.traced.graph.graph.nodes)}
        ends = [order[stage.node] for stage in self.traced.stages]
        stages = {name: bisect_left(ends, first) for name, first in first_use(self.traced).items()}
        return stages | {name: stages[f"{name.partition('.lora_')[0]}.weight"] for name in self.adapters}


def scope_of(recipe: Recipe, traced: Traced, n_classes: int, probe: ProbeResult | None, n_train: int) -> Scope:
    """Decide what a recipe keeps, trains and starts anew.

    Raises:
        RecipeError: a pattern matches nothing, a tap lies below the cut, or what starts fresh would stay so.
        CutError: no such cut or block.
    """
    floor = _below_replaced(recipe, traced)
    traced = edited(traced, recipe)
    taps = choose_taps(recipe, traced, probe)
    head = make_head(recipe.head_layers, *head_shape(traced, taps, recipe.head_layers), n_classes)
    heads = {HEAD + name for name, _ in head.named_parameters()}
    reached = _names(traced, "input", taps)
    fresh = _fresh(recipe, traced, reached)
    wanted = _wanted(recipe, traced, reached, heads)
    parameters = {name for name, _ in traced.graph.named_parameters()}
    targets = _targets(recipe, traced, taps)
    needed = {f"{layer}.weight" for layer in targets} if recipe.lora_targets else (wanted or set()) & reached
    cut = choose_cut(recipe, traced, taps, n_train, needed=fresh | needed)
    if floor is not None:
        cut = _not_above(recipe, traced, cut, floor)
    above = frozenset() if cut == "output" else _names(traced, cut, taps)
    added = _adapters(recipe, traced, targets, above, cut)
    trained = set(added) or {name for name in above & parameters if wanted is None or name in wanted}
    trained = trained if recipe.epochs else set()
    head_trained = frozenset(name for name in heads if wanted is None or name in wanted)
    _check_fresh(recipe, trained, fresh & parameters, whole_head=head_trained == heads)
    moving, measured = _moving(recipe, traced, above, trained, fresh)
    _check_trained(recipe, trained | head_trained | moving, cut)
    kept = _names(traced, "input", [*taps, Tap("output")]) if recipe.keep_source_head else reached
    changing = frozenset(trained | moving)
    new = frozenset(fresh | added.keys())
    return Scope(recipe, traced, taps, cut, head, kept, changing, head_trained, frozenset(measured), new, added)


# where the head reads -------------------------------------------------------------------------------


def choose_taps(recipe: Recipe, traced: Traced, probe: ProbeResult | None) -> tuple[Tap, ...]:
    """The activations that the head reads.

    Raises:
        CutError: the recipe names a cut that does not exist.
        RecipeError: a grid is not a number, or the head needs places and the taps have none.
    """
    kind, _ = parse_layers(recipe.head_layers) or ("linear", 0)
    if recipe.taps in ("auto", "feature"):
        return _own_taps(recipe, traced, probe, kind)
    taps = tuple(_parse_tap(text.strip(), traced, whole=kind in NEED_PLACES) for text in recipe.taps.split("+"))
    whole = [tap for tap in taps if not tap.grid and _has_places(traced.cut(tap.cut))]
    if kind in NEED_PLACES and (len(taps) > 1 or not whole):
        places = [cut.name for cut in traced.stages if _has_places(cut)]
        raise RecipeError(
            f"head_layers = {recipe.head_layers!r} reads the places of one whole activation, but taps = "
            f"{recipe.taps!r}. Name one without a grid: recipe.with_(taps={places[-1] if places else 'auto'!r})."
        )
    return taps


def check_cuts(recipe: Recipe, traced: Traced) -> None:
    """Look for the cuts that a recipe names, which needs no graph and no features.

    Raises:
        CutError: the recipe names a cut that does not exist.
        RecipeError: a grid is not a number.
    """
    for block in recipe.replace:
        traced.cut(block)
    if recipe.replace:  # what replaces a block may have cuts of its own
        return
    for name in (recipe.cut, recipe.drop_above):
        if name not in ("auto", "output", ""):
            traced.cut(name)
    if recipe.taps not in ("auto", "feature"):
        for text in recipe.taps.split("+"):
            _parse_tap(text.strip(), traced, whole=False)


def _own_taps(recipe: Recipe, traced: Traced, probe: ProbeResult | None, kind: str) -> tuple[Tap, ...]:
    top = traced.cut(recipe.drop_above) if recipe.drop_above else traced.feature
    if kind in NEED_PLACES:
        return (Tap(_highest_with_places(recipe, traced, top).name),)
    if recipe.taps == "auto" and probe is not None:
        probed = tuple(probe.candidate.taps)
        if all(traced.cut(tap.cut).index <= top.index for tap in probed):
            return probed
    return (Tap(top.name, 0 if len(top.shape) == 1 else 1),)


def _highest_with_places(recipe: Recipe, traced: Traced, top: Cut) -> Cut:
    found = [cut for cut in traced.cuts[1:] if cut.index <= top.index and _has_places(cut)]
    if not found:
        raise RecipeError(
            f"head_layers = {recipe.head_layers!r} needs places (pixels or tokens), and no activation of "
            f"{traced.model} has any. Use layers that need none: recipe.with_(head_layers='mlp:256')."
        )
    return found[-1]


def _has_places(cut: Cut) -> bool:
    return has_places(cut.shape, cut.layout)


def _parse_tap(text: str, traced: Traced, *, whole: bool) -> Tap:
    name, at, grid = text.partition("@")
    if at and not grid.isdigit():
        raise RecipeError(f"taps = {text!r}: the grid after @ must be a number. For example: taps = '{name}@4'.")
    cut = traced.cut(name)
    return Tap(cut.name, int(grid) if at else (0 if whole or len(cut.shape) == 1 else 1))


# where training begins ------------------------------------------------------------------------------


def choose_cut(recipe: Recipe, traced: Traced, taps: Sequence[Tap], n_train: int, *, needed: Collection[str]) -> str:
    """Above which cut to train.

    With patterns, "auto" is the highest cut below all that trains, so that as much as can be comes from the cache.
    Else it trains the top quarter of the stages below the head with fewer than 100 examples, the top half with
    fewer than 1,000, else all: few examples cannot correct what training low stages spoils.

    Args:
        recipe: the intent.
        traced: the network.
        taps: what the head reads.
        n_train: training examples.
        needed: names of tensors that must lie above the cut.

    Raises:
        RecipeError: a tap lies below the cut, so that the trained part could not compute it.
    """
    if recipe.cut == "output":
        return "output"
    tapped = [traced.cut(tap.cut) for tap in taps]
    lowest = min(tapped, key=lambda cut: cut.index)
    if recipe.cut != "auto":
        return _legal(recipe, traced, lowest.name)
    below = _highest_below(traced, needed, lowest)
    if recipe.train or recipe.freeze or recipe.lora_targets:
        return below.name if below else "output"
    places = places_below(traced, max(tapped, key=lambda cut: cut.index))
    share = 0.25 if n_train < 100 else 0.5 if n_train < 1000 else 1.0
    highest = places[len(places) - max(1, round(share * len(places)))]
    most = min(highest.index, lowest.index)
    if below and below.index < most:
        return below.name
    return max((p for p in places if p.index <= most), key=lambda p: p.index).name


def ceiling(recipe: Recipe, traced: Traced, taps: Sequence[Tap]) -> Cut:
    """The highest cut below all that the head reads and all that starts anew.

    Args:
        recipe: what is replaced and what is restored.
        traced: the source's graph.
        taps: what the head reads.

    Raises:
        RecipeError: `restore` matches nothing.
    """
    made = edited(traced, recipe)
    lowest = min((made.cut(tap.cut) for tap in taps), key=lambda cut: cut.index)
    fresh = _highest_below(made, _fresh(recipe, made, _names(made, "input", taps)), lowest)
    replaced = _below_replaced(recipe, traced)
    found = [lowest, *([fresh] if fresh else ()), *([made.cut(replaced.name)] if replaced else ())]
    return min(found, key=lambda cut: cut.index)


def _below_replaced(recipe: Recipe, traced: Traced) -> Cut | None:
    """The highest cut that no replaced block lies below: what is cached above it is of another network."""
    starts = [around(traced, block)[0] for block in recipe.replace]
    return min(starts, key=lambda cut: cut.index, default=None)


def _not_above(recipe: Recipe, traced: Traced, cut: str, floor: Cut) -> str:
    """A cut at `floor` or lower: `cut`, or `floor` where the choice is ours."""
    if cut != "output" and traced.cut(cut).index <= floor.index:
        return cut
    if recipe.cut == "auto":
        return floor.name
    raise RecipeError(
        f"recipe {recipe.name!r} starts at {cut!r}, but replaces a block below it, and what is cached there comes from "
        f"the network as it was. Cut there or lower: recipe.with_(cut={floor.name!r})."
    )


def _highest_below(traced: Traced, names: Collection[str], lowest: Cut) -> Cut | None:
    """The highest cut below the first use of some tensors and not above `lowest`; None if they are not in the body."""
    used = first_use(traced)
    first = min((used[name] for name in names if name in used), default=None)
    if first is None:
        return None
    order = {node.name: i for i, node in enumerate(traced.graph.graph.nodes)}
    legal = [c for c in traced.cuts if not c.needs_input and order[c.node] < first and c.index <= lowest.index]
    return max(legal, key=lambda cut: cut.index, default=traced.cuts[0])


def places_below(traced: Traced, top: Cut) -> list[Cut]:
    """The input and one cut per stage below `top`, each with parameters between it and the next."""
    places = [traced.cut("input")]
    for stage in traced.stages:
        if places[-1].params_below < stage.params_below < top.params_below:
            places.append(stage)
    return places


def _legal(recipe: Recipe, traced: Traced, lowest: str) -> str:
    cut = traced.cut(recipe.cut)
    if cut.needs_input:
        raise RecipeError(
            f"recipe {recipe.name!r} trains above {cut.name!r}, but what lies above it reads the network's input "
            f"again, so its activation alone is not enough. Train above a stage: recipe.with_(cut={lowest!r})."
        )
    if cut.index > traced.cut(lowest).index:
        raise RecipeError(
            f"recipe {recipe.name!r} trains above {cut.name!r}, but its head also reads {lowest!r}, which "
            f"lies below. Cut there or lower: recipe.with_(cut={lowest!r})."
        )
    return cut.name


def first_use(traced: Traced) -> dict[str, int]:
    """For each tensor in the graph the position of the first node that uses it."""
    order = {node: i for i, node in enumerate(traced.graph.graph.nodes)}
    used: dict[str, int] = {}
    for node, position in order.items():
        if node.op == "get_attr" and node.users:
            used[str(node.target)] = min(order[user] for user in node.users)
        elif node.op == "call_module":
            layer = traced.graph.get_submodule(str(node.target))
            for name in layer.state_dict():
                used.setdefault(f"{node.target}.{name}", position)
    return used


# what becomes of each tensor ------------------------------------------------------------------------


def _names(traced: Traced, start: str, taps: Sequence[Tap]) -> frozenset[str]:
    """Tensors between a cut and some taps, those that are saved."""
    return frozenset(between(traced, start, [tap.cut for tap in taps]).state_dict())


def _named_tensors(traced: Traced) -> dict[str, Tensor]:
    tensors = {**dict(traced.graph.named_parameters()), **dict(traced.graph.named_buffers())}
    return {name: tensor for name, tensor in tensors.items() if name in traced.saved}


def _fresh(recipe: Recipe, traced: Traced, reached: frozenset[str]) -> set[str]:
    """What does not have the source's values: all but what is restored, and the layers of replaced blocks."""
    new = {name for block in recipe.replace for name in reached if name.startswith(f"{block}.")}
    if not recipe.restore:
        return new
    dropped = _named_tensors(traced).keys() - reached
    return new | (reached - required("restore", recipe.restore, reached - new, elsewhere=dropped, why="are dropped"))


def _wanted(recipe: Recipe, traced: Traced, reached: frozenset[str], heads: set[str]) -> set[str] | None:
    """Names that `train` and `freeze` let train, in the body and the head; None where neither says anything."""
    if not (recipe.train or recipe.freeze):
        return None
    parameters = {name for name, _ in traced.graph.named_parameters()}
    names, dropped = (reached & parameters) | heads, parameters - reached
    wanted = set(names)
    if recipe.train:
        wanted = required("train", recipe.train, names, elsewhere=dropped, why="are dropped")
    if recipe.freeze:
        required("freeze", recipe.freeze, names, elsewhere=dropped, why="are dropped")
        wanted -= matching(recipe.freeze, names)
    return wanted


def _targets(recipe: Recipe, traced: Traced, taps: Sequence[Tap]) -> list[str]:
    """The linear layers below the head that a recipe lets adapters go on, in order."""
    if not recipe.lora:
        return []
    require_peft()
    layers = linear_layers(between(traced, "input", [tap.cut for tap in taps]))
    if not layers:
        raise RecipeError(
            f"lora adapts linear layers, and {traced.model} has none below the head. Train its own layers: "
            "recipe.with_(lora=0)."
        )
    found = required("lora_targets", recipe.lora_targets, layers)
    return [layer for layer in layers if layer in found]


def _adapters(
    recipe: Recipe, traced: Traced, targets: Sequence[str], above: frozenset[str], cut: str
) -> dict[str, nn.Parameter]:
    layers = [layer for layer in targets if f"{layer}.weight" in above]
    if targets and not layers:
        raise RecipeError(
            f"lora adapts linear layers above the cut, and none of those that are meant lies above {cut!r}. Name one, "
            f"and let the cut be found: recipe.with_(cut='auto', lora_targets={targets[-1]!r})."
        )
    return adapters(traced.graph, layers, recipe.lora)


def _check_trained(recipe: Recipe, trained: Collection[str], cut: str) -> None:
    """Epochs are for something that changes in them, and patterns of what trains for epochs."""
    if trained or not (recipe.train or recipe.epochs):
        return
    if not recipe.epochs:
        raise RecipeError(
            f"train = {recipe.train!r} says what is trained, and epochs = 0 trains nothing. Ask for some: "
            "recipe.with_(epochs=20), or train nothing: recipe.with_(train='')."
        )
    if recipe.train:
        raise RecipeError(
            f"train = {recipe.train!r} matches only what freeze = {recipe.freeze!r} freezes, or what lies below the "
            f"cut {cut!r}. Let the cut be found: recipe.with_(cut='auto', freeze='')."
        )
    raise RecipeError(
        f"freeze = {recipe.freeze!r} leaves nothing above the cut {cut!r} to train, and epochs = {recipe.epochs}. "
        "Deliver the probe's head as it is: recipe.with_(epochs=0), or let the head train: recipe.with_(freeze='')."
    )


def _check_fresh(recipe: Recipe, trained: set[str], fresh: set[str], *, whole_head: bool) -> None:
    """What starts anew must be trained."""
    if fresh and recipe.head == "probe":
        raise RecipeError(
            f"{', '.join(sorted(fresh)[:3])} start anew, and the probe's head was fitted on what the source's own "
            "layers give. Start it from zero: recipe.with_(head='fresh')."
        )
    stuck = sorted(fresh - trained)
    if stuck and recipe.lora:
        raise RecipeError(
            f"lora trains its adapters and the head alone, so that what starts anew would stay random: "
            f"{', '.join(stuck[:3])}. Train the layers themselves: recipe.with_(lora=0, lora_targets=''), or keep the "
            "source's: recipe.with_(restore='', replace={})."
        )
    if stuck:
        raise RecipeError(
            f"these tensors start anew but would not be trained, so that they would stay random: "
            f"{', '.join(stuck[:3])}. Train them: recipe.with_(cut='auto', train='', freeze=''), or restore them."
        )
    if recipe.epochs and recipe.head == "fresh" and not whole_head:
        raise RecipeError(
            "the head starts fresh but is not trained whole, so nothing could be learnt through it. Train it too: "
            f"recipe.with_(train={recipe.train + '|^head' if recipe.train else ''!r}, freeze=...), or start from the "
            "probe's: recipe.with_(head='probe')."
        )


def _moving(
    recipe: Recipe, traced: Traced, above: frozenset[str], trained: set[str], fresh: set[str]
) -> tuple[set[str], set[str]]:
    """Batch-norm statistics that follow the batches, and those that are measured before training.

    They follow where their own layer trains; fresh ones always do, since they describe nothing yet.
    """
    moving: set[str] = set()
    measured: set[str] = set()
    for mean, (variance, *affine) in statistics(traced.graph).items():
        if mean not in above:
            continue
        own = affine or [name for name in trained if name.startswith(mean.rpartition(".")[0].rpartition(".")[0])]
        if mean in fresh or (recipe.batch_norm == "train" and any(name in trained for name in own)):
            counter = mean.replace("running_mean", "num_batches_tracked")  # whole layers have one, graphs have not
            moving |= {mean, variance, counter} & above
        elif recipe.batch_norm == "reestimate":
            measured |= {mean, variance}
    return moving, measured
