"""The frozen pass: every wanted feature of every example, computed once.

Shape letters: B examples of a batch.
"""

from __future__ import annotations

import datetime
import errno
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch

from regraft.cache import runtime as runtimes
from regraft.cache.format import Meta, folder_of
from regraft.cache.key import CacheKey, Tap
from regraft.cache.manage import keep_within_limit
from regraft.cache.read import FeatureCache
from regraft.cache.runtime import Chosen
from regraft.cache.taps import TapModel, is_ragged, row_shape
from regraft.cache.write import Writer, create
from regraft.cut import Traced
from regraft.data import Dataset, Preparation, Problem, decode, transform_for
from regraft.data.decode import pad
from regraft.digest import digest_json
from regraft.errors import CacheError, DataError
from regraft.source import Source

_DTYPES = ("float32", "float16")
_SORTED = 64  # batches of ragged rows that are held in memory and sorted together
_SPARE = 2**26  # bytes left free on a disk: a full one breaks more than the cache

_ELSEWHERE = "Use another folder: REGRAFT_CACHE=DIR, or regraft fit … --cache DIR"
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST)

Batch = tuple[np.ndarray, np.ndarray]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PassReport:
    """What a frozen pass did.

    Args:
        computed: examples that were computed.
        hits: examples that had all their rows already.
        seconds: wall-clock time.
        runtime: "torch" or "openvino"; "none" if there was nothing to compute.
        fallback_reason: why it is not the runtime that was wanted; empty if it is.
        bytes: written.
        problems: examples that could not be read, and so have no row.
    """

    computed: int
    hits: int
    seconds: float
    runtime: str
    fallback_reason: str
    bytes: int
    problems: tuple[Problem, ...] = ()


def frozen_pass(
    dataset: Dataset,
    source: Source,
    traced: Traced,
    taps: Sequence[Tap],
    *,
    root: Path,
    transform: Preparation | None = None,
    runtime: str = "auto",
    device: str = "cpu",
    batch_size: int = 64,
    dtype: str = "float32",
    progress: Progress | None = None,
    on_bad: Callable[[Problem], None] | None = None,
) -> tuple[dict[Tap, FeatureCache], PassReport]:
    """The features of every example at every tap; computed are only those that are in no cache yet.

    Args:
        dataset: the examples, of all splits.
        source: the network they go through.
        traced: its graph.
        taps: where features are taken; one pass serves them all.
        root: folder of the caches (`default_root()`).
        transform: from an example to what the network takes; the source's own if None.
        runtime: "auto", "torch" or "openvino".
        device: for PyTorch.
        batch_size: examples decoded and computed together.
        dtype: number type of the stored rows, "float32" or "float16".
        progress: called with (examples computed, examples to compute).
        on_bad: called for each example that cannot be read; without it they are raised together at the end.

    Returns:
        The cache of each tap, and what was done.

    Raises:
        CacheError: the disk is full, or a cache folder is not what it should be. Finished rows stay.
        DataError: examples that cannot be read, if `on_bad` is None. All other rows stay.
    """
    started = time.perf_counter()
    transform = transform or transform_for(source.input)
    metas = {tap: _meta(source, traced, tap, transform, dtype, device) for tap in taps}
    folders = {tap: folder_of(root, meta.key) for tap, meta in metas.items()}
    with _disk(root, 0):
        for tap, meta in metas.items():
            create(folders[tap], meta)
    todo = _todo(dataset, metas, folders)
    report = PassReport(0, todo.hits, 0.0, "none", "", 0)
    if todo.indices:
        _need_room(root, todo.bytes)
        work = _Pass(dataset, traced, transform, device, batch_size, progress)
        with _disk(root, todo.bytes):
            report = work.run(todo, runtime)
        keep_within_limit(root, folders.values())
    _report_bad(report.problems, on_bad)
    caches = {tap: FeatureCache(folders[tap], meta.key) for tap, meta in metas.items()}
    return caches, replace(report, seconds=time.perf_counter() - started)


def make_root(root: Path) -> Path:
    """The folder of the caches, made if it is not there.

    Raises:
        CacheError: it cannot be made.
    """
    with _disk(root, 0):
        root.mkdir(parents=True, exist_ok=True)
    return root


def estimate_bytes(traced: Traced, taps: Sequence[Tap], n: int, dtype: str = "float32") -> int:
    """Bytes that the rows of n examples take on disk.

    Args:
        traced: the network.
        taps: where features are taken.
        n: examples.
        dtype: number type of the stored rows.
    """
    return n * sum(math.prod(row_shape(traced, tap)) for tap in taps) * np.dtype(dtype).itemsize


def cache_key(
    source: Source, traced: Traced, tap: Tap, transform: Preparation, *, dtype: str = "float32", device: str = "cpu"
) -> CacheKey:
    """The key under which the features of a source are kept."""
    # The same tensors in another architecture (a stride, an activation function) are another network, and the code
    # behind an architecture's name changes: users edit theirs, libraries are upgraded.
    architecture = digest_json([source.arch, source.arch_args, traced.architecture])
    return CacheKey(transform.digest, source.weights_digest, architecture, tap, dtype, runtimes.numerics(device))


@dataclass(frozen=True)
class _Todo:
    """What a pass has to compute.

    Args:
        indices: examples without a row in some tap, each content once.
        wanting: for each tap that lacks rows, the content keys it lacks.
        metas: of those taps.
        folders: of those taps.
        hits: examples that lack nothing.
        bytes: that the rows will take.
    """

    indices: list[int]
    wanting: dict[Tap, set[str]]
    metas: dict[Tap, Meta]
    folders: dict[Tap, Path]
    hits: int

    @property
    def bytes(self) -> int:
        return sum(len(keys) * self.metas[tap].row_bytes for tap, keys in self.wanting.items())


def _todo(dataset: Dataset, metas: dict[Tap, Meta], folders: dict[Tap, Path]) -> _Todo:
    first = {example.key: i for i, example in reversed(list(enumerate(dataset.examples)))}
    wanting = {tap: first.keys() - FeatureCache(folders[tap]).keys() for tap in metas}
    wanting = {tap: keys for tap, keys in wanting.items() if keys}
    missing = set[str]().union(*wanting.values())
    hits = sum(example.key not in missing for example in dataset.examples)
    return _Todo(sorted(first[key] for key in missing), wanting, metas, folders, hits)


@dataclass
class _Pass:
    """One pass over the examples that lack rows."""

    dataset: Dataset
    traced: Traced
    transform: Preparation
    device: str
    batch_size: int
    progress: Progress | None

    def run(self, todo: _Todo, runtime: str) -> PassReport:
        problems: list[Problem] = []
        taps = list(todo.wanting)
        spec = self.transform.spec
        model = TapModel(self.traced, taps, spec).eval()
        name = runtimes.choose(runtime, self.device, len(todo.indices), spec)
        order = self._by_length(todo.indices) if spec.ragged else todo.indices
        batches = decode(self.dataset, self.transform, order, batch_size=self.batch_size, on_bad=problems.append)
        if spec.ragged:
            batches = _of_like_length(batches, self.transform, self.batch_size)
        # The network is converted on one core while the others decode the first pictures.
        with ThreadPoolExecutor(1) as beside:
            ready = beside.submit(runtimes.build, model, name, self.device, spec.size)
            first = list(islice(batches, 1))
            chosen = ready.result()
        if first:
            chosen = runtimes.checked(chosen, model, self.device, [str(tap) for tap in taps], first[0][1])
        computed, written = self._compute(chain(first, batches), chosen, todo)
        return PassReport(computed, todo.hits, 0.0, chosen.name, chosen.fallback_reason, written, tuple(problems))

    def _by_length(self, indices: list[int]) -> list[int]:
        """Examples of about the same length together; the longest first shows the peak of memory."""
        return sorted(indices, key=lambda i: -self.dataset.lengths[i])

    def _compute(self, batches: Iterable[Batch], chosen: Chosen, todo: _Todo) -> tuple[int, int]:
        """Runs and writes; returns examples and bytes."""
        done = 0
        with ExitStack() as stack:
            writers = {tap: stack.enter_context(Writer(todo.folders[tap], todo.metas[tap])) for tap in todo.wanting}
            for indices, prepared in batches:
                keys = [self.dataset.examples[i].key for i in indices]
                for (tap, writer), rows in zip(writers.items(), chosen.runtime.run(prepared), strict=True):
                    _append(writer, keys, rows, todo.wanting[tap])
                done += len(indices)
                if self.progress is not None:
                    self.progress(done, len(todo.indices))
        return done, sum(writer.bytes for writer in writers.values())


def _of_like_length(batches: Iterator[Batch], transform: Preparation, size: int) -> Iterator[Batch]:
    """The same rows in batches of rows of the same length, or nearly, so that little of a batch is padding.

    Characters, by which they come sorted, foretell the number of tokens only roughly: on short reviews a quarter of a
    batch was padding, and a hundredth is after this.
    """
    while some := list(islice(batches, _SORTED)):
        found = [(index, row[row >= 0]) for indices, rows in some for index, row in zip(indices, rows, strict=True)]
        found.sort(key=lambda pair: -len(pair[1]))
        for first in range(0, len(found), size):
            indices, rows = zip(*found[first : first + size], strict=True)
            yield np.array(indices, np.int64), pad(rows, transform)


def _append(writer: Writer, keys: list[str], rows: np.ndarray, wanting: set[str]) -> None:
    """Writes the rows that this tap lacks: another may lack more."""
    lacking = [i for i, key in enumerate(keys) if key in wanting]
    if len(lacking) == len(keys):
        writer.append(keys, rows)
    elif lacking:
        writer.append([keys[i] for i in lacking], rows[lacking])


def _meta(source: Source, traced: Traced, tap: Tap, transform: Preparation, dtype: str, device: str) -> Meta:
    if dtype not in _DTYPES:
        raise CacheError(f"rows cannot be stored as {dtype!r}. Use dtype='float32' or dtype='float16'")
    made = {
        "source": source.uri,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "regraft": version("regraft"),
        "torch": torch.__version__,
    }
    key = cache_key(source, traced, tap, transform, dtype=dtype, device=device)
    return Meta(key, row_shape(traced, tap), made, is_ragged(traced, tap))


def _report_bad(problems: tuple[Problem, ...], on_bad: Callable[[Problem], None] | None) -> None:
    if not problems:
        return
    if on_bad is None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise DataError(
            f"{len(problems)} examples cannot be read; the features of all others are kept:\n{lines}\n"
            "Mend or remove them, or leave them out: regraft fit … --skip-bad"
        )
    for problem in problems:
        on_bad(problem)


def _need_room(root: Path, need: int) -> None:
    if need + _SPARE > shutil.disk_usage(root).free:
        raise CacheError(_too_full(root, need))


@contextmanager
def _disk(root: Path, need: int) -> Iterator[None]:
    """Turns a disk that is full, or that nobody may write to, into a message."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CacheError(_too_full(root, need)) from error
        if error.errno in _CLOSED:
            raise CacheError(f"the cache in {root} cannot be written ({error.strerror}). {_ELSEWHERE}") from error
        raise


def _too_full(root: Path, need: int) -> str:
    free = shutil.disk_usage(root).free if root.is_dir() else 0
    return (
        f"the disk of the cache in {root} is too full: features need {need:,} bytes, {free:,} are free. "
        f"Rows that are finished are kept. Make room: regraft cache clean. {_ELSEWHERE}"
    )
