"""A short race: two sources that their probes leave tied are both trained for a little, and judged on the same rows.

The first in rank stays first unless the second is surely better, so that ties still go to the cheaper.

Shape letters: N examples (training and validation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from regraft.data import Dataset
from regraft.search.clock import Clock
from regraft.search.explore import SHORT, seconds_for, shortened
from regraft.search.features import Means
from regraft.search.ideas import ideas
from regraft.search.prospect import look_at
from regraft.search.rank import Ranked, better_of, tied_with, without_test
from regraft.search.study import STUDY, Study
from regraft.search.trial import Gain, right, train_trial
from regraft.search.validate import N_FOLDS, right_held_out
from regraft.source import Source

OF_A_FIT = 0.25  # of the time for training, for both; the rest is for what the winner learns

Judge = Callable[[Ranked, float], np.ndarray | None]


def race(
    ranked: Sequence[Ranked],
    data: Dataset,
    open_source: Callable[[str], Source],
    means: Means,
    *,
    folder: Path,
    clock: Clock,
    share: float = OF_A_FIT,
) -> list[Ranked]:
    """The order after a race of the first two; as it was, if their probes tell them apart or there is no time.

    Who goes on is kept in the study: a run that is resumed reuses the same source, and does not race again.

    Args:
        ranked: sources in order, from `rank`.
        data: labelled examples; the test split is not looked at.
        open_source: from URI to network.
        means: cache folder, runtime, device, seed, listener.
        folder: of the run.
        clock: what time there is.
        share: of the time for training, for both.
    """

    def judge(each: Ranked, seconds: float) -> np.ndarray | None:
        return _right_after_training(without_test(data), open_source(each.source), means, seconds)

    study, (first, second) = Study(folder / STUDY), ranked[:2]
    better, other = better_of(first, second)
    if tied_with(better, other):
        means.listener.say(f"Probes do not tell {first.source} from {second.source}.")
        seconds = seconds_for(clock, 1 - better.accuracy, len(data.split("train")))
        settled = study.once("race", lambda: _settle(first, second, judge, share * seconds / 2))
    else:
        settled = study.once("race", lambda: {"source": first.source, "said": ""})
    return _led_by(ranked, settled["source"], settled["said"])


def settled_order(ranked: Sequence[Ranked], folder: Path) -> list[Ranked]:
    """The order as this run first found it: costs are measured, so ties may fall otherwise when it is resumed.

    Args:
        ranked: sources in order, from `rank`.
        folder: of the run.
    """
    order = Study(folder / STUDY).once("order", lambda: [each.source for each in ranked])
    return sorted(ranked, key=lambda each: order.index(each.source))


def _led_by(ranked: Sequence[Ranked], source: str, said: str) -> list[Ranked]:
    leader = next((each for each in ranked if each.source == source), ranked[0])
    rest = [each for each in ranked if each is not leader]
    return [replace(leader, reason=f"{leader.reason}; {said}") if said else leader, *rest]


def _settle(first: Ranked, second: Ranked, judge: Judge, seconds: float) -> dict[str, str]:
    """Which of two goes on, and why, in words; each may take so many seconds."""
    found = []
    for each in (first, second):  # one network in memory at a time
        if (rights := judge(each, seconds)) is None:
            return {"source": first.source, "said": f"no time was left for a short race with {second.source}"}
        found.append(rights.astype(float))
    gained = Gain.of(found[1] - found[0])
    measured = f"{gained} on {gained.n} examples, both trained for a little"
    if gained.convincing:
        return {"source": second.source, "said": f"it won a short race with {first.source} ({measured})"}
    return {"source": first.source, "said": f"in a short race {second.source} was not surely better ({measured})"}


def _right_after_training(held: Dataset, source: Source, means: Means, seconds: float) -> np.ndarray | None:
    """Which examples (N,) a short run of the first shallow idea that fits gets right without them; None without time.

    Args:
        held: the examples without the test split.
        source: the network.
        means: as in `race`.
        seconds: that it may take.
    """
    prospect, n_classes = look_at(held, source, means), len(held.classes)
    shallowest = (next(deeper, None) for deeper in ideas(prospect, n_classes))
    # The folds come to as many trainings on all rows; before them, one frozen pass to the cut.
    fitting = (idea for idea in shallowest if idea and SHORT * idea.plan.seconds * N_FOLDS + idea.fixed <= seconds)
    if (idea := next(fitting, None)) is None:
        return None
    trial = train_trial(prospect, shortened(idea), n_classes, means, probe=idea.probe)
    return np.concatenate([right_held_out(trial, means), right(trial, "val")])
