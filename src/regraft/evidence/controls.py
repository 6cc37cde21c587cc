"""Controls: what the same examples give without the pretrained weights, within a time that is said beforehand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

from regraft.data import Dataset
from regraft.evidence.arms import Case, Pace, delivered, from_scratch, on_fresh_weights, scratch_pace, transferred
from regraft.evidence.conclude import against_trivial, evidence
from regraft.evidence.depth import depth_effects
from regraft.evidence.runs import Name, RawRun, RunStore
from regraft.evidence.trivial import trivial_controls

Level = Literal["off", "quick", "full"]
QUICK_SHARE = 0.95  # of the fit's time, for quick runs; the rest is for what follows from them
DRAWS = 5  # of fresh weights in a quick measurement, if they fit half its time
SEEDS = 3  # of everything in a full one
LEAST_SHARE = 0.05  # of scratch's updates, below which a quick measurement leaves it out: it would prove nothing
DEPTH_SHARE = 0.25  # of a full measurement's time limit, for what breaks when layers are parted
SMALLER, LARGER = 3, 2  # sizes below and above the fit's own on a curve over labels, each a factor of two


def measure(case: Case, level: Level, store: RunStore | None = None) -> dict[str, Any]:
    """Compare a delivered model with its controls on the test split.

    Args:
        case: the delivered model.
        level: "off", or a time limit that is all but over, runs only the trivial controls; "quick" the same procedure
            on fresh weights and training from scratch, in no more than the time of the fit, or what a time limit
            leaves; "full" several seeds of everything, and curves over labels.
        store: where runs that end are kept, so that an interrupted measurement goes on.

    Returns:
        The content of evidence.json: verdict, the numbers behind it, every control, every raw run.
    """
    began = time.perf_counter()
    trivial = trivial_controls(case.chosen, case.means.seed)
    pretrained = case.chosen.plan.recipe.weights != "random"
    # A model without pretrained weights has nothing to be matched.
    if level == "off" or not pretrained or _too_short(case):
        found = against_trivial(case.correct, trivial, pretrained=pretrained, seed=case.means.seed)
        return {"level": "off", **found}
    store, bounded = store or RunStore(None), not case.chosen.plan.task.numeric
    limit = math.inf if case.time_limit is None else case.time_limit
    if level == "quick":
        runs = _quick(case, store, began + min(QUICK_SHARE * case.seconds, limit))
        return {"level": level, **evidence(runs, case.n_train, trivial, bounded=bounded)}
    runs = _full(case, store, began + (1 - DEPTH_SHARE) * limit)
    found = evidence(runs, case.n_train, trivial, bounded=bounded, remedy="a longer --time-limit")
    return {"level": level, **found, "depth": depth_effects(case, store, began + limit)}


def expected_seconds(case: Case, level: Level) -> float:
    """About how long `measure` will take, from how long the fit took."""
    if level == "off" or _too_short(case):
        return 0.0
    wanted = case.seconds
    if level == "full":
        wanted = SEEDS * len(_sizes(case)) * (case.seconds + scratch_pace(case).seconds)
    return wanted if case.time_limit is None else min(wanted, case.time_limit)


def _too_short(case: Case) -> bool:
    """Whether a time limit leaves less than the frozen pass alone takes, with which every draw begins."""
    return case.time_limit is not None and case.time_limit < case.chosen.prospect.features.tally.seconds


def _quick(case: Case, store: RunStore, until: float) -> list[RawRun]:
    """Fresh weights as often as they fit half the time, then scratch for the rest of it.

    Where half the time is too short for scratch, fresh weights may have all of it. Their first draw is always made,
    because a verdict needs one matched control; it costs no more than what the fit did itself, unless the fit found
    that in the cache.
    """
    half = (until - time.perf_counter()) / 2
    pace, runs = scratch_pace(case), [delivered(case)]
    middle = until - half if pace.updates(half) >= LEAST_SHARE * pace.planned else until
    for drawn in range(DRAWS):
        runs.append(_fresh(case, store, case.means.seed + drawn, middle))
        if time.perf_counter() + runs[-1].seconds > middle:
            break
    return [*runs, *_scratch_in_time(case, store, pace, until)]


def _fresh(case: Case, store: RunStore, seed: int, until: float) -> RawRun:
    limit = max(0.0, until - time.perf_counter())
    make = partial(on_fresh_weights, case, case.data, seed, time_limit=limit)
    return store.get("fresh weights", seed, case.n_train, make)


def _scratch_in_time(case: Case, store: RunStore, pace: Pace, until: float) -> list[RawRun]:
    """One run from scratch with a schedule that ends in time; none where it would be too short to prove anything."""
    left = until - time.perf_counter()
    updates = pace.updates(left)
    if updates < LEAST_SHARE * pace.planned:
        return []
    limit = left - pace.start  # the evaluation at its end takes time too
    make = partial(from_scratch, case, case.data, case.means.seed, updates=updates, time_limit=limit)
    run = store.get("scratch", case.means.seed, case.n_train, make)
    return [run] if run.updates >= LEAST_SHARE * pace.planned else []  # it was slower than was foreseen


def _full(case: Case, store: RunStore, until: float) -> list[RawRun]:
    """Every arm at every size and seed; the delivered model is the first run at the fit's own size.

    Heads on frozen features come first: with a time limit, whole networks are trained in the time that they leave.
    """
    heads = _repeated(case, store, {"transfer": 0.0, "fresh weights": 0.0}, until)
    pace = scratch_pace(case)
    slow = {"scratch": pace.seconds} | ({"scratch, same updates": case.updates * pace.step} if case.updates else {})
    trained = _repeated(case, store, slow, until) or _scratch_in_time(case, store, pace, until)
    return [delivered(case), *heads, *trained]


def _repeated(case: Case, store: RunStore, arms: dict[str, float], until: float) -> list[RawRun]:
    """Some arms at every size and seed, but for runs that would not end in time.

    Args:
        case: the delivered model.
        store: where runs that end are kept.
        arms: how many seconds the first run of each is expected to take; the others take as long as the one before.
        until: when the time is over.
    """
    seeds = range(case.means.seed, case.means.seed + SEEDS)
    every = [_Place(arm, size, seed) for size in _sizes(case) for seed in seeds for arm in arms]
    places = [place for place in every if place != ("transfer", None, case.means.seed)]  # which is the delivered one
    runs, expected, width = [], dict(arms), case.means.engine.width
    for first in range(0, len(places), width):
        beside = places[first : first + width]
        made = _made(case, store, [each for each in beside if time.perf_counter() + expected[each.arm] <= until])
        expected |= {run.arm: run.seconds for run in made}
        runs += made
        case.means.listener.progress(f"evidence ({', '.join(arms)})", first + len(beside), len(places))
    return runs


class _Place(NamedTuple):
    """Of a run in a full measurement; `size` as `_sizes` gives it."""

    arm: str
    size: int | None
    seed: int


def _made(case: Case, store: RunStore, places: Sequence[_Place]) -> list[RawRun]:
    """The runs of some places, side by side if the engine can."""
    named = {Name(each.arm, each.seed, len(_subset(case, each).split("train"))): each for each in places}
    make = partial(_carried_out, case)
    return store.get_all(list(named), lambda names: case.means.engine.map(make, [named[name] for name in names]))


def _carried_out(case: Case, place: _Place) -> RawRun:
    data, seed = _subset(case, place), place.seed
    make: dict[str, Callable[[], RawRun]] = {
        "transfer": partial(transferred, case, data, seed),
        "fresh weights": partial(on_fresh_weights, case, data, seed),
        "scratch": partial(from_scratch, case, data, seed),
        "scratch, same updates": partial(from_scratch, case, data, seed, updates=case.updates),
    }
    return make[place.arm]()


def _sizes(case: Case) -> list[int | None]:
    """Examples per class (of numbers: in all) on the curve over labels; None is the fit's own number, the first."""
    own, most = _size(case.data), _size(case.pool)
    below = [own // 2**i for i in range(1, SMALLER + 1) if own // 2**i >= 2]
    above = [own * 2**i for i in range(1, LARGER + 1) if own * 2**i <= most]
    return [None, *below, *above]


def _subset(case: Case, place: _Place) -> Dataset:
    """Nested over sizes for one seed; at the fit's own size the first seed is the fit's own subset."""
    if place.size is not None:
        return _some(case, place.size, place.seed)
    if place.seed == case.means.seed or len(case.pool) == len(case.data):
        return case.data
    return _some(case, _size(case.data), place.seed)


def _size(data: Dataset) -> int:
    """Training examples of the largest class or label; of numbers, all."""
    return max(data.counts()["train"].values())


def _some(case: Case, size: int, seed: int) -> Dataset:
    """A subset of the pool; numbers keep the scale of the fit, so that merits of all runs are of one kind."""
    chosen = case.pool.train_size(size, seed) if case.data.task.numeric else case.pool.per_class(size, seed)
    return replace(chosen, task=case.data.task)
