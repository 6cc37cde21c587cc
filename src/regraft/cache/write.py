"""Rows into shards: a writer that a kill, a full disk or a second writer cannot hurt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import FileIO
from pathlib import Path

import numpy as np

from regraft.cache import format
from regraft.cache.format import Meta, Shard
from regraft.cache.ragged import lengths
from regraft.digest import digest_file
from regraft.errors import CacheError


def create(folder: Path, meta: Meta) -> None:
    """Makes the cache folder of a key, or checks that the one that is there belongs to it.

    Raises:
        CacheError: what is there was made for something else; the message names what differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = format.read_meta(folder)
    except format.DamagedMeta:  # or not there; the folder's name says what its rows are, and each shard is checked
        format.write_meta(folder, meta)
        found = format.read_meta(folder)
    differences = meta.key.differs(found.key)
    if found.shape != meta.shape:
        differences.append(f"shape ({found.shape}, here {meta.shape})")
    if differences:
        raise CacheError(
            f"features in {folder} were made with other settings: {', '.join(differences)}. "
            f"Delete the folder, or use another: regraft fit … --cache DIR"
        )


class Writer:
    """Appends rows to a cache folder.

    Rows go straight to disk, so its memory does not grow. Used as a context: on the way out, also after an
    error or Ctrl-C, the rows so far become a shard.

    Args:
        folder: a cache folder that `create` made.
        meta: what its rows are.
    """

    def __init__(self, folder: Path, meta: Meta) -> None:
        self._folder = folder
        self._meta = meta
        self._limit = format.shard_rows(meta)
        self._keys: list[str] = []
        self._lengths: list[int] = []
        self._file: FileIO | None = None
        self._path = Path()
        self.bytes = 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.finish()
        except OSError:
            self._discard()
            # What is already under way says more than that its last rows could not be kept.
            if kind is None:
                raise

    def append(self, keys: Sequence[str], rows: np.ndarray) -> None:
        """Adds rows.

        Args:
            keys: the example of each row.
            rows: (B, …), in any number type; stored in the cache's. Rows of different lengths are padded with NaN.

        Raises:
            CacheError: a row has another shape, or numbers too large for the number type of the cache.
            OSError: they cannot be written; earlier shards stay.
        """
        rows = self._fit(rows)
        for start in range(0, len(keys), self._limit):
            self._add(keys[start : start + self._limit], rows[start : start + self._limit])

    def finish(self) -> None:
        """Makes a shard of the rows since the last one; nothing if there are none."""
        if self._file is None:
            return
        part = format.part_of(self._path)
        with self._file as file:
            file.seek(0)
            ragged = tuple(self._lengths) if self._meta.ragged else None
            shard = Shard(self._path, tuple(self._keys), "", ragged)
            _write_all(file, format.header(shard.units, self._meta))
        shard = replace(shard, sha256=digest_file(part))
        part.replace(self._path)
        self._forget()
        format.write_shard(shard)

    def _fit(self, rows: np.ndarray) -> np.ndarray:
        if rows.shape[2 if self._meta.ragged else 1 :] != self._meta.unit:
            raise CacheError(f"rows of shape {rows.shape[1:]} for a cache of shape {self._meta.shape}")
        with np.errstate(over="ignore"):
            fitted = np.ascontiguousarray(rows, dtype=self._meta.dtype)
        if fitted.dtype.itemsize < rows.dtype.itemsize and np.isinf(fitted).any() and not np.isinf(rows).any():
            raise CacheError(
                f"features reach {np.nanmax(abs(rows)):.3g}, too large for {self._meta.dtype.name}. "
                "Use frozen_pass(…, dtype='float32')"
            )
        return fitted

    def _add(self, keys: Sequence[str], rows: np.ndarray) -> None:
        if self._file is None:
            self._start()
        assert self._file is not None
        if self._meta.ragged:
            counts = lengths(rows)
            self._lengths.extend(counts.tolist())
            rows = np.concatenate([row[:count] for row, count in zip(rows, counts, strict=True)])
        try:
            _write_all(self._file, rows.tobytes())
        except OSError:
            self._discard()
            raise
        self._keys.extend(keys)
        self.bytes += rows.nbytes
        if len(self._keys) >= self._limit:
            self.finish()

    def _start(self) -> None:
        self._path = format.new_name(self._folder)
        self._file = format.part_of(self._path).open("wb", buffering=0)
        _write_all(self._file, format.header(0, self._meta))

    def _forget(self) -> None:
        self._file, self._keys, self._lengths = None, [], []

    def _discard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._forget()
        # A shard without its JSON does not count, so that what is left of it is only bytes to free.
        format.part_of(self._path).unlink(missing_ok=True)


def _write_all(file: FileIO, data: bytes | memoryview) -> None:
    """Writes everything: an unbuffered file may take less than it is given when the disk is nearly full."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
