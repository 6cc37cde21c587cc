"""What a recipe comes to: which trials are made, and which of them is delivered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regraft.probe import ProbeResult
from regraft.search.features import Means
from regraft.search.prospect import Prospect, randomised
from regraft.search.trial import Gain, Trial, gain, probe_trial, train_trial
from regraft.tune import RECIPES, Plan, Recipe, resolve, tap_name

# Without a limit, fine-tuning may take twice as long as all that came before it: a frozen pass and its probes are
# the price of a first answer, and few people wait much longer for a second one.
PATIENCE = 2.0
LEAST_SECONDS = 30.0


@dataclass(frozen=True)
class Clock:
    """How long a run has taken and may take.

    Args:
        started: `time.monotonic()` at its beginning.
        limit: seconds; None leaves it to the search.
    """

    started: float
    limit: float | None = None

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self.started

    @property
    def left(self) -> float | None:
        """Seconds until the limit; None without one."""
        return None if self.limit is None else max(0.0, self.limit - self.spent)


@dataclass(frozen=True)
class Decision:
    """The trial that is delivered.

    Args:
        chosen: the trial.
        trials: all that were made, in order.
        why: the reasons, one sentence each.
    """

    chosen: Trial
    trials: tuple[Trial, ...]
    why: tuple[str, ...]


def decide(
    prospects: Sequence[Prospect],
    recipe: Recipe | None,
    n_classes: int,
    means: Means,
    *,
    folder: Path,
    clock: Clock,
) -> Decision:
    """Carry out a recipe, or find the best one.

    Args:
        prospects: the sources looked at; the one with the best probe is reused.
        recipe: what to do; None tries the probe, then fine-tuning above the best cut, and takes the better one.
        n_classes: of the new head.
        means: seed, device, listener.
        folder: for training that may be interrupted.
        clock: what time there is.
    """
    prospect = max(prospects, key=lambda p: p.profile.best.score)
    why = [_why_source(prospects, prospect)] if len(prospects) > 1 else []
    if recipe is not None:
        trial = _carry_out(recipe, prospect, n_classes, means, folder, clock)
        return Decision(trial, (trial,), (*why, _why_recipe(trial)))
    probe = probe_trial(prospect, RECIPES["probe"], n_classes)
    tuned = _finetune(probe, means, folder, clock)
    if tuned is None:
        late = "Fine-tuning was not tried: the time limit was reached."
        return Decision(probe, (probe,), (*why, _why_probe(prospect), late))
    gained = gain(tuned, probe)
    chosen = tuned if gained.convincing else probe
    return Decision(chosen, (probe, tuned), (*why, _why_probe(prospect), _why_finetune(tuned, gained)))


def plan_of(prospect: Prospect, recipe: Recipe | None, n_classes: int) -> Plan:
    """What a recipe would train on a source; for None, what fine-tuning after the probe would."""
    recipe = recipe or RECIPES["finetune"]
    probe = prospect.profile.best if recipe.head == "probe" else None
    n_train = len(prospect.features.labels("train"))
    return resolve(recipe, prospect.source, prospect.traced, n_classes, probe=probe, n_train=n_train)


def _carry_out(recipe: Recipe, prospect: Prospect, n_classes: int, means: Means, folder: Path, clock: Clock) -> Trial:
    if recipe.weights == "random":
        prospect = randomised(prospect, means)
    if not recipe.epochs and recipe.taps == "auto":
        return probe_trial(prospect, recipe, n_classes)
    probe = prospect.profile.best if recipe.head == "probe" else None
    checkpoint = folder / f"{recipe.name}.pt"
    return train_trial(prospect, recipe, n_classes, means, probe=probe, checkpoint=checkpoint, time_limit=clock.left)


def _finetune(probe: Trial, means: Means, folder: Path, clock: Clock) -> Trial | None:
    """Fine-tune from the probe's head; None if there is no time."""
    budget = max(LEAST_SECONDS, PATIENCE * clock.spent) if clock.left is None else clock.left
    if budget <= 0:
        return None
    return train_trial(
        probe.prospect,
        RECIPES["finetune"],
        probe.plan.n_classes,
        means,
        probe=probe.probe,
        checkpoint=folder / "finetune.pt",
        time_limit=budget,
    )


def _why_finetune(tuned: Trial, gained: Gain) -> str:
    where = f"Fine-tuning above {tuned.plan.cut} from the probe's head gave {gained} on validation"
    kept = "it is delivered" if gained.convincing else "no more than two standard errors, so the probe is delivered"
    return f"{where} in {tuned.seconds:.0f} s: {kept}."


def describe_probe(result: ProbeResult) -> str:
    """A probe in a few words: head and where it reads."""
    candidate = result.candidate
    if candidate.members:
        cuts = list(dict.fromkeys(tap.cut for tap in candidate.taps))
        return f"the average of {len(candidate.members)} heads on {len(cuts)} stages from {cuts[0]} to {cuts[-1]}"
    return f"{candidate.head} on {' + '.join(map(tap_name, candidate.taps))}"


def _why_probe(prospect: Prospect) -> str:
    best, last = prospect.profile.best, _last_layer(prospect)
    held = f"{_percent(best.val_accuracy)} ± {100 * best.se:.1f} on validation"
    text = f"The best probe is {describe_probe(best)}, {held}"
    return f"{text}; the last layer alone holds {_percent(last.val_accuracy)}." if last else f"{text}."


def _last_layer(prospect: Prospect) -> ProbeResult | None:
    """The best head on the classifier's own input, if that is not the best of all."""
    name = prospect.traced.feature.name
    alone = [r for r in prospect.profile.results if [tap.cut for tap in r.candidate.taps] == [name]]
    last = max(alone, key=lambda r: r.val_accuracy, default=None)
    return None if last is prospect.profile.best else last


def _why_recipe(trial: Trial) -> str:
    where = f"trained above {trial.plan.cut}" if trial.history else "nothing trained by gradient"
    return f"Recipe {trial.name} was asked for: {where}, {_percent(trial.val_accuracy)} on validation."


def _why_source(prospects: Sequence[Prospect], chosen: Prospect) -> str:
    scores = ", ".join(f"{p.source.uri} {_percent(p.profile.best.val_accuracy)}" for p in prospects)
    return f"Of {len(prospects)} sources {chosen.source.uri} has the best probe ({scores} on validation)."


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
