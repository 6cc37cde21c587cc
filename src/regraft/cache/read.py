"""Rows from shards, by example, memory-mapped.

Shape letters: N examples; the shape of a row follows it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from regraft.cache import format
from regraft.cache.format import Shard
from regraft.cache.key import CacheKey
from regraft.cache.ragged import stacked
from regraft.errors import CacheError

_MARK_EVERY_S = 600.0  # well within the time for which `manage` takes a cache to be in use


class FeatureCache:
    """The features of one tap: one row for each example, found by the example's content key.

    It shows the rows that were there when it was opened; rows are read from disk when they are asked for.

    Args:
        folder: a cache folder.
        expect: the key its rows must have been made for; None takes any.

    Raises:
        CacheError: the folder is no cache, or its rows were made with other settings (named).
    """

    def __init__(self, folder: Path, expect: CacheKey | None = None) -> None:
        self.folder = folder
        self._meta = format.read_meta(folder)
        if expect is not None and expect != self.key:
            raise CacheError(
                f"features in {folder} were made with other settings: {', '.join(expect.differs(self.key))}. "
                "Delete the folder, or use another: regraft fit … --cache DIR"
            )
        self._shards: list[Shard] = list(format.shards(folder, self._meta))
        self._index = {key: (s, r) for s, shard in enumerate(self._shards) for r, key in enumerate(shard.keys)}
        self._mark()

    @property
    def key(self) -> CacheKey:
        """What the rows were computed for."""
        return self._meta.key

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self._meta.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type of the rows."""
        return self._meta.dtype

    def __len__(self) -> int:
        return len(self._index)

    def keys(self) -> Set[str]:
        """The examples that have a row."""
        return self._index.keys()

    def __contains__(self, key: object) -> bool:
        return key in self._index

    def rows(self, keys: Sequence[str]) -> np.ndarray:
        """The rows of some examples, in the order asked for.

        Args:
            keys: content keys of examples; repeats are fine.

        Returns:
            (N, …), a copy in memory; rows of different lengths are padded with NaN to the longest of them.

        Raises:
            CacheError: some examples have no row; the message counts and names them.
        """
        self._need(keys)
        if time.time() - self._marked > _MARK_EVERY_S:
            self._mark()
        return self._ragged(keys) if self._meta.ragged else self._fixed(keys)

    def lengths(self, keys: Sequence[str]) -> np.ndarray | None:
        """Places of each example's row, int64 (N,); None where all rows have the same shape.

        Raises:
            CacheError: some examples have no row.
        """
        if not self._meta.ragged:
            return None
        self._need(keys)
        found = np.empty(len(keys), np.int64)
        for shard, wanted, rows in self._places(keys):
            found[wanted] = np.asarray(shard.lengths)[rows]
        return found

    def _mark(self) -> None:
        format.mark_used(self.folder)
        self._marked = time.time()

    def _fixed(self, keys: Sequence[str]) -> np.ndarray:
        out = np.empty((len(keys), *self.shape), self.dtype)
        for shard, wanted, rows in self._places(keys):
            # Mapped anew each time and let go: pages of a map that stays open count as this process's memory.
            out[wanted] = format.mapped(shard, self._meta)[rows]
        return out

    def _ragged(self, keys: Sequence[str]) -> np.ndarray:
        found: dict[int, np.ndarray] = {}
        for shard, wanted, rows in self._places(keys):
            units, ends = format.mapped(shard, self._meta), np.cumsum(shard.lengths or ())
            for place, row in zip(wanted, rows, strict=True):
                found[int(place)] = np.array(units[ends[row] - (shard.lengths or ())[row] : ends[row]])
        examples = [found[place] for place in range(len(keys))]
        return stacked(examples) if examples else np.empty((0, 0, *self._meta.unit), self.dtype)

    def _places(self, keys: Sequence[str]) -> Iterator[tuple[Shard, np.ndarray, np.ndarray]]:
        """For each shard that holds some of the keys: it, which of the keys, and their rows in it."""
        places = np.array([self._index[key] for key in keys], dtype=np.int64).reshape(-1, 2)
        for shard in np.unique(places[:, 0]):
            wanted = np.flatnonzero(places[:, 0] == shard)
            yield self._shards[shard], wanted, places[wanted, 1]

    def _need(self, keys: Sequence[str]) -> None:
        missing = [key for key in keys if key not in self._index]
        if missing:
            names = ", ".join(key[:12] for key in missing[:3])
            raise CacheError(
                f"{len(missing)} of {len(keys)} examples have no row for {self.key.tap} ({names}…). "
                "Compute them: frozen_pass(dataset, source, traced, taps, root=…)"
            )
