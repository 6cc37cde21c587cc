"""The depth profile: which stages, on which grid, under which head, hold what the new task needs.

Rounds, each only for what the last one left standing:

1. LDA on every set of taps: one Cholesky factor each, and an exact leave-one-out. With many rows, first on some
   of them, and on all rows only what did best there.
2. Ridge on the best sets and the last layer.
3. Logistic regression, which needs cross-validation, on the very best and the last layer.
4. LDA on the features that matter most (`selected`), for classes, on the sets that join the most stages.

Where any number of labels may hold, or targets are numbers, ridge takes LDA's place, and numbers end there. In place of
right or wrong stands the merit of each example (`data.task`).

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
from dataclasses import dataclass, field, replace

import numpy as np

from regraft.cut import Traced
from regraft.data import CLASSIFICATION, Task
from regraft.errors import DataError
from regraft.probe.average import LARGEST, average, averaged, columns_of
from regraft.probe.bench import Bench, fit
from regraft.probe.candidates import HEADS, HEADS_OF, Candidate, Features, derived
from regraft.probe.fitted import Fitted
from regraft.probe.limits import Costs, TapSet, few_rows, worth_all_rows
from regraft.probe.results import ProbeResult, select, without_values
from regraft.probe.rows import moderated, one_thread

# Sets of features that go into the second and third round, the last layer not counted.
_RIDGES = 8
_LOGISTICS = 2
_SELECTABLE = 3  # stages, joined: fewer hold nothing that is worth choosing among


@dataclass(frozen=True)
class DepthProfile:
    """What each depth of a network holds for a task.

    Args:
        results: of every candidate tried, in the order of the flow, joined stages after single ones.
        best: the one to deliver.
        single: the best that is no average and reads few stages, which leaves more of the network free to train.
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
    task: Task = CLASSIFICATION,
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
        task: what the labels are; of others than classes (N, K), as `Dataset.y` gives them.

    Raises:
        DataError: fewer than two classes, or a class without training examples.
    """
    _check(y_train, n_classes, task)
    deadline = float("inf") if time_limit is None else time.monotonic() + time_limit
    bench = Bench(derived(features, traced, len(y_train)), y_train, y_val, n_classes, seed, task)
    costs = Costs.of(traced, len(y_train), n_classes)
    sets, notes = costs.in_memory()
    with one_thread():
        few = few_rows(y_train, n_classes, seed)
        if few is not None:
            sets, notes = (
                _screened(sets, bench.of_rows(few), replace(costs, n_rows=len(few)), deadline, HEADS_OF[task.kind][0]),
                (*notes, _screening(len(sets), len(few))),
            )
        results = _rounds(bench, sets, costs, deadline, HEADS_OF[task.kind])
        on_few_stages = [result for result in results if result.candidate.head != "selected"]
        single = _with_values(select(on_few_stages), bench)
        results = _with(single, results)
        top = _with_values(select(results), bench)
    if time.monotonic() > deadline:
        notes = (*notes, f"Stopped after {time_limit:g} seconds with {len(results)} candidates tried.")
    mean = average(on_few_stages, y_train, y_val, [cut.name for cut in traced.stages], task)
    if mean is None:
        return _in_depth_order(results, top, single, traced, notes)
    # Not by log-loss: the single best is the luckiest of a hundred, the average is not.
    best = mean if mean.score >= top.score - top.se else top
    return _in_depth_order([*results, mean], best, single, traced, notes)


def _with(result: ProbeResult, results: Sequence[ProbeResult]) -> list[ProbeResult]:
    """The results with this one in its place."""
    return [result if each.candidate == result.candidate else each for each in results]


def _with_values(result: ProbeResult, bench: Bench) -> ProbeResult:
    """Fitted again if it came to the front after its values were dropped."""
    return bench.judge(result.candidate) if result.val_scores is None else result


def _screened(sets: Sequence[TapSet], few: Bench, costs: Costs, deadline: float, head: str) -> list[TapSet]:
    """The sets that are worth all rows, as judged on a few of them."""
    judged = few.judge_all([Candidate(taps, head) for taps in sets], deadline, costs.is_wide)
    return worth_all_rows([without_values(result) for result in judged], sets[0])


def _screening(n_sets: int, n_rows: int) -> str:
    return (
        f"All {n_sets} sets of features were judged on {n_rows} training examples first; "
        "only the best of them and of each stage went on to all examples."
    )


def _rounds(
    bench: Bench, sets: Sequence[TapSet], costs: Costs, deadline: float, heads: Sequence[str]
) -> list[ProbeResult]:
    """The first head on the sets, the first of them whatever the time; then dearer heads on those left standing."""
    results = [bench.judge(Candidate(sets[0], heads[0]))]
    for head in heads:
        most = {"ridge": _RIDGES, "logistic": _LOGISTICS}.get(head, len(sets))
        standing = sets[1:] if head == heads[0] else _standing(sets[0], results, most)
        for result in bench.judge_all(costs.within(head, standing), deadline, costs.is_wide):
            results = _without_ballast([*results, result])
    if heads == HEADS:
        for result in bench.judge_all(costs.within("selected", _widest_joins(sets)), deadline, costs.is_wide):
            results = _without_ballast([*results, result])
    return results


def _widest_joins(sets: Sequence[TapSet]) -> list[TapSet]:
    """The sets that join the most stages, one for each grid; none where a network has few."""
    most = max(len(taps) for taps in sets)
    return [taps for taps in sets if len(taps) == most >= _SELECTABLE]


def _standing(last: TapSet, results: Sequence[ProbeResult], most: int) -> list[TapSet]:
    """The sets that go into the next round: the last layer, and those of the best results so far."""
    ranked = sorted(results, key=lambda r: (-r.score, r.log_loss))
    return list(dict.fromkeys([last, *(r.candidate.taps for r in ranked)]))[: most + 1]


def _without_ballast(results: list[ProbeResult]) -> list[ProbeResult]:
    """Heads that can still be delivered keep their values; a hundred wide ones would fill the memory."""
    needed = {id(select(results)), *(id(r) for r in sorted(results, key=lambda r: r.log_loss)[:LARGEST])}
    return [r if id(r) in needed or r.val_scores is None else without_values(r) for r in results]


def refit(
    candidate: Candidate,
    X: np.ndarray,
    y: np.ndarray,
    n_classes: int,
    *,
    seed: int = 0,
    task: Task = CLASSIFICATION,
) -> Fitted:
    """A candidate's head fitted on other rows, for example training and validation together.

    The settings are chosen again, by leave-one-out (ridge), cross-validation (logistic) or Ledoit and Wolf's
    formula (LDA): the best penalty depends on the number of rows.

    Args:
        candidate: which head; every member of an average is fitted.
        X: (N, D), the rows of its taps side by side.
        y: (N,).
        n_classes: K.
        seed: which rows share a fold.
        task: what y is.
    """
    if not candidate.members:
        return fit(candidate.head, X, y, n_classes, seed, task)
    widths = dict(zip(candidate.taps, candidate.widths, strict=True))
    blocks = {tap: moderated(X[:, columns_of([tap], widths)]) for tap in widths}
    fits = [fit(m.head, [blocks[tap] for tap in m.taps], y, n_classes, seed, task) for m in candidate.members]
    return averaged(fits, candidate.members, widths, y, task)


def probe_at(
    taps: TapSet,
    features: Features,
    y_train: np.ndarray,
    y_val: np.ndarray,
    n_classes: int,
    *,
    seed: int = 0,
    task: Task = CLASSIFICATION,
) -> ProbeResult:
    """The best head on one set of features, with its weights.

    Args:
        taps: what it reads.
        features: rows (N, D) of a tap for "train" or "val", in the order of the labels.
        y_train: (N,), integers below n_classes.
        y_val: (M,); may be empty.
        n_classes: K.
        seed: which rows share a fold in cross-validation.
        task: what the labels are.

    Raises:
        DataError: fewer than two classes, or a class without training examples.
    """
    _check(y_train, n_classes, task)
    bench = Bench(features, y_train, y_val, n_classes, seed, task)
    with one_thread():
        return select(bench.judge(Candidate(taps, head)) for head in HEADS_OF[task.kind])


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

    light = [r if r in (best, single) else without_values(r) for r in _with(best, results)]
    return DepthProfile(tuple(sorted(light, key=place)), best, single, names, notes)


def _check(y: np.ndarray, n_classes: int, task: Task) -> None:
    if not task.one_of:
        if len(y) < 2:
            raise DataError(f"a probe needs two training examples, got {len(y)}. Keep more: --train-size 20.")
        return
    counts = np.bincount(y, minlength=n_classes)
    if n_classes < 2 or (counts == 0).any():
        raise DataError(
            f"a probe needs at least two classes with training examples each; counts are {counts.tolist()}. "
            "Leave out classes without examples and number the rest: np.unique(labels, return_inverse=True)."
        )
