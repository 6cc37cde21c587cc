"""Features of a task at hand, and candidates judged on them, on all cores.

Shape letters: N training examples, M validation examples, D features, K classes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Lock

import numpy as np

from regraft.cache import Tap
from regraft.data import CLASSIFICATION, Task
from regraft.probe.candidates import FINEST, MOST_NUMBERS, Candidate, Features
from regraft.probe.fitted import Fitted
from regraft.probe.lda import lda
from regraft.probe.logistic import logistic
from regraft.probe.results import ProbeResult, judged
from regraft.probe.ridge import ridge
from regraft.probe.rows import Block, moderated, quick_space, row_space
from regraft.probe.selected import selected

# Candidates fitted at the same time; each holds its features in memory.
_MOST_WORKERS = 4


class Bench:
    """Standardised features, kept while they are small, and heads fitted on them.

    Args:
        features: rows (N, D) of a tap for "train", (M, D) for "val".
        y_train: (N,).
        y_val: (M,); may be empty.
        n_classes: K.
        seed: which rows share a fold.
        task: what the labels are.
    """

    def __init__(
        self,
        features: Features,
        y_train: np.ndarray,
        y_val: np.ndarray,
        n_classes: int,
        seed: int,
        task: Task = CLASSIFICATION,
    ) -> None:
        self._features = features
        self._y = {"train": y_train, "val": y_val}
        self._n_classes = n_classes
        self._seed = seed
        self._task = task
        self._kept: dict[Tap, tuple[Block, np.ndarray]] = {}
        self._room = MOST_NUMBERS // 2
        self._lock = Lock()

    def judge(self, candidate: Candidate) -> ProbeResult:
        """Fit a candidate and score it."""
        started = time.perf_counter()
        pairs = [self._block(tap) for tap in candidate.taps]
        space = [block for block, _ in pairs]
        fitted = fit(candidate.head, space, self._y["train"], self._n_classes, self._seed, self._task)
        widths = [block.rows.shape[1] for block in space]
        val_scores = _scores(fitted, [rows for _, rows in pairs])
        seconds = time.perf_counter() - started
        y_train, y_val = self._y["train"], self._y["val"]
        return judged(candidate, fitted, widths, val_scores, y_train, y_val, seconds, self._task)

    def of_rows(self, places: np.ndarray) -> Bench:
        """The same task with some of the training examples."""

        def rows(tap: Tap, split: str) -> np.ndarray:
            found = self._features(tap, split)
            return found[places] if split == "train" else found

        y_train, y_val = self._y["train"][places], self._y["val"]
        return Bench(rows, y_train, y_val, self._n_classes, self._seed, self._task)

    def judge_all(
        self, candidates: Sequence[Candidate], deadline: float, is_wide: Callable[[Candidate], bool]
    ) -> Iterator[ProbeResult]:
        """The results in the order of the candidates.

        Args:
            candidates: what to fit.
            deadline: by `time.monotonic`; past it none is begun.
            is_wide: whether a candidate takes much memory; of those one is fitted at a time.
        """
        alone = Lock()

        def in_time(candidate: Candidate) -> ProbeResult | None:
            with alone if is_wide(candidate) else nullcontext():
                return self.judge(candidate) if time.monotonic() <= deadline else None

        with ThreadPoolExecutor(min(_MOST_WORKERS, os.cpu_count() or 1)) as pool:
            yield from (result for result in pool.map(in_time, candidates) if result)

    def _block(self, tap: Tap) -> tuple[Block, np.ndarray]:
        if tap in self._kept:
            return self._kept[tap]
        block = moderated(self._rows(tap, "train"))
        pair = block, block.apply(self._rows(tap, "val"))
        numbers = sum(rows.size for rows in (block.rows, pair[1]))
        with self._lock:
            if tap.grid != FINEST and numbers <= self._room:  # the finest grids are in no join
                self._room -= numbers
                self._kept[tap] = pair
        return pair

    def _rows(self, tap: Tap, split: str) -> np.ndarray:
        if split == "val" and len(self._y["val"]) == 0:
            return np.empty((0, self._rows(tap, "train").shape[1]), dtype=np.float32)
        return self._features(tap, split).reshape(len(self._y[split]), -1)


def fit(
    head: str,
    X: np.ndarray | Sequence[Block],
    y: np.ndarray,
    n_classes: int,
    seed: int,
    task: Task = CLASSIFICATION,
) -> Fitted:
    """A head of one of `HEADS`, or "selected", on features (N, D), or on standardised blocks laid side by side."""
    blocks = [moderated(X)] if isinstance(X, np.ndarray) else X
    if head == "selected":
        return selected(blocks, y, n_classes, seed=seed)
    if head == "lda":
        return lda(quick_space(blocks), y, n_classes)
    if head == "ridge":
        return ridge(row_space(blocks), y, n_classes, task=task)
    return logistic(row_space(blocks), y, n_classes, seed=seed, task=task)


def _scores(fitted: Fitted, blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Class scores of standardised rows, as the head would give them."""
    weight = fitted.head.weight.detach().numpy()
    edges = np.cumsum([rows.shape[1] for rows in blocks])[:-1]
    parts = np.split(weight, edges, axis=1)
    products = [rows @ part.T for rows, part in zip(blocks, parts, strict=True)]
    return np.sum(products, axis=0) + fitted.head.bias.detach().numpy()
