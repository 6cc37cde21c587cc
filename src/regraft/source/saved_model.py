"""A SavedModel of TensorFlow 2: its graph through tf2onnx where TensorFlow is installed, its weights without either.

A SavedModel is a program. The weights lie beside it as plain numbers and are read as such; to convert the graph,
TensorFlow has to load it, in a process of its own. Operations that reach for files or call Python are refused before.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from regraft.errors import MissingExtra, SourceError
from regraft.source.made import made_once
from regraft.source.onnx.file import open_onnx
from regraft.source.request import Request
from regraft.source.source import Source
from regraft.source.tf1 import open_tf1

_PROGRAM = "saved_model.pb"
_PATIENCE_S = 1800.0
# Operations are spelt out in the file, wherever they stand in it. Saving and restoring are in every SavedModel.
_FORBIDDEN = (b"WriteFile", b"ReadFile", b"MatchingFiles", b"PyFunc", b"WholeFileReader", b"WriteSummary",
              b"CreateSummaryFileWriter", b"LoadLibrary", b"DebugIdentity", b"PrintV2")  # fmt: skip


def is_saved_model(path: Path) -> bool:
    """Whether a path is a SavedModel's folder, or the program in it."""
    return (path / _PROGRAM).is_file() or (path.name == _PROGRAM and path.is_file())


def open_saved_model(path: Path, request: Request) -> Source:
    """A SavedModel as a source.

    Args:
        path: its folder.
        request: with `arch`, the variables go into that network, and TensorFlow is not needed.

    Raises:
        SourceError: it is damaged, cannot be converted, or uses operations that reach beyond it.
        MissingExtra: TensorFlow or tf2onnx is not installed.
    """
    folder = path.parent if path.name == _PROGRAM else path
    if request.arch is not None:
        return open_tf1(folder / "variables" / "variables.index", request)
    _check_operations(folder)
    made = made_once(folder, "saved_models", lambda model, into: convert(model, into / "net.onnx", sys.executable))
    return open_onnx(made / "net.onnx", request)


def convert(folder: Path, output: Path, python: str) -> None:
    """Write a SavedModel as an .onnx file.

    Args:
        folder: of the SavedModel.
        output: the file to write.
        python: the interpreter that has TensorFlow and tf2onnx.

    Raises:
        MissingExtra: it is this one, and has not.
        SourceError: tf2onnx fails.
    """
    if python == sys.executable:
        _check_installed(folder)
    command = [python, "-m", "tf2onnx.convert", "--saved-model", str(folder.resolve()), "--output", str(output)]
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    with tempfile.TemporaryDirectory() as empty:  # so that no module of the current folder is imported
        try:
            done = subprocess.run(command, cwd=empty, env=quiet, capture_output=True, text=True, timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            raise _failed(folder, f"it took more than {_PATIENCE_S:.0f} s") from error
    if done.returncode or not output.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise _failed(folder, lines[-1][:300] if lines else f"it ended with {done.returncode}")


def _check_installed(folder: Path) -> None:
    for package in ("tf2onnx", "tensorflow"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(
                package,
                "tensorflow",
                "read the graph of a SavedModel. Without it, convert it where TensorFlow is installed: python -m "
                f"tf2onnx.convert --saved-model {folder} --output net.onnx, and pass net.onnx; or pass a network of "
                "your own that the variables go into: --arch pkg.mod:callable",
            )


def _failed(folder: Path, reason: str) -> SourceError:
    return SourceError(
        f"tf2onnx cannot convert {folder}: {reason}. See what it says about it: python -m tf2onnx.convert "
        f"--saved-model {folder} --output net.onnx; then pass net.onnx"
    )


def _check_operations(folder: Path) -> None:
    content = (folder / _PROGRAM).read_bytes()
    found = [name.decode() for name in _FORBIDDEN if name in content]
    if found:
        raise SourceError(
            f"{folder} holds operations that reach beyond a network ({', '.join(found)}), so TensorFlow was not asked "
            "to load it. Save the network without them: model.export('folder'), or pass its variables with a network "
            f"of your own: load_source('{folder}', arch='pkg.mod:callable')"
        )
