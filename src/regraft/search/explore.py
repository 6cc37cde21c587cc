"""The search behind `auto`: short runs, then full ones for the best third, then the best of these with views.

Successive halving (Jamieson and Talwalkar, 2016, arXiv:1502.07943) over the ideas that fit the time. What is tried is
settled before the first run and stored in the study, as is every run when it ends, so that a killed search goes on
where it stopped and comes to the same end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from regraft.search.clock import Clock
from regraft.search.features import Means
from regraft.search.ideas import MANY_PER_CLASS, Idea, has_views, ideas, per_class, viewed
from regraft.search.study import STUDY, Study
from regraft.search.trial import TRAINING, Trial, train_trial
from regraft.tune import Recipe

# Without a limit the search may take as long as all that came before it and a little more: a frozen pass and its probes
# are the price of a first answer, and few people wait much longer for a second one. With many examples of a class
# training gains more, and people who labelled them wait.
PATIENCE, PATIENCE_WITH_MANY = 1.0, 4.0
LEAST_SECONDS = 25.0
_SHORTEST = 1.0  # seconds in which nothing is trained; finding out what that would take is as long
# Training can win no more than what the probe gets wrong: where that is less than this share of the validation split,
# the search takes as much less time.
_WORTH_ALL = 0.25
# Little data, freeze more: training learns from what the probe gets wrong. Where that is fewer of the training examples
# than these, the search takes as much less time.
_ENOUGH_WRONG = 48
SHORT = 0.25  # of the updates, in the first round
KEPT = 3  # one in so many goes on


def explore(probe: Trial, means: Means, *, folder: Path, clock: Clock) -> list[Trial]:
    """Trials beyond the probe, in the order in which they were made; none without time, or with nothing left to win.

    Args:
        probe: the trial to beat.
        means: seed, device, listener.
        folder: of the run: for the study, and for training that may be interrupted.
        clock: what time there is.
    """
    study = Study(folder / STUDY)
    study.add("probe", {"cut": probe.plan.cut}, probe.val_accuracy, {"seconds": probe.seconds})
    if probe.val_accuracy == 1.0:
        return []
    budget = seconds_beyond(probe, clock)
    end = clock.spent + budget
    chosen = _chosen(study, probe, budget)
    rivals = chosen if len(chosen) > 1 else []
    first = [_run(idea, study, probe, means, folder, clock, short=True) for idea in rivals]
    tried = [(idea, trial) for idea, trial in zip(rivals, first, strict=True) if trial is not None]
    best = sorted(tried, key=lambda pair: merit(pair[1]), reverse=True)[: math.ceil(len(tried) / KEPT)]
    going_on = [idea for idea, _ in best] if rivals else chosen
    second = [_run(idea, study, probe, means, folder, clock, short=False) for idea in going_on]
    done = [(idea, trial) for idea, trial in zip(going_on, second, strict=True) if trial is not None]
    best = sorted(done, key=lambda pair: merit(pair[1]))[-1:] if has_views(probe.prospect) else []
    more = [viewed(idea, probe.prospect) for idea, _ in best if not idea.recipe.views]
    fits = study.once("views fit the time", lambda: all(clock.spent + idea.seconds <= end for idea in more))
    third = [_run(idea, study, probe, means, folder, clock, short=False) for idea in more if fits]
    return [trial for trial in [*first, *second, *third] if trial is not None]


def seconds_beyond(probe: Trial, clock: Clock) -> float:
    """What the search beyond a probe may take from now on."""
    many = per_class(probe.prospect) >= MANY_PER_CLASS
    rows = len(probe.prospect.features.labels("train"))
    return seconds_for(clock, 1 - probe.val_accuracy, rows, PATIENCE_WITH_MANY if many else PATIENCE)


def seconds_for(clock: Clock, wrong: float, rows: int, patience: float = PATIENCE) -> float:
    """What a search may take from now on: what is left of a limit, else in proportion to the time that was spent.

    Args:
        clock: what was spent, and the limit.
        wrong: share of the validation split that is still to be won.
        rows: labelled examples to train on.
        patience: how many times as long as all that came before.
    """
    if clock.left is not None:
        return clock.left
    worth = min(1.0, wrong / _WORTH_ALL) * min(1.0, wrong * rows / _ENOUGH_WRONG)
    return (LEAST_SECONDS + patience * clock.spent) * worth


def shortened(idea: Idea) -> Recipe:
    """The recipe of an idea's run in the first round."""
    updates = max(1, round(SHORT * idea.plan.updates))
    return replace(idea.recipe, name=f"{idea.name}, short", epochs=1, min_updates=updates)


def merit(trial: Trial) -> tuple[float, float]:
    """Accuracy on validation, then, for ties, the loss."""
    loss = trial.history.kept.val_loss if trial.history else None
    return trial.val_accuracy, -loss if loss is not None else -math.inf


def first_round(every: Iterable[Iterator[Idea]], budget: float) -> list[Idea]:
    """The ideas whose short runs fit the time, with a full run of the best third.

    Args:
        every: for each head to start from, ever dearer ideas; each is made when it is asked for.
        budget: seconds.
    """
    made: list[Idea] = []
    for deeper in every if budget > _SHORTEST else ():
        for idea in deeper:
            if not _affordable([idea] if idea.alone else [*made, idea], budget):
                if idea.recipe.views:
                    continue  # without their frozen passes what is deeper may fit
                break  # what is deeper still costs more
            made = [idea] if idea.alone else [*made, idea]
    return made


def _chosen(study: Study, probe: Trial, budget: float) -> list[Idea]:
    """The ideas of the first round: settled once, whatever the clock says when the search is resumed."""

    def every() -> Iterator[Iterator[Idea]]:
        return ideas(probe.prospect, probe.plan.n_classes)

    made: list[Idea] = []

    def settle() -> list[str]:
        made.extend(first_round(every(), budget))
        return [idea.name for idea in made]

    names = study.once("first round", settle)
    if made or not names:
        return made
    of_resumed = (idea for deeper in every() for idea in deeper)
    return list(islice((idea for idea in of_resumed if idea.name in names), len(names)))


def _affordable(chosen: Sequence[Idea], budget: float) -> bool:
    """Whether a short run of all, and a full one of the dearest ones that may go on, fit the time.

    One idea alone has no rivals, and needs no short run.
    """
    short = sum(SHORT * idea.plan.seconds + idea.fixed for idea in chosen) if len(chosen) > 1 else 0.0
    costs = sorted((idea.seconds for idea in chosen), reverse=True)
    return short + sum(costs[: math.ceil(len(costs) / KEPT)]) <= budget


def _run(
    idea: Idea, study: Study, probe: Trial, means: Means, folder: Path, clock: Clock, *, short: bool
) -> Trial | None:
    """One run, written to the study when it ends; None if there is no time for it any more."""
    recipe = shortened(idea) if short else idea.recipe
    if not study.once(f"time for {recipe.name}", lambda: clock.left is None or clock.left > 0):
        return None
    number = study.once(f"number of {idea.name}", lambda: len(study.trials))
    ended = study.has(recipe.name)
    trial = train_trial(
        probe.prospect,
        recipe,
        probe.plan.n_classes,
        means,
        probe=idea.probe,
        checkpoint=folder / TRAINING / f"{number}{'-short' if short else ''}.pt",
        time_limit=0.0 if ended else clock.left,  # a run that ended only takes up its checkpoint
    )
    assert trial.history is not None
    curve = {row.epoch: row.val_accuracy for row in trial.history.rows}
    study.add(recipe.name, idea.params, trial.val_accuracy, {"seconds": trial.seconds, "curve": curve})
    return replace(trial, seconds=study.seconds(recipe.name))  # not those of taking up what had ended
