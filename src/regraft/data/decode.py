"""Pictures as arrays: all cores, a few batches ahead, in order, with flat memory.

Shape letters: N examples, B batch, C channels, H height, W width.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from regraft.data.check import listed
from regraft.data.dataset import Dataset, Example, Problem
from regraft.data.picture import BadPicture, broken
from regraft.data.transform import Transform
from regraft.digest import digest_bytes
from regraft.errors import DataError

_AHEAD = 2  # batches in work beside the one that is handed out
_CHUNK = 8  # pictures per task: small enough to spread one batch over many cores

Batch = tuple[np.ndarray, np.ndarray]


def n_workers() -> int:
    """Cores that this process may use, one thread on each: Pillow decodes outside Python's lock."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decode(
    dataset: Dataset,
    transform: Transform,
    indices: Sequence[int] | None = None,
    *,
    batch_size: int = 64,
    workers: int | None = None,
    on_bad: Callable[[Problem], None] | None = None,
) -> Iterator[Batch]:
    """Batches of decoded pictures, in order.

    Args:
        dataset: whose pictures.
        transform: how they are prepared.
        indices: which examples, in which order; None takes all.
        batch_size: pictures per batch.
        workers: threads; None takes one per core.
        on_bad: hears of each picture that does not decode, and of each whose content is no longer what was
            read; it is left out of its batch. Without it, all of them are raised together at the end.

    Yields:
        Indices as int64 (B,) and pixels as uint8 (B, C, H, W).

    Raises:
        DataError: pictures that do not decode, if there is no `on_bad`.

    Example:
        >>> from regraft.data import read
        >>> from regraft.spec import InputSpec
        >>> grey = Transform(InputSpec(size=(1, 32, 32), mean=(0.5,), std=(0.5,)))
        >>> next(decode(read("digits"), grey, batch_size=16))[1].shape
        (16, 1, 32, 32)
    """
    bad: list[Problem] = []
    tell = bad.append if on_bad is None else on_bad
    wanted = np.arange(len(dataset)) if indices is None else np.asarray(indices, np.int64)
    with ThreadPoolExecutor(workers or n_workers()) as pool:
        ahead: deque[_Pending] = deque()
        try:
            for start in range(0, len(wanted), batch_size):
                ahead.append(_Pending(pool, dataset, transform, wanted[start : start + batch_size]))
                if len(ahead) > _AHEAD:
                    yield from ahead.popleft().finish(tell)
            while ahead:
                yield from ahead.popleft().finish(tell)
        finally:  # the consumer may have stopped early
            pool.shutdown(cancel_futures=True)
    if bad:
        raise DataError(
            f"{listed(bad, len(wanted))}\n"
            "Mend or remove them and read the data again, or leave them out: decode(..., on_bad=print)"
        )


def load_pixels(dataset: Dataset, transform: Transform) -> np.ndarray:
    """All pictures at once, for small sets: uint8 (N, C, H, W).

    Args:
        dataset: whose pictures.
        transform: how they are prepared.

    Raises:
        DataError: pictures that do not decode.
    """
    pixels = np.empty((len(dataset), *transform.spec.size), np.uint8)
    for where, batch in decode(dataset, transform):
        pixels[where] = batch
    return pixels


class _Pending:
    """One batch that the pool is filling."""

    def __init__(self, pool: ThreadPoolExecutor, dataset: Dataset, transform: Transform, indices: np.ndarray):
        self._indices = indices
        self._pixels = np.empty((len(indices), *transform.spec.size), np.uint8)
        self._tasks: list[Future[list[tuple[int, Problem]]]] = [
            pool.submit(_fill, dataset, transform, indices, self._pixels, range(len(indices))[start : start + _CHUNK])
            for start in range(0, len(indices), _CHUNK)
        ]

    def finish(self, tell: Callable[[Problem], None]) -> Iterator[Batch]:
        """The batch without its bad pictures; nothing if there is no good one."""
        failed = [failure for task in self._tasks for failure in task.result()]
        for _, problem in failed:
            tell(problem)
        if not failed:
            yield self._indices, self._pixels
        elif len(failed) < len(self._indices):
            places = [place for place, _ in failed]
            yield np.delete(self._indices, places), np.delete(self._pixels, places, axis=0)


def _fill(
    dataset: Dataset, transform: Transform, indices: np.ndarray, pixels: np.ndarray, places: range
) -> list[tuple[int, Problem]]:
    """Decodes some places of a batch; returns those that failed."""
    failed = []
    for place in places:
        example = dataset.examples[indices[place]]
        try:
            pixels[place] = _pixels(example, transform)
        except BadPicture as error:
            failed.append((place, Problem(error.kind, example.name, error.detail)))
    return failed


def _pixels(example: Example, transform: Transform) -> np.ndarray:
    try:
        content = example.locator.content()
        # Features are filed under the key, so other content under the same name must not pass for it.
        if digest_bytes(content) != example.key:
            raise BadPicture("changed", "its content changed after it was read")
        with example.locator.image(content) as image:
            return transform(image, example.key)
    except Exception as error:  # decoders of untrusted bytes raise anything
        raise broken(error) from error
