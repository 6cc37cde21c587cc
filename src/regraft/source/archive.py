"""Archives of a folder: unpacked beside the downloads, and not trusted to stay there or to be small.

What an archive may hold: files and folders with plain relative names. Links, devices and names that lead elsewhere
are refused, whatever they contain; so is an archive that would grow beyond what weights can.
"""

from __future__ import annotations

import gzip
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from regraft.errors import SourceError
from regraft.source.made import made_once

ARCHIVES = (".zip", ".tar.gz", ".tgz")
# Weights hardly shrink, so an archive that grows more than this is no archive of weights.
_GROWTH, _SLACK = 20, 64 * 2**20
_MOST_MEMBERS = 10_000
_BLOCK = 1 << 20
# What Python's own readers of archives raise at damaged ones.
DAMAGE = (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error,
          NotImplementedError, RuntimeError, ValueError, LookupError, OverflowError)  # fmt: skip
Member = tuple[str, int, IO[bytes]]


def is_archive(path: Path) -> bool:
    """Whether a file's name says that it is an archive of a folder."""
    return path.name.lower().endswith(ARCHIVES)


def unpacked(path: Path) -> Path:
    """The folder that an archive holds, unpacked once for each content.

    Args:
        path: a .zip, .tar.gz or .tgz file.

    Raises:
        SourceError: it is damaged, too big, or holds something else than plain files and folders.
    """
    return _single(made_once(path, "unpacked", _unpack))


def _single(folder: Path) -> Path:
    """An archive often holds one folder that holds the files."""
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def _unpack(path: Path, into: Path) -> None:
    limit = _GROWTH * path.stat().st_size + _SLACK
    members = _zipped if path.suffix.lower() == ".zip" else _tarred
    try:
        left = limit
        for count, (name, size, content) in enumerate(members(path, limit), start=1):
            left -= size
            if left < 0 or count > _MOST_MEMBERS:
                raise _bomb(path, limit)
            _write(path, into, name, size, content)
    except DAMAGE as error:
        raise SourceError(
            f"{path} is damaged or not the archive that its name says ({error}). Copy or download it again, or "
            f"unpack it yourself and pass the folder: load_source('path/to/{path.name.partition('.')[0]}')"
        ) from error


def _bomb(path: Path, limit: int) -> SourceError:
    return SourceError(
        f"{path} would unpack to more than {_MOST_MEMBERS:,} files or {limit:,} bytes, {_GROWTH} times its own size "
        "and more, which weights do not. If you trust it, unpack it yourself and pass the folder: "
        f"load_source('path/to/{path.name.partition('.')[0]}')"
    )


def _refuse(path: Path, name: str, what: str) -> SourceError:
    return SourceError(
        f"{path} holds {name!r}, which {what}; expected plain files and folders inside one folder. If you trust it, "
        "unpack it yourself and pass the folder: load_source('path/to/folder')"
    )


def _write(path: Path, into: Path, name: str, size: int, content: IO[bytes]) -> None:
    target = into / _inside(path, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        while block := content.read(min(_BLOCK, size - file.tell() + 1)):
            if file.tell() + len(block) > size:
                raise _refuse(path, name, f"is bigger than the {size:,} bytes that it declares")
            file.write(block)


def _inside(path: Path, name: str) -> PurePosixPath:
    """A member's name, seen to stay in its folder on every system."""
    inner = PurePosixPath(name)
    if inner.is_absolute() or ".." in inner.parts or any(c in name for c in "\\:\0") or not inner.parts:
        raise _refuse(path, name, "leads out of its folder")
    return inner


def _zipped(path: Path, limit: int) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > limit or len(entries) > _MOST_MEMBERS:
            raise _bomb(path, limit)
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refuse(path, entry.filename, "is a link or a device")
            if not entry.is_dir():
                with archive.open(entry) as content:
                    yield entry.filename, entry.file_size, content


def _tarred(path: Path, limit: int) -> Iterator[Member]:
    with _bounded(path, limit) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        for entry in archive:
            if not (entry.isreg() or entry.isdir()):
                raise _refuse(path, entry.name, "is a link or a device")
            content = archive.extractfile(entry) if entry.isreg() else None
            if content is not None:
                yield entry.name, entry.size, content


class _Bounded:
    """A decompressed stream that gives out only so much, and only little at a time.

    A tar's own extension headers are read in one piece of the size that they declare.
    """

    def __init__(self, stream: BinaryIO, path: Path, limit: int) -> None:
        self._stream, self._path, self._limit = stream, path, limit

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _SLACK:
            raise _bomb(self._path, self._limit)
        self._check(self._stream.tell() + size - _SLACK)
        return self._stream.read(size)

    def seek(self, where: int, whence: int = 0) -> int:
        if whence == 0:
            self._check(where - _SLACK)
        return self._stream.seek(where, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def _check(self, where: int) -> None:
        if where > self._limit:
            raise _bomb(self._path, self._limit)


@contextmanager
def _bounded(path: Path, limit: int) -> Iterator[IO[bytes]]:
    with gzip.open(path) as stream:
        yield _Bounded(stream, path, limit)  # type: ignore[misc]  (all that tarfile calls)
