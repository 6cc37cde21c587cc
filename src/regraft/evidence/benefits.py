"""The three benefits that transfer may have, from raw runs: a higher start, a steeper slope, a higher asymptote.

Each is a mean over test examples of a score, so that all have paired intervals of one kind:

    start      right or wrong at the first evaluation, before any update
    slope      area under the curve of right or wrong over updates, up to a common point, divided by its length
    asymptote  right or wrong with the weights that validation kept

A control is beaten only if every control is beaten: transfer is compared with the better one.

Letters: M runs, N test examples.

References:
    L. Torrey, J. Shavlik, Transfer Learning, in: Handbook of Research on Machine Learning Applications, 2009 (the
    three benefits).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from regraft.evidence.interval import Interval, difference
from regraft.evidence.runs import RawRun
from regraft.evidence.stats import Finding

Score = Callable[[RawRun], np.ndarray]
Controls = Mapping[str, Sequence[RawRun]]
BENEFITS = ("start", "slope", "asymptote")


@dataclass(frozen=True)
class Benefit:
    """What transfer gives in one respect, against the better of the controls.

    Args:
        name: "start", "slope" or "asymptote".
        finding: "helps", "no difference" or "hurts".
        transfer: mean score of the transfer, a fraction.
        control: name of the best control.
        reached: its mean score.
        difference: of the two.
        ci95: paired 95 % interval of the difference.
        p: two-sided, that there is none.
        n: test examples.
        against: difference and interval against every control, by name.
    """

    name: str
    finding: Finding
    transfer: float
    control: str
    reached: float
    difference: float
    ci95: tuple[float, float]
    p: float
    n: int
    against: dict[str, dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they go into evidence.json."""
        return asdict(self) | {"ci95": list(self.ci95)}


def benefits(transfer: Sequence[RawRun], controls: Controls, *, bounded: bool = True) -> dict[str, Benefit]:
    """All three benefits.

    Args:
        transfer: one run, or one for each seed.
        controls: by name, one run or more each; with as many as of transfer, run i of both belong together.
        bounded: whether what runs had right lies in [0, 1].

    Raises:
        ValueError: there is no control, or its test examples are others.

    Example:
        >>> from regraft.evidence.runs import Point
        >>> def run(arm, right): return RawRun(arm, 0, 50, (Point(0, 1.0, np.arange(200) < right),))
        >>> found = benefits([run("transfer", 190)], {"scratch": [run("scratch", 120)]})
        >>> found["asymptote"].finding, round(found["asymptote"].difference, 2)
        ('helps', 0.35)
    """
    upto = common_point([*transfer, *(run for runs in controls.values() for run in runs)])
    scores: dict[str, Score] = {"start": start, "slope": lambda run: slope(run, upto), "asymptote": best}
    return {name: compare(name, transfer, controls, scores[name], bounded=bounded) for name in BENEFITS}


def compare(
    name: str, transfer: Sequence[RawRun], controls: Controls, score: Score, *, bounded: bool = True
) -> Benefit:
    """One benefit: helps if it beats every control, hurts if the best one beats it.

    To beat every control needs no correction for their number; to be beaten by the best of k does.
    """
    if not controls:
        raise ValueError("a benefit needs at least one control: benefits(runs, {'scratch': runs})")
    ours = np.stack([score(run) for run in transfer])
    theirs = {name: np.stack([score(run) for run in runs]) for name, runs in controls.items()}
    found = {name: difference(ours, scores, bounded=bounded) for name, scores in theirs.items()}
    best_name = max(theirs, key=lambda name: theirs[name].mean())
    nearest = found[best_name]
    return Benefit(
        name,
        _finding(found, best_name),
        float(ours.mean()),
        best_name,
        float(theirs[best_name].mean()),
        nearest.difference,
        nearest.ends(),
        nearest.p,
        nearest.n,
        {name: _plain(interval) for name, interval in found.items()},
    )


def _finding(found: Mapping[str, Interval], best_name: str) -> Finding:
    if all(interval.ends()[0] > 0 for interval in found.values()):
        return "helps"
    return "hurts" if found[best_name].ends(looks=len(found))[1] < 0 else "no difference"


def _plain(interval: Interval) -> dict[str, Any]:
    ends = list(interval.ends())
    return {"difference": interval.difference, "ci95": ends, "p": interval.p, "runs": interval.runs}


# scores: one number per test example, (N,) -----------------------------------------------------------


def start(run: RawRun) -> np.ndarray:
    """Right or wrong at the first evaluation."""
    return run.points[0].correct.astype(float)


def best(run: RawRun) -> np.ndarray:
    """Right or wrong with the weights that validation kept."""
    return run.correct.astype(float)


def slope(run: RawRun, upto: int) -> np.ndarray:
    """Mean of right or wrong over the updates from 0 to `upto`, straight between evaluations.

    After its last evaluation a run stays where its kept weights are: that is what would be used. A head in closed
    form is one point, so its curve is level.
    """
    if upto == 0:
        return start(run)
    updates, values = _curve(run, upto)
    lengths = np.diff(updates)[:, None]
    return ((values[1:] + values[:-1]) / 2 * lengths).sum(0) / upto


def common_point(runs: Sequence[RawRun]) -> int:
    """The last update that all runs which were trained by gradient reached; 0 if none was."""
    return min((run.updates for run in runs if run.updates), default=0)


def _curve(run: RawRun, upto: int) -> tuple[np.ndarray, np.ndarray]:
    """Updates (P,) from 0 to `upto` and values (P, N) there."""
    held = run.points if run.updates >= upto else (*run.points, run.points[run.kept])
    places = [*(point.updates for point in run.points), upto][: len(held)]
    values = np.stack([point.correct.astype(float) for point in held])
    inside = [i for i, place in enumerate(places) if place < upto]
    edge = next(i for i, place in enumerate(places) if place >= upto)
    before, after = inside[-1], edge
    share = (upto - places[before]) / max(1, places[after] - places[before])
    at_end = values[before] + share * (values[after] - values[before])
    return np.array([*(places[i] for i in inside), upto]), np.stack([*(values[i] for i in inside), at_end])


# how soon ---------------------------------------------------------------------------------------------


def time_to(runs: Sequence[RawRun], level: float, axis: str = "seconds") -> float | None:
    """When the mean curve of some runs first reaches a level; None if it never does.

    Args:
        runs: of one arm.
        level: accuracy, a fraction.
        axis: "seconds" or "updates".

    Example:
        >>> from regraft.evidence.runs import Point
        >>> points = tuple(Point(u, u / 10, np.arange(100) < right) for u, right in ((0, 10), (100, 60)))
        >>> time_to([RawRun("scratch", 0, 50, points)], 0.35, "updates")
        50.0
    """
    times = [_first(run, level, axis) for run in runs]
    return None if any(time is None for time in times) else float(np.mean([time for time in times if time is not None]))


def _first(run: RawRun, level: float, axis: str) -> float | None:
    places = [float(getattr(point, axis)) for point in run.points]
    heights = [point.accuracy for point in run.points]
    for i, height in enumerate(heights):
        if height >= level:
            rise = height - heights[i - 1] if i else 0.0
            back = (height - level) / rise * (places[i] - places[i - 1]) if rise else 0.0
            return places[i] - back
    return None


def speed(transfer: Sequence[RawRun], controls: Controls, share: float = 0.95) -> dict[str, Any]:
    """How soon everyone reaches a share of the best control's accuracy.

    Returns:
        share, level (the accuracy that was to be reached), and for each arm {seconds, updates}, None where it was
        not reached.
    """
    best = max(float(np.mean([run.correct.mean() for run in runs])) for runs in controls.values())
    level = min(best, share * best)  # a share of what is below zero would be above it
    arms = {"transfer": transfer, **controls}
    times = {name: {axis: time_to(runs, level, axis) for axis in ("seconds", "updates")} for name, runs in arms.items()}
    return {"share": share, "level": level, "reached": times}


def parts(transfer: Sequence[RawRun], controls: Controls) -> dict[str, float]:
    """The gain over training from scratch, split into what the procedure gives and what the weights give.

    Returns:
        over_scratch = procedure + weights, differences of accuracies; empty without both controls.
    """
    scratch = [runs for name, runs in controls.items() if name.startswith("scratch")]
    if "fresh weights" not in controls or not scratch:
        return {}
    reached = {id(runs): _mean(runs) for runs in scratch}
    ours, fresh, alone = _mean(transfer), _mean(controls["fresh weights"]), max(reached.values())
    return {"over_scratch": ours - alone, "procedure": fresh - alone, "weights": ours - fresh}


def worth_splitting(share: Mapping[str, float]) -> bool:
    """Whether `parts` are there, and not all of them nothing as people see them: tenths of points."""
    return any(abs(part) >= 0.0005 for part in share.values())


def _mean(runs: Sequence[RawRun]) -> float:
    return float(np.mean([run.correct.mean() for run in runs]))
