"""Which files hold a network as a graph, and which reader opens them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from regraft.source.caffe import open_caffe
from regraft.source.pt2.file import is_program, open_pt2
from regraft.source.request import Request
from regraft.source.saved_model import is_saved_model, open_saved_model
from regraft.source.script.file import is_script, open_script
from regraft.source.source import Source
from regraft.source.tf1 import is_tf1, open_tf1
from regraft.source.tflite import MAGIC, open_tflite

GRAPH_FILES = (".caffemodel", ".prototxt", ".meta", ".index", ".tflite", "saved_model.pb")


def graph_opener(path: Path) -> Callable[[Path, Request], Source] | None:
    """What opens a file or folder as a graph; None where it is none.

    Example:
        >>> graph_opener(Path("bvlc_alexnet.caffemodel")).__name__
        'open_caffe'
    """
    if path.is_dir():
        return None if (path / "config.json").is_file() else _folder_opener(path)
    if path.suffix in (".caffemodel", ".prototxt"):
        return open_caffe
    if path.suffix == ".tflite" or _begins(path)[4:] == MAGIC:
        return open_tflite
    if is_program(path):
        return open_pt2
    if is_script(path):
        return open_script
    if is_saved_model(path):
        return open_saved_model
    return open_tf1 if is_tf1(path) else None


def _begins(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(8)


def _folder_opener(folder: Path) -> Callable[[Path, Request], Source] | None:
    if any(folder.glob("*.caffemodel")):
        return open_caffe
    if is_saved_model(folder):
        return open_saved_model
    return open_tf1 if is_tf1(folder) else None


def is_graph(uri: str) -> bool:
    """Whether a path, perhaps with the network's end after a #, holds a network as a graph."""
    return graph_opener(without_fragment(uri)) is not None


def without_fragment(uri: str) -> Path:
    """The path of a URI that may name the network's end after a #."""
    path = Path(uri).expanduser()
    return path if path.exists() else Path(uri.partition("#")[0]).expanduser()
