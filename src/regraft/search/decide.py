"""What a recipe comes to: which trials are made, and which of them is delivered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regraft.search.clock import Clock
from regraft.search.explain import why_chosen, why_no_time, why_probe, why_recipe, why_trained
from regraft.search.explore import explore, merit, seconds_beyond
from regraft.search.features import Means
from regraft.search.prospect import Prospect, randomised
from regraft.search.starts import probe_for
from regraft.search.study import STUDY, Study
from regraft.search.trial import TRAINING, Trial, probe_trial, train_trial
from regraft.search.validate import gain, seconds_held_out, sure_gain
from regraft.tune import RECIPES, Recipe


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
    prospect: Prospect,
    recipe: Recipe | None,
    n_classes: int,
    means: Means,
    *,
    folder: Path,
    clock: Clock,
) -> Decision:
    """Carry out a recipe, or find the best one.

    Args:
        prospect: the source to reuse, looked at.
        recipe: what to do; None searches, starting from the probe.
        n_classes: of the new head.
        means: seed, device, listener.
        folder: of the run: for the study, and for training that may be interrupted.
        clock: what time there is.
    """
    if recipe is not None:
        trial = _carry_out(recipe, prospect, n_classes, means, folder, clock)
        return Decision(trial, (trial,), (why_recipe(trial),))
    probe = probe_trial(prospect, RECIPES["probe"], n_classes)
    no_time = why_no_time(seconds_beyond(probe, clock), probe, limited=clock.limit is not None)
    tuned = explore(probe, means, folder=folder, clock=clock)
    if not tuned:
        reason = "no validation example is left to be won" if probe.val_accuracy == 1.0 else no_time
        return Decision(probe, (probe,), (why_probe(prospect), f"Nothing was trained further: {reason}."))
    best = max(tuned, key=merit)
    reasons = [why_trained(trial, gain(trial, probe)) for trial in tuned]
    fits = clock.left is None or seconds_held_out(best) <= clock.left
    held_out = Study(folder / STUDY).once("held out", lambda: fits)  # a resumed run judges on the same
    gained = sure_gain(best, probe, means, held_out=held_out)
    chosen = best if gained.convincing else probe
    return Decision(chosen, (probe, *tuned), (why_probe(prospect), *reasons, why_chosen(best, gained)))


def _carry_out(recipe: Recipe, prospect: Prospect, n_classes: int, means: Means, folder: Path, clock: Clock) -> Trial:
    if recipe.weights == "random":
        prospect = randomised(prospect, means)
    probe = probe_for(prospect, recipe)
    if not recipe.epochs and recipe.batch_norm != "reestimate":
        return probe_trial(prospect, recipe, n_classes, probe)
    checkpoint = folder / TRAINING / "recipe.pt"  # not the recipe's name: what a file of others says is no path
    return train_trial(prospect, recipe, n_classes, means, probe=probe, checkpoint=checkpoint, time_limit=clock.left)
