"""The depth profile: which stages, on which grid, under which head, hold what the new task needs.

Three rounds, each only for what the last one left standing:

1. LDA on every set of taps: one Cholesky factor each, and an exact leave-one-out.
2. Ridge on the best sets and the last layer.
3. Logistic regression, which needs cross-validation, on the very best and the last layer.

Selection uses the validation split and the training split's own held-out scores together, each example
counting once. Candidates whose accuracy is within one standard error of the best are not told apart by it;
among those the least log-loss wins, which moves less than accuracy does when one example changes, and among
equals the one with fewer features. The average of the best heads (`average`) is delivered unless its accuracy
is more than a standard error below. The test split is not read.

Shape letters: N examples, D features, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from regraft.cache import Tap
from regraft.cut import Traced
from regraft.errors import DataError
from regraft.probe.average import LARGEST, average, averaged, columns_of
from regraft.probe.candidates import FINEST, MOST_NUMBERS, Candidate, Features, candidates, derived, tap_width
from regraft.probe.fitted import Fitted
from regraft.probe.lda import lda
from regraft.probe.logistic import logistic
from regraft.probe.results import ProbeResult, judged, select, without_values
from regraft.probe.ridge import ridge
from regraft.probe.rows import Block, one_thread, quick_space, row_space, standardise

# Floating-point operations of a round, about ten seconds of one core. The limit, like MOST_NUMBERS, falls on the
# widest candidates of large datasets first.
MOST_WORK = 2e11
# Sets of features that go into the second and third round, the last layer not counted.
_RIDGES = 8
_LOGISTICS = 2
_LOGISTIC_STEPS = 800  # evaluations of the loss in all folds, at most, as measured
_EIGEN = 25  # operations of an eigendecomposition, over the cube of the size


@dataclass(frozen=True)
class DepthProfile:
    """What each depth of a network holds for a task.

    Args:
        results: of every candidate tried, in the order of the flow, joined stages after single ones.
        best: the one to deliver.
        single: the best that is no average; its few taps leave more of the network free to train.
        stages: names of the network's stages, in order.
        notes: what was left out and why, one sentence each.
    """

    results: tuple[ProbeResult, ...]
    best: ProbeResult
    single: ProbeResult
    stages: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def per_stage(self) -> tuple[ProbeResult, ...]:
        """The best result of each single stage, in depth order; stages that were left out are missing."""
        single = {name: [] for name in self.stages}
        for result in self.results:
            if len(result.candidate.taps) == 1:
                single[result.candidate.taps[0].cut].append(result)
        return tuple(select(results) for results in single.values() if results)


def depth_profile(
    features: Features,
    y_train: np.ndarray,
    y_val: np.ndarray,
    traced: Traced,
    n_classes: int,
    *,
    seed: int = 0,
    time_limit: float | None = None,
) -> DepthProfile:
    """Fits heads on every stage and on joined stages, and picks the best on training and validation data.

    Args:
        features: rows (N, D) of a tap of `taps_wanted(traced, N)` for "train" or "val", in the order of the labels.
        y_train: (N,), integers below n_classes; at least two classes occur.
        y_val: (M,); may be empty, then the training split's held-out scores decide alone.
        traced: the network.
        n_classes: K.
        seed: which rows share a fold in cross-validation.
        time_limit: seconds after which no further candidate is begun; the last layer is always tried.

    Raises:
        DataError: fewer than two classes, or a class without training examples.
    """
    _check(y_train, n_classes)
    deadline = float("inf") if time_limit is None else time.monotonic() + time_limit
    bench = _Bench(derived(features, traced, len(y_train)), y_train, y_val, n_classes, seed)
    sets, notes = affordable(traced, len(y_train))
    with one_thread():
        results = _rounds(bench, sets, deadline)
        single = select(results)
        if single.val_scores is None:  # it came to the front after its values were dropped
            single = bench.judge(single.candidate)
    if time.monotonic() > deadline:
        notes = (*notes, f"Stopped after {time_limit:g} seconds with {len(results)} candidates tried.")
    mean = average(results, y_train, y_val)
    if mean is None:
        return _in_depth_order(results, single, single, traced, notes)
    # Not by log-loss: the single best is the luckiest of a hundred, the average is not.
    best = mean if mean.score >= single.score - single.se else single
    return _in_depth_order([*results, mean], best, single, traced, notes)


def _rounds(bench: _Bench, sets: Sequence[tuple[Tap, ...]], deadline: float) -> list[ProbeResult]:
    results: list[ProbeResult] = []
    for head, most in (("lda", len(sets)), ("ridge", _RIDGES), ("logistic", _LOGISTICS)):
        work = 0.0
        for taps in _standing(sets, results, most):
            work += bench.work(Candidate(taps, head))
            if results and (time.monotonic() > deadline or work > MOST_WORK):
                break
            results = _without_ballast([*results, bench.judge(Candidate(taps, head))])
    return results


def _without_ballast(results: list[ProbeResult]) -> list[ProbeResult]:
    """Heads that can still be delivered keep their values; a hundred wide ones would fill the memory."""
    needed = {id(select(results)), *(id(r) for r in sorted(results, key=lambda r: r.log_loss)[:LARGEST])}
    return [r if id(r) in needed or r.val_scores is None else without_values(r) for r in results]


def affordable(traced: Traced, n_rows: int) -> tuple[list[tuple[Tap, ...]], tuple[str, ...]]:
    """The sets of taps that fit the limits on memory and work: the last layer, then the narrowest first.

    Returns:
        The sets, and a note for people if some were left out.
    """
    cuts = {cut.name: cut for cut in traced.stages}
    widths = {c.taps: sum(tap_width(cuts[tap.cut], tap) for tap in c.taps) for c in candidates(traced)}
    last = next(taps for taps in widths if taps[-1].cut == traced.stages[-1].name and len(taps) == 1)
    kept: list[tuple[Tap, ...]] = [last]
    work = 0.0
    for taps in (taps for taps in widths if taps != last):
        work += _work("lda", n_rows, widths[taps], 0)
        if n_rows * widths[taps] <= MOST_NUMBERS and work <= MOST_WORK:
            kept.append(taps)
    left = [taps for taps in widths if taps not in kept]
    if not left:
        return kept, ()
    least = min(widths[taps] for taps in left)
    return kept, (
        f"{len(left)} of {len(widths)} sets of features were not tried: {n_rows} examples of {least} or more "
        f"features would not fit {MOST_NUMBERS * 4 // 10**6} MB or take too long.",
    )


def refit(candidate: Candidate, X: np.ndarray, y: np.ndarray, n_classes: int, *, seed: int = 0) -> Fitted:
    """A candidate's head fitted on other rows, for example training and validation together.

    The settings are chosen again, by leave-one-out (ridge), cross-validation (logistic) or Ledoit and Wolf's
    formula (LDA): the best penalty depends on the number of rows.

    Args:
        candidate: which head; every member of an average is fitted.
        X: (N, D), the rows of its taps side by side.
        y: (N,).
        n_classes: K.
        seed: which rows share a fold.
    """
    if not candidate.members:
        return _fit(candidate.head, X, y, n_classes, seed)
    widths = dict(zip(candidate.taps, candidate.widths, strict=True))
    blocks = {tap: standardise(X[:, columns_of([tap], widths)]) for tap in widths}
    fits = [_fit(m.head, [blocks[tap] for tap in m.taps], y, n_classes, seed) for m in candidate.members]
    return averaged(fits, candidate.members, widths, y)


class _Bench:
    """Standardised features at hand, and candidates judged on them."""

    def __init__(self, features: Features, y_train: np.ndarray, y_val: np.ndarray, n_classes: int, seed: int) -> None:
        self._features = features
        self._y = {"train": y_train, "val": y_val}
        self._n_classes = n_classes
        self._seed = seed
        self._kept: dict[Tap, tuple[Block, np.ndarray]] = {}
        self._room = MOST_NUMBERS // 2

    def judge(self, candidate: Candidate) -> ProbeResult:
        """Fit a candidate and score it."""
        started = time.perf_counter()
        pairs = [self._block(tap) for tap in candidate.taps]
        space = [block for block, _ in pairs]
        fitted = _fit(candidate.head, space, self._y["train"], self._n_classes, self._seed)
        widths = [block.rows.shape[1] for block in space]
        val_scores = _scores(fitted, [rows for _, rows in pairs])
        seconds = time.perf_counter() - started
        return judged(candidate, fitted, widths, val_scores, self._y["train"], self._y["val"], seconds)

    def work(self, candidate: Candidate) -> float:
        """About how many floating-point operations fitting a candidate takes."""
        sizes = [self._block(tap)[0].rows.shape[1] for tap in candidate.taps]
        return _work(candidate.head, len(self._y["train"]), sum(sizes), self._n_classes)

    def _block(self, tap: Tap) -> tuple[Block, np.ndarray]:
        if tap in self._kept:
            return self._kept[tap]
        block = standardise(self._rows(tap, "train"))
        pair = block, block.apply(self._rows(tap, "val"))
        numbers = sum(rows.size for rows in (block.rows, pair[1]))
        if tap.grid != FINEST and numbers <= self._room:  # the finest grids are in no join
            self._room -= numbers
            self._kept[tap] = pair
        return pair

    def _rows(self, tap: Tap, split: str) -> np.ndarray:
        if split == "val" and len(self._y["val"]) == 0:
            return np.empty((0, self._rows(tap, "train").shape[1]), dtype=np.float32)
        return self._features(tap, split).reshape(len(self._y[split]), -1)


def _fit(head: str, X: np.ndarray | Sequence[Block], y: np.ndarray, n_classes: int, seed: int) -> Fitted:
    if head == "lda":
        return lda(quick_space(X), y, n_classes)
    if head == "ridge":
        return ridge(row_space(X), y, n_classes)
    return logistic(row_space(X), y, n_classes, seed=seed)


def _scores(fitted: Fitted, blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Class scores of standardised rows, as the head would give them."""
    weight = fitted.head.weight.detach().numpy()
    edges = np.cumsum([rows.shape[1] for rows in blocks])[:-1]
    parts = np.split(weight, edges, axis=1)
    products = [rows @ part.T for rows, part in zip(blocks, parts, strict=True)]
    return np.sum(products, axis=0) + fitted.head.bias.detach().numpy()


def _standing(sets: Sequence[tuple[Tap, ...]], results: Sequence[ProbeResult], most: int) -> list[tuple[Tap, ...]]:
    """The sets that go into the next round: the last layer, and those of the best results so far."""
    if not results:
        return list(sets)
    ranked = sorted(results, key=lambda r: (-r.score, r.log_loss))
    return list(dict.fromkeys([sets[0], *(r.candidate.taps for r in ranked)]))[: most + 1]


def _in_depth_order(
    results: Sequence[ProbeResult],
    best: ProbeResult,
    single: ProbeResult,
    traced: Traced,
    notes: tuple[str, ...],
) -> DepthProfile:
    names = tuple(cut.name for cut in traced.stages)

    def place(result: ProbeResult) -> tuple[bool, list[int], int]:
        taps = result.candidate.taps
        return len(taps) > 1, [names.index(tap.cut) for tap in taps], result.n_features

    full = [single if result.candidate == single.candidate else result for result in results]
    light = [r if r in (best, single) else without_values(r) for r in full]
    return DepthProfile(tuple(sorted(light, key=place)), best, single, names, notes)


def _work(head: str, n_rows: int, width: int, n_classes: int) -> float:
    """Z Z' or Z' Z, then what each head does with it: a Cholesky factor, eigenvectors, or many products."""
    small = min(n_rows, width)
    product = 2.0 * n_rows * width * small
    if head == "lda":
        return product + small**3
    if head == "ridge":
        return product + _EIGEN * small**3
    return product + _EIGEN * small**3 + _LOGISTIC_STEPS * 4.0 * n_rows * small * n_classes


def _check(y: np.ndarray, n_classes: int) -> None:
    counts = np.bincount(y, minlength=n_classes)
    if n_classes < 2 or (counts == 0).any():
        raise DataError(
            f"a probe needs at least two classes with training examples each; counts are {counts.tolist()}. "
            "Leave out classes without examples and number the rest: np.unique(labels, return_inverse=True)."
        )
