"""What is made of a file once, and kept beside the downloads under the file's content."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from regraft.digest import digest_file


def made_once(path: Path, kind: str, make: Callable[[Path, Path], object]) -> Path:
    """The folder of what was made of a file, made now if it is not there; whole or not at all.

    Args:
        path: the file.
        kind: what is made: a folder's name.
        make: from the file, into a new empty folder.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints" / "regraft" / kind / digest_file(path)[:32]
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as new:
            inside = Path(new) / "made"
            inside.mkdir()
            make(path, inside)
            _rename(inside, folder)
    return folder


def _rename(new: Path, folder: Path) -> None:
    try:
        new.rename(folder)
    except OSError:
        if not folder.is_dir():  # another process was faster, and the content is the same
            raise
