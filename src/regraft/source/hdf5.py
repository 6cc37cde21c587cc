"""An HDF5 file as plain arrays, read in a process of its own.

The HDF5 library is written in C for trusted files: a damaged one can make it loop for ever or crash. So `read_hdf5`
runs this very file as a program with limits of time and memory, and takes from it arrays and text alone.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_MOST_OBJECTS, _DEEPEST = 200_000, 64
_GROWTH, _SLACK = 20, 64 << 20  # weights hardly shrink by HDF5's own compression
PATIENCE_S = 8.0  # for a small file; larger ones get more
_TEXTS = ("model_config", "keras_version", "weight_names")


@dataclass(frozen=True)
class Hdf5:
    """What an HDF5 file holds.

    Args:
        values: path to array, float32; "layers/dense/vars/0".
        texts: path of a group to its attributes of text that are of use; "" is the file itself.
    """

    values: dict[str, np.ndarray]
    texts: dict[str, dict[str, Any]]


def read_hdf5(path: Path) -> Hdf5:
    """Read a file's arrays.

    Raises:
        SourceError: it is damaged, keeps values in other files, or takes longer to read than any whole file.
        MissingExtra: h5py is not installed.
    """
    from regraft.errors import MissingExtra, SourceError  # here, as the program below needs h5py and numpy alone

    if importlib.util.find_spec("h5py") is None:
        raise MissingExtra("h5py", "keras", "open files of Keras")
    with tempfile.TemporaryDirectory() as folder:
        limit = PATIENCE_S + path.stat().st_size / 20e6
        command = [sys.executable, "-I", __file__, str(path.absolute()), folder]
        try:
            done = subprocess.run(command, capture_output=True, timeout=limit, check=False)
            told = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
            reason = (told or f"its reader ended with {done.returncode}") if done.returncode else ""
        except subprocess.TimeoutExpired:
            reason = f"reading it did not end within {limit:.0f} seconds"
        if reason:
            raise SourceError(
                f"{path} is damaged, or no whole file of Keras ({reason}). Copy or download it again; Keras writes one "
                f"with model.save('{path.stem}.keras')"
            )
        return _collected(Path(folder))


def _collected(folder: Path) -> Hdf5:
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    with np.load(folder / "values.npz", allow_pickle=False) as stored:
        return Hdf5({name: stored[f"arr_{i}"] for i, name in enumerate(index["values"])}, index["texts"])


def main(path: str, folder: str) -> None:
    """What runs in the process of its own."""
    import h5py

    size = Path(path).stat().st_size
    _limit_memory(4 * size + (4 << 30))
    values: dict[str, np.ndarray] = {}
    texts: dict[str, dict[str, Any]] = {}
    with h5py.File(path, "r") as file:
        _walk(file, "", _GROWTH * size + _SLACK, values, texts)
    np.savez(str(Path(folder) / "values.npz"), *values.values())
    (Path(folder) / "index.json").write_text(json.dumps({"values": list(values), "texts": texts}), encoding="utf-8")


def _limit_memory(most: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _walk(group: Any, where: str, limit: int, values: dict[str, np.ndarray], texts: dict[str, dict[str, Any]]) -> None:
    import h5py

    if len(values) + len(texts) > _MOST_OBJECTS or where.count("/") > _DEEPEST:
        raise ValueError("groups inside groups without end")
    texts[where] = {name: _text(group.attrs[name]) for name in _TEXTS if name in group.attrs}
    for name in group:
        inner, path = group.get(name, getlink=True), f"{where}/{name}".lstrip("/")
        if not isinstance(inner, h5py.HardLink):
            raise ValueError(f"{path!r} is a link")
        entry = group[name]
        if isinstance(entry, h5py.Group):
            _walk(entry, path, limit, values, texts)
        elif isinstance(entry, h5py.Dataset):
            limit -= entry.nbytes
            values[path] = _values(entry, path, limit)


def _values(data: Any, path: str, limit: int) -> np.ndarray:
    if data.is_virtual or data.external:
        raise ValueError(f"{path!r} keeps its values in another file")
    if limit < 0:
        raise ValueError(f"{path!r} claims {data.nbytes:,} bytes")
    if data.dtype.kind not in "fiu":
        return np.zeros(0, np.float32)
    return np.asarray(data[()], dtype=np.float32)


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return [_text(entry) for entry in value.tolist()] if isinstance(value, np.ndarray) else str(value)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))
