"""Which features a head may be fitted on: stages on grids, and stages joined.

Shape letters: N examples, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from regraft.cache import Tap
from regraft.cache.pool import Pooled, pooled
from regraft.cut import Cut, Traced

FINEST = 4
# Largest N·D of one candidate: 120 MB in float32.
MOST_NUMBERS = 15_000_000
HEADS = ("lda", "ridge", "logistic")
# The heads of each task, the cheapest first: classes have means to tell apart, numbers have no probabilities.
HEADS_OF: dict[str, tuple[str, ...]] = {
    "classification": HEADS,
    "multilabel": ("ridge", "logistic"),
    "regression": ("ridge",),
}
# Joined on 4x4 grids, stages have tens of thousands of features and won nothing in any measurement.
_JOINED_GRIDS = (1, 2)

Features = Callable[[Tap, str], np.ndarray]


@dataclass(frozen=True)
class Candidate:
    """A head on the features of some taps, side by side in this order.

    Args:
        taps: where the features come from.
        head: "lda", "ridge", "logistic" or "selected"; "average" for the mean of other candidates' heads.
        members: those other candidates; their taps are among `taps`.
        widths: of an average, how many features come from each of `taps`.
    """

    taps: tuple[Tap, ...]
    head: str
    members: tuple[Candidate, ...] = ()
    widths: tuple[int, ...] = ()


def taps_wanted(traced: Traced, n_rows: int = 0) -> tuple[Tap, ...]:
    """What one frozen pass must hold for every candidate: each stage on its finest grid.

    Stages without places (one vector per example) are kept as they are, with grid 0.

    Args:
        traced: the network.
        n_rows: training examples; with many, the finest grid is the one whose rows stay within `MOST_NUMBERS`.
    """
    return tuple(_wanted(cut, n_rows) for cut in traced.stages)


def derived(features: Features, traced: Traced, n_rows: int = 0) -> Features:
    """Rows for any candidate's tap, from the rows of `taps_wanted`: coarser grids follow exactly.

    Args:
        features: rows (N, D) of a wanted tap for a split.
        traced: the network.
        n_rows: as `taps_wanted` had it.
    """
    wanted = {cut.name: (_wanted(cut, n_rows), cut) for cut in traced.stages}

    def rows(tap: Tap, split: str) -> np.ndarray:
        finer, cut = wanted.get(tap.cut, (tap, None))
        if cut is None or not 0 < tap.grid < finer.grid or finer.grid % tap.grid:
            return features(tap, split)
        return _plan(cut, finer.grid).coarsen(features(finer, split), tap.grid)

    return rows


def candidates(traced: Traced) -> tuple[Candidate, ...]:
    """Every candidate of a network, the one with the fewest features first.

    Each stage on each grid it fits, neighbouring stages joined, and the last two, the last four, and all but
    the earliest third joined; each with every head.
    """
    widths = {cut.name: cut for cut in traced.stages}
    sets = sorted(_tap_sets(traced), key=lambda taps: sum(tap_width(widths[tap.cut], tap) for tap in taps))
    return tuple(Candidate(taps, head) for taps in sets for head in HEADS)


def tap_width(cut: Cut, tap: Tap) -> int:
    """D of a tap's rows."""
    return _plan(cut, tap.grid).width if tap.grid else int(np.prod(cut.shape))


def _tap_sets(traced: Traced) -> list[tuple[Tap, ...]]:
    singles = [(tap,) for cut in traced.stages for tap in _grids(cut)]
    joined = [taps for grid in _JOINED_GRIDS for taps in _joins(_distinct(traced.stages), grid)]
    return list(dict.fromkeys([*singles, *joined]))


def _joins(stages: Sequence[Cut], grid: int) -> list[tuple[Tap, ...]]:
    taps = [Tap(cut.name, min(grid, _sides(cut))) for cut in stages]
    sets = [tuple(pair) for pair in pairwise(taps)]
    sets += [tuple(taps[-n:]) for n in (3, 4) if len(taps) > n]
    sets.append(tuple(taps[len(taps) // 3 :]))
    return [joined for joined in sets if len(joined) > 1]


def _distinct(stages: Sequence[Cut]) -> list[Cut]:
    """Without a last feature that is only the stage before it, pooled: joined, it would count twice."""
    *before, last = stages
    if before and len(last.shape) == 1 and _sides(before[-1]) and _plan(before[-1], 1).width == last.shape[0]:
        return before
    return list(stages)


def _grids(cut: Cut) -> list[Tap]:
    return [Tap(cut.name, grid) for grid in (1, 2, 4) if grid <= _sides(cut)] or [Tap(cut.name, 0)]


def _sides(cut: Cut) -> int:
    """Cells on a side of the finest grid that the activation fills; 0 without places."""
    return _plan(cut, FINEST).grid if len(cut.shape) > 1 else 0


def _wanted(cut: Cut, n_rows: int) -> Tap:
    if len(cut.shape) == 1:
        return Tap(cut.name, 0)
    fitting = (grid for grid in (FINEST, 2) if n_rows * _plan(cut, grid).width <= MOST_NUMBERS)
    return Tap(cut.name, next(fitting, 1))


def _plan(cut: Cut, grid: int) -> Pooled:
    return pooled(cut.shape, cut.layout, grid)
