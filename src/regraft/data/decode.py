"""Examples as rows of numbers: all cores, a few batches ahead, in order, with flat memory.

Shape letters: N examples, B batch, L the longest row of a batch.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from regraft.data.bad import BadExample, broken
from regraft.data.check import listed
from regraft.data.dataset import Dataset, Example, Problem
from regraft.data.medium import MEDIA, Medium
from regraft.data.prepare import Preparation
from regraft.data.transform import Transform
from regraft.errors import DataError, RegraftError

_AHEAD = 2  # batches in work beside the one that is handed out
_CHUNK = 8  # examples per task: small enough to spread one batch over many cores

Batch = tuple[np.ndarray, np.ndarray]


def n_workers() -> int:
    """Cores that this process may use, one thread on each: Pillow decodes outside Python's lock."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decode(
    dataset: Dataset,
    preparation: Preparation,
    indices: Sequence[int] | None = None,
    *,
    batch_size: int = 64,
    workers: int | None = None,
    on_bad: Callable[[Problem], None] | None = None,
) -> Iterator[Batch]:
    """Batches of prepared examples, in order.

    Args:
        dataset: whose examples.
        preparation: what makes rows of them.
        indices: which examples, in which order; None takes all.
        batch_size: examples per batch.
        workers: threads; None takes one per core.
        on_bad: hears of each example that does not decode, and of each whose content is no longer what was
            read; it is left out of its batch. Without it, all of them are raised together at the end.

    Yields:
        Indices as int64 (B,) and rows of the preparation's dtype, (B, *size); ragged ones as (B, L), padded with -1.

    Raises:
        DataError: examples that do not decode, if there is no `on_bad`; a preparation for another modality.

    Example:
        >>> from regraft.data import Transform, read
        >>> from regraft.spec import InputSpec
        >>> grey = Transform(InputSpec(size=(1, 32, 32), mean=(0.5,), std=(0.5,)))
        >>> next(decode(read("digits"), grey, batch_size=16))[1].shape
        (16, 1, 32, 32)
    """
    medium = _medium(dataset, preparation)
    bad: list[Problem] = []
    tell = bad.append if on_bad is None else on_bad
    wanted = np.arange(len(dataset)) if indices is None else np.asarray(indices, np.int64)
    with ThreadPoolExecutor(workers or n_workers()) as pool:
        ahead: deque[_Pending] = deque()
        try:
            for start in range(0, len(wanted), batch_size):
                ahead.append(_Pending(pool, dataset, preparation, wanted[start : start + batch_size]))
                if len(ahead) > _AHEAD:
                    yield from ahead.popleft().finish(tell)
            while ahead:
                yield from ahead.popleft().finish(tell)
        finally:  # the consumer may have stopped early
            pool.shutdown(cancel_futures=True)
    if bad:
        raise DataError(
            f"{listed(bad, len(wanted), medium.noun)}\n"
            "Mend or remove them and read the data again, or leave them out: decode(..., on_bad=print)"
        )


def load_rows(dataset: Dataset, preparation: Preparation) -> np.ndarray:
    """All examples at once, for small sets: (N, *size), or (N, L) padded with -1.

    Args:
        dataset: whose examples.
        preparation: what makes rows of them.

    Raises:
        DataError: examples that do not decode.
    """
    if preparation.ragged:
        return pad([row for _, rows in decode(dataset, preparation) for row in rows], preparation)
    loaded = np.empty((len(dataset), *preparation.size), preparation.dtype)
    for where, rows in decode(dataset, preparation):
        loaded[where] = rows
    return loaded


def load_pixels(dataset: Dataset, transform: Transform) -> np.ndarray:
    """All pictures at once, for small sets: uint8 (N, C, H, W); see `load_rows`."""
    return load_rows(dataset, transform)


def pad(rows: Sequence[np.ndarray], preparation: Preparation) -> np.ndarray:
    """Rows of one preparation as one array; ragged ones as long as the longest, at least 1, padded with -1.

    Args:
        rows: (L_i, ...) each.
        preparation: what made them.
    """
    if not preparation.ragged:
        return np.stack(rows)
    longest = max([1, *map(len, rows)])  # a text without a known word still is a row
    padded = np.full((len(rows), longest, *preparation.size[1:]), -1, preparation.dtype)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded


class _Pending:
    """One batch that the pool is filling."""

    def __init__(self, pool: ThreadPoolExecutor, dataset: Dataset, preparation: Preparation, indices: np.ndarray):
        self._indices = indices
        self._preparation = preparation
        self._tasks: list[Future[list[np.ndarray | Problem]]] = [
            pool.submit(_prepare, dataset, preparation, indices[start : start + _CHUNK])
            for start in range(0, len(indices), _CHUNK)
        ]

    def finish(self, tell: Callable[[Problem], None]) -> Iterator[Batch]:
        """The batch without its bad examples; nothing if there is no good one."""
        good, rows = [], []
        for index, row in zip(self._indices, (row for task in self._tasks for row in task.result()), strict=True):
            if isinstance(row, Problem):
                tell(row)
            else:
                good.append(index)
                rows.append(row)
        if rows:
            yield np.array(good, np.int64), pad(rows, self._preparation)


def _prepare(dataset: Dataset, preparation: Preparation, indices: np.ndarray) -> list[np.ndarray | Problem]:
    """The row of each example, or what is the matter with it."""
    medium = MEDIA[dataset.modality]
    found: list[np.ndarray | Problem] = []
    for index in indices:
        example = dataset.examples[index]
        try:
            found.append(_row(example, medium, preparation))
        except BadExample as error:
            found.append(Problem(error.kind, example.name, error.detail))
    return found


def _row(example: Example, medium: Medium, preparation: Preparation) -> np.ndarray:
    try:
        content = example.locator.content()
        # Features are filed under the key, so other content under the same name must not pass for it.
        if medium.key(example.locator, content) != example.key:
            raise BadExample("changed", "its content changed after it was read")
        return preparation(medium.open(example.locator, content), example.key)
    except RegraftError:
        raise
    except Exception as error:  # decoders of untrusted bytes raise anything
        raise broken(error) from error


def _medium(dataset: Dataset, preparation: Preparation) -> Medium:
    wanted, medium = preparation.spec.modality, MEDIA[dataset.modality]
    if wanted != dataset.modality:
        raise DataError(
            f"{dataset.name} holds {medium.noun}s and is to be prepared as {MEDIA[wanted].noun}s. "
            f"Take a source for {dataset.modality}: transform_for(source.input)"
        )
    return medium
