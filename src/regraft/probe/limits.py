"""What fitting costs, and which candidates are worth it: memory, operations, and a first look at few rows.

Shape letters: N examples, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from regraft.cache import Tap
from regraft.cut import Traced
from regraft.probe.candidates import MOST_NUMBERS, Candidate, candidates, tap_width
from regraft.probe.logistic import N_FOLDS
from regraft.probe.results import ProbeResult
from regraft.probe.selected import SHARES

TapSet = tuple[Tap, ...]

# Floating-point operations of a round, about ten seconds of one core.
MOST_WORK = 2e11
# Above twice as many rows, every set is first judged on about this many, at a tenth of the price or less.
_FEW, _FEW_PER_CLASS = 400, 10
# Sets that go on from there, beside the best of each stage and the last layer.
_BEST_OF_FEW = 12
_WIDE = 3  # part of `MOST_NUMBERS` beyond which candidates are fitted one at a time
_LOGISTIC_STEPS = 400  # evaluations of the loss in all folds, at most, as measured
_EIGEN = 25  # operations of an eigendecomposition, over the cube of the size


@dataclass(frozen=True)
class Costs:
    """Sets of taps with what a head on them costs.

    Args:
        n_rows: N.
        n_classes: K.
        widths: D of every set: the last layer, then the narrowest first.
    """

    n_rows: int
    n_classes: int
    widths: dict[TapSet, int]

    @classmethod
    def of(cls, traced: Traced, n_rows: int, n_classes: int) -> Costs:
        """Of every candidate set of a network."""
        cuts = {cut.name: cut for cut in traced.stages}
        widths = {c.taps: sum(tap_width(cuts[tap.cut], tap) for tap in c.taps) for c in candidates(traced)}
        last = next(taps for taps in widths if taps[-1].cut == traced.stages[-1].name and len(taps) == 1)
        return cls(n_rows, n_classes, {last: widths[last]} | widths)

    def in_memory(self) -> tuple[list[TapSet], tuple[str, ...]]:
        """The sets within `MOST_NUMBERS`, and a note for people if some are not; the last layer always is."""
        last, *others = self.widths
        kept = [last, *(taps for taps in others if self.n_rows * self.widths[taps] <= MOST_NUMBERS)]
        left = [self.widths[taps] for taps in self.widths if taps not in kept]
        if not left:
            return kept, ()
        return kept, (
            f"{len(left)} of {len(self.widths)} sets of features were not tried: {self.n_rows} examples of "
            f"{min(left)} or more features would not fit {MOST_NUMBERS * 4 // 10**6} MB.",
        )

    def within(self, head: str, sets: Iterable[TapSet]) -> list[Candidate]:
        """The head on as many of the sets as stay within `MOST_WORK` together, in their order."""
        chosen, work = [], 0.0
        for taps in sets:
            more = self._work(head, self.widths[taps])
            if work + more <= MOST_WORK:
                work += more
                chosen.append(Candidate(taps, head))
        return chosen

    def is_wide(self, candidate: Candidate) -> bool:
        """Whether a candidate's features are a large part of the memory that features may take."""
        return self.n_rows * self.widths[candidate.taps] > MOST_NUMBERS // _WIDE

    def _work(self, head: str, width: int) -> float:
        """Z Z' or Z' Z, then what each head does with it: a Cholesky factor, eigenvectors, or many products."""
        small = min(self.n_rows, width)
        product = 2.0 * self.n_rows * width * small
        if head == "lda":
            return product + small**3
        if head == "ridge":
            return product + _EIGEN * small**3
        if head == "selected":
            return N_FOLDS * (product + (1 + len(SHARES)) * float(self.n_rows) ** 3)
        return product + _EIGEN * small**3 + _LOGISTIC_STEPS * 4.0 * self.n_rows * small * self.n_classes


def few_rows(y: np.ndarray, n_classes: int, seed: int) -> np.ndarray | None:
    """Places of the rows for a first look, spread evenly over classes; None where all rows are few enough."""
    n = max(_FEW, _FEW_PER_CLASS * n_classes)
    if len(y) <= (2 * n if y.ndim == 1 else n):  # eigenvectors, without which ridge cannot be had, cost more than LDA
        return None
    mixed = np.random.default_rng(seed).permutation(len(y))
    if y.ndim > 1:
        return np.sort(mixed[:n])
    by_class = mixed[np.argsort(y[mixed], kind="stable")]
    starts = np.searchsorted(y[by_class], y[by_class])
    turn = np.arange(len(y)) - starts  # 0 for the first row of each class, 1 for the second, …
    return np.sort(by_class[np.argsort(turn, kind="stable")[:n]])


def worth_all_rows(results: Sequence[ProbeResult], last: TapSet) -> list[TapSet]:
    """The sets to go on with: the last layer, then the best of all and of each stage, the best first."""
    ranked = sorted(results, key=lambda r: (-r.score, r.log_loss))
    of_stage = {r.candidate.taps[0].cut: r for r in reversed(ranked) if len(r.candidate.taps) == 1}
    chosen = {id(r) for r in (*ranked[:_BEST_OF_FEW], *of_stage.values())}
    return list(dict.fromkeys([last, *(r.candidate.taps for r in ranked if id(r) in chosen)]))
