"""Which files hold a network as a graph, and which reader opens them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from regraft.source.caffe import open_caffe
from regraft.source.request import Request
from regraft.source.source import Source

GRAPH_FILES = (".caffemodel", ".prototxt")


def graph_opener(path: Path) -> Callable[[Path, Request], Source] | None:
    """What opens a file or folder as a graph; None where it is none.

    Example:
        >>> graph_opener(Path("bvlc_alexnet.caffemodel")).__name__
        'open_caffe'
    """
    if path.is_dir():
        return None if (path / "config.json").is_file() else _folder_opener(path)
    return open_caffe if path.suffix in (".caffemodel", ".prototxt") else None


def _folder_opener(folder: Path) -> Callable[[Path, Request], Source] | None:
    return open_caffe if any(folder.glob("*.caffemodel")) else None


def without_fragment(uri: str) -> Path:
    """The path of a URI that may name the network's end after a #."""
    path = Path(uri).expanduser()
    return path if path.exists() else Path(uri.partition("#")[0]).expanduser()
