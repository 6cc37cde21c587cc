"""What lies in the cache, whether it is sound, and how it is kept small."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regraft.cache import format, memo
from regraft.cache.format import Meta
from regraft.cache.key import CacheKey
from regraft.digest import digest_file
from regraft.errors import CacheError
from regraft.run import bytes_below

DEFAULT_LIMIT = 20 * 2**30
_IN_USE_S = 3600.0  # a cache used this recently may be open in another process
_STALE_S = 86400.0  # a file that is still being written after a day has no writer any more
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class CacheInfo:
    """One cache folder.

    Args:
        folder: where it is.
        key: what its rows were computed for.
        source: the network, as its URI.
        shape: of one row.
        rows: how many examples have one.
        bytes: on disk.
        made: when it was begun, ISO 8601.
        last_used: seconds since the epoch.
    """

    folder: Path
    key: CacheKey
    source: str
    shape: tuple[int, ...]
    rows: int
    bytes: int
    made: str
    last_used: float


@dataclass(frozen=True)
class Damage:
    """A file of the cache that is not what it should be, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` looked at and found.

    Args:
        caches: how many folders.
        shards: how many finished shards.
        damaged: what is wrong; empty when all is well.
    """

    caches: int
    shards: int
    damaged: tuple[Damage, ...]


@dataclass(frozen=True)
class CleanReport:
    """What `clean` removed.

    Args:
        removed: folders that are gone.
        bytes: that were freed.
        kept_bytes: that are left.
    """

    removed: tuple[Path, ...]
    bytes: int
    kept_bytes: int


def default_root() -> Path:
    """Where caches go: $REGRAFT_CACHE, or `regraft` in $XDG_CACHE_HOME, or in ~/.cache."""
    if os.environ.get("REGRAFT_CACHE"):
        return Path(os.environ["REGRAFT_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "regraft"


def cache_limit() -> int | None:
    """Bytes that the caches may take together: $REGRAFT_CACHE_LIMIT ("500M", "20G", "none"), else 20 GiB."""
    text = os.environ.get("REGRAFT_CACHE_LIMIT", "").strip()
    if not text:
        return DEFAULT_LIMIT
    return None if text.lower() == "none" else parse_bytes(text)


def parse_bytes(text: str) -> int:
    """A size with a unit, in bytes; units are powers of 1024.

    Raises:
        CacheError: it is no size.

    Example:
        >>> parse_bytes("1.5 GB")
        1610612736
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise CacheError(f"{text!r} is not a size. Write a number and a unit: REGRAFT_CACHE_LIMIT=20G")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def list_caches(root: Path) -> list[CacheInfo]:
    """The caches under a root, most recently used first; what is no cache is passed over."""
    infos = [info for folder in _folders(root) if (info := _info(folder))]
    return sorted(infos, key=lambda info: -info.last_used)


def verify(root: Path, *, remove: bool = False) -> VerifyReport:
    """Reads every shard again and compares it with its checksum, shape and number type.

    Args:
        root: where the caches are.
        remove: also remove what is damaged; the next pass computes those rows again.
    """
    damaged: list[Damage] = []
    folders, count = _folders(root), 0
    for folder in folders:
        try:
            meta = format.read_meta(folder)
        except CacheError as error:
            damaged.append(Damage(folder, str(error)))
            continue
        sidecars = sorted(folder.glob("rows-*.json"))
        count += len(sidecars)
        damaged += [Damage(path, reason) for path in sidecars if (reason := _damage(path, meta))]
    for damage in damaged if remove else ():
        _remove_damaged(damage.path)
    return VerifyReport(len(folders), count, tuple(damaged))


def clean(
    root: Path,
    max_bytes: int | None = None,
    *,
    all: bool = False,
    keep: Collection[Path] = (),
    unused_s: float = 0.0,
) -> CleanReport:
    """Removes caches, those unused for longest first, until the rest fits; and what dead writers left.

    Args:
        root: where the caches are.
        max_bytes: what may stay; None removes no cache, only leftovers.
        all: remove every cache, the damaged ones too.
        keep: folders that stay whatever their size.
        unused_s: spare caches that were used within so many seconds.
    """
    before = bytes_below(root)
    for folder in _folders(root):
        with suppress(FileNotFoundError):  # removed by another process
            _sweep(folder)
    if all or (max_bytes is not None and bytes_below(root) > max_bytes):
        shutil.rmtree(root / memo.FOLDER, ignore_errors=True)  # small, and quick to make again
    left = bytes_below(root)
    removed: list[Path] = []
    listed = list_caches(root)
    for folder in sorted({*_folders(root)} - {info.folder for info in listed} - {*keep}) if all else ():
        _remove(folder)
        removed.append(folder)
    for info in reversed(listed):
        if not all and (max_bytes is None or left <= max_bytes):
            break
        if info.folder in keep or time.time() - info.last_used < unused_s:
            continue
        _remove(info.folder)
        removed.append(info.folder)
        left -= info.bytes
    kept = bytes_below(root)
    return CleanReport(tuple(removed), before - kept, kept)


def keep_within_limit(root: Path, keep: Collection[Path]) -> None:
    """Frees the caches that go beyond the limit, sparing those in use."""
    clean(root, cache_limit(), keep=keep, unused_s=_IN_USE_S)


def _folders(root: Path) -> list[Path]:
    return sorted(folder for folder in root.glob("*") if format.has_meta(folder))


def _info(folder: Path) -> CacheInfo | None:
    try:
        meta = format.read_meta(folder)
        rows = {key for shard in format.shards(folder, meta) for key in shard.keys}
        used = format.last_used(folder)
    except (CacheError, OSError):  # damaged, or removed by another process while we looked
        return None
    source, made = meta.made.get("source", ""), meta.made.get("time", "")
    return CacheInfo(folder, meta.key, source, meta.shape, len(rows), bytes_below(folder), made, used)


def _damage(sidecar: Path, meta: Meta) -> str:
    """Why a shard is damaged; empty if it is sound."""
    shard = format.read_shard(sidecar)
    if shard is None:
        return "cannot be read"
    if not shard.path.is_file():
        return "its rows are missing"
    try:
        rows = np.load(shard.path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        return f"its rows are not a NumPy array: {error}"
    expected = (shard.units, *meta.unit)
    if rows.shape != expected or rows.dtype != meta.dtype:
        return f"its rows are {rows.dtype} {rows.shape}, not {meta.dtype} {expected}"
    return "" if digest_file(shard.path) == shard.sha256 else "its rows changed since they were written"


def _remove_damaged(path: Path) -> None:
    if path.is_dir():
        _remove(path)
    else:
        # The JSON first: without it the array counts no longer.
        path.unlink(missing_ok=True)
        path.with_suffix(".npy").unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Removes what a dead writer left: unfinished files, and arrays that never got their JSON."""
    orphans = [path for path in folder.glob("rows-*.npy") if not path.with_suffix(".json").exists()]
    for path in (*format.parts(folder), *orphans):
        try:
            if time.time() - path.stat().st_mtime > _STALE_S:
                path.unlink()
        except OSError:  # finished or removed by its writer meanwhile
            continue


def _remove(folder: Path) -> None:
    # Out of sight first, so that nobody opens half a cache.
    gone = folder.with_name(f".gone-{folder.name}-{os.getpid()}")
    with suppress(FileNotFoundError):  # removed by another process
        folder.rename(gone)
        shutil.rmtree(gone)
