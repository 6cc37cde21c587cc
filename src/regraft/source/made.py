"""What is made of a file or folder once, and kept beside the downloads under its content."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from regraft.digest import digest_file, digest_json


def made_once(path: Path, kind: str, make: Callable[[Path, Path], object]) -> Path:
    """The folder of what was made of a file or folder, made now if it is not there; whole or not at all.

    Args:
        path: the file or folder.
        kind: what is made: a folder's name.
        make: from the file, into a new empty folder.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints" / "regraft" / kind / _digest(path)[:32]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as new:
            inside = Path(new) / "made"
            inside.mkdir()
            make(path, inside)
            _rename(inside, folder)
    return folder


def _digest(path: Path) -> str:
    """Of the content: a folder's files by their names."""
    if path.is_file():
        return digest_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest_json([[file.relative_to(path).as_posix(), digest_file(file)] for file in files])


def _rename(new: Path, folder: Path) -> None:
    try:
        new.rename(folder)
    except OSError:
        if not folder.is_dir():  # another process was faster, and the content is the same
            raise
