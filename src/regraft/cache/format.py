r"""The cache on disk.

A cache folder holds the features of one key (see `key`): one row for each example. Its name is the first 32
digits of the key's digest, so equal work meets in one folder and different work never does.

    ROOT/4be1…/
        cache.json              what the rows are
        rows-1f6c….npy          some rows
        rows-1f6c….json         which examples they belong to

`cache.json` is one JSON object: `format` (1), `digest` and `key` (the key and its parts), `shape` (of one
row), `dtype`, and `made` (by which source, when, with which versions; for people, never read back). It is
written once, under a temporary name, and renamed. Its time of change is the time of the last use, to ten minutes.

A shard is a plain NumPy file, little-endian, row-major: `numpy.load(path, mmap_mode="r")` opens it, and
nothing of regraft is needed. Beside it lies a small JSON object: `keys` (the example of each row, in
order), `n` (how many), `sha256` (of the NumPy file). Where rows have different lengths (the tokens of a text),
`cache.json` says `ragged`, the NumPy file holds the places of one row after another, and the JSON beside it says how
many belong to each: `lengths`. Rows go straight into a file with a temporary name;
when it has 256 rows or 32 MiB, or the pass ends, it gets its name, and then the JSON is written and
renamed. **A shard counts only when its JSON is there.** From this the rest follows:

- a kill loses the rows of the one shard in progress; the next pass computes what has no row;
- names are random, so two writers never meet; a row that both computed is there twice, which is harmless;
- images that are added become one more shard; images that are gone cost nothing but their bytes;
- there is no index, no lock and no state to repair: the folder is what its files say.

Left out on purpose: compression (rows would not map into memory), pickles (they run code), one big file (it
could not be appended to by two), a database (a folder of arrays outlives it). Files are not forced to the
platter: after a power cut a shard may be short (it is then ignored, and computed again) or, rarely, wrong
(`verify` finds it).
"""

from __future__ import annotations

import json
import os
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regraft.cache.key import CacheKey
from regraft.errors import CacheError

FORMAT = 1
SHARD_ROWS = 256
SHARD_BYTES = 32 * 2**20
_HEADER = 192  # bytes before the first row: room for any shape, and a multiple of 64 as NumPy wants it
_META = "cache.json"
_PART = ".part"


class DamagedMeta(CacheError):  # noqa: N818  (it reads as what it is)
    """A folder has no `cache.json`, or one that cannot be read."""


@dataclass(frozen=True)
class Meta:
    """What the rows of a cache folder are.

    Args:
        key: the key they were computed for.
        shape: of one row; where rows have different lengths, of one that the network was traced with.
        made: provenance, for people.
        ragged: whether rows have different lengths, along the first axis of `shape`.
    """

    key: CacheKey
    shape: tuple[int, ...]
    made: dict[str, str]
    ragged: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type of the rows, little-endian."""
        return np.dtype(self.key.dtype).newbyteorder("<")

    @property
    def unit(self) -> tuple[int, ...]:
        """Shape of what a NumPy file holds many of: rows, or places of rows."""
        return self.shape[1:] if self.ragged else self.shape

    @property
    def unit_bytes(self) -> int:
        """Bytes of one unit."""
        return int(np.prod(self.unit)) * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, of usual length."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


@dataclass(frozen=True)
class Shard:
    """A finished shard.

    Args:
        path: of the NumPy file.
        keys: the example of each row.
        sha256: of the NumPy file.
        lengths: of each row, where they differ.
    """

    path: Path
    keys: tuple[str, ...]
    sha256: str
    lengths: tuple[int, ...] | None = None

    @property
    def units(self) -> int:
        """How many rows, or places of rows, the NumPy file holds."""
        return len(self.keys) if self.lengths is None else sum(self.lengths)


def folder_of(root: Path, key: CacheKey) -> Path:
    """Where the cache of a key lives."""
    return root / key.digest[:32]


def write_meta(folder: Path, meta: Meta) -> None:
    """Writes `cache.json`, once and whole."""
    content = {
        "format": FORMAT,
        "digest": meta.key.digest,
        "key": meta.key.to_dict(),
        "shape": list(meta.shape),
        "dtype": meta.dtype.str,
        "made": meta.made,
    } | ({"ragged": True} if meta.ragged else {})
    write_json(folder / _META, content)


def read_meta(folder: Path) -> Meta:
    """What a cache folder says about its rows.

    Raises:
        DamagedMeta: the folder is no cache, or is damaged.
        CacheError: it was written by a newer regraft.
    """
    try:
        content = json.loads((folder / _META).read_text())
        version, meta = content["format"], None
        if version == FORMAT:
            key, ragged = CacheKey.from_dict(content["key"]), bool(content.get("ragged"))
            meta = Meta(key, tuple(content["shape"]), content["made"], ragged)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedMeta(
            f"{folder} is not a feature cache ({error}). Remove it: regraft cache verify --remove"
        ) from error
    if meta is None:
        raise CacheError(
            f"{folder} has cache format {version}; this regraft reads format {FORMAT}. "
            "Keep them apart: REGRAFT_CACHE=DIR regraft …"
        )
    return meta


def has_meta(folder: Path) -> bool:
    """Whether a folder calls itself a cache."""
    return (folder / _META).is_file()


def last_used(folder: Path) -> float:
    """Seconds since the epoch."""
    return (folder / _META).stat().st_mtime


def mark_used(folder: Path) -> None:
    """Notes that a cache was used now; a folder that cannot be written is read all the same."""
    try:
        os.utime(folder / _META)
    except OSError:
        return


def shards(folder: Path, meta: Meta) -> Iterator[Shard]:
    """The shards that count: JSON and array both there, and of the size they claim."""
    for sidecar in sorted(folder.glob("rows-*.json")):
        shard = read_shard(sidecar)
        if shard is not None and _size(shard.path) == shard_bytes(shard.units, meta):
            yield shard


def read_shard(sidecar: Path) -> Shard | None:
    """What a shard's JSON says; None if it is damaged or gone."""
    try:
        content = json.loads(sidecar.read_text())
        lengths = tuple(map(int, content["lengths"])) if "lengths" in content else None
        return Shard(sidecar.with_suffix(".npy"), tuple(content["keys"]), content["sha256"], lengths)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_shard(shard: Shard) -> None:
    """Writes a shard's JSON, from which moment the shard counts."""
    content = {"n": len(shard.keys), "sha256": shard.sha256, "keys": list(shard.keys)}
    content |= {} if shard.lengths is None else {"lengths": list(shard.lengths)}
    write_json(shard.path.with_suffix(".json"), content)


def new_name(folder: Path) -> Path:
    """A name for a shard that no other writer can have."""
    return folder / f"rows-{uuid.uuid4().hex}.npy"


def part_of(path: Path) -> Path:
    """The name a shard has while it is being written."""
    return path.with_name(f".{path.name}{_PART}")


def parts(folder: Path) -> list[Path]:
    """Files that are being written, or were when a writer died."""
    return list(folder.glob(f".*{_PART}"))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file that is there whole or not at all."""
    # Two threads may write the same file at once: the process is not enough to tell them apart.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_PART}")
    try:
        part.write_text(json.dumps(content, indent=1))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def header(n: int, meta: Meta) -> bytes:
    """The first bytes of a NumPy file of n units, always as long, so that n can be filled in at the end."""
    text = repr({"descr": meta.dtype.str, "fortran_order": False, "shape": (n, *meta.unit)})
    body = text.encode().ljust(_HEADER - 11) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", _HEADER - 10) + body


def mapped(shard: Shard, meta: Meta) -> np.ndarray:
    """The units of a shard, mapped from disk.

    Not `np.load`: it parses the header as Python, which Python 3.11 cannot do in several threads at a time.
    """
    return np.memmap(shard.path, meta.dtype, "r", _HEADER, (shard.units, *meta.unit))


def shard_rows(meta: Meta) -> int:
    """Rows that fill a shard."""
    return max(1, min(SHARD_ROWS, SHARD_BYTES // max(meta.row_bytes, 1)))


def shard_bytes(n: int, meta: Meta) -> int:
    """Size of the NumPy file of n units."""
    return _HEADER + n * meta.unit_bytes


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
