"""Weight files as tensors: safetensors, and PyTorch's pickles without running what they carry."""

from __future__ import annotations

import argparse
import json
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from regraft.errors import SourceError
from regraft.source.archive import DAMAGE
from regraft.source.script.archive import is_torchscript, read_torchscript

INDEX = ".index.json"
SUFFIXES = (".safetensors", ".pt", ".pt2", ".pth", ".th", ".bin", ".ckpt", ".tar")
_CONVERT = (
    "import torch, safetensors.torch as s; "
    "c = torch.load({path!r}, weights_only=False, map_location='cpu'); "
    "s.save_file(getattr(c, 'state_dict', lambda: c['state_dict'])(), 'weights.safetensors')"
)
_NUMPY_SCALAR = np.float64(0).__reduce__()[0]  # its module was renamed in NumPy 2
# Training scripts leave their arguments and best scores in checkpoints; these types only hold values.
_PLAIN_VALUES: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"},
    *((_NUMPY_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
_MOST_ENTRIES, _DEEPEST = 200_000, 64
_SLACK = 64 << 20  # values that need not be in a file: those of repeated numbers, and what packing saves
_PLAIN_GLOBALS = ("collections.OrderedDict", "torch._utils._rebuild_tensor_v2")


@dataclass(frozen=True)
class Checkpoint:
    """What a weight file holds.

    Args:
        tensors: dotted name to tensor; what lies in a wrapper has the wrapper's key in front.
        ignored: entries that are not tensors, for people.
    """

    tensors: Mapping[str, torch.Tensor]
    ignored: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a weight file onto the CPU. Its content says of which format it is, not its name.

    Args:
        path: safetensors, or PyTorch's own format in its zip or older form; for weights in several files, their
            index (`model.safetensors.index.json`).

    Raises:
        SourceError: no such file, another format, a damaged file, or a pickle that wants to run code.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "net.pt"
        >>> torch.save({"epoch": 3, "state_dict": {"module.bias": torch.zeros(2)}}, path)
        >>> found = read_checkpoint(path)
        >>> list(found.tensors), found.ignored
        (['state_dict.module.bias'], ('epoch',))
    """
    if not path.is_file():
        raise SourceError(f"there is no weight file at {path}. Pass a file that ends in {', '.join(SUFFIXES)}")
    if path.name.endswith(INDEX):
        return _read_shards(path)
    with path.open("rb") as file:
        start = file.read(9)
    if path.suffix == ".safetensors" or start[8:] == b"{":
        return Checkpoint(_read_safetensors(path))
    if start[:2] == b"PK" and (weights := _of_torchscript(path)):
        return _flatten(weights, path)
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return _flatten(_read_torch(path), path)
    raise SourceError(
        f"{path} is {'empty' if not start else 'not a weight file of a format that is read today'}. Expected "
        "safetensors or a PyTorch checkpoint. Copy it again or convert it, then: "
        "load_source('weights.safetensors', arch='timm:NAME')"
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        SourceError: it cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise SourceError(f"{path} is not valid JSON ({error}). Copy it again, then pass {path.parent}") from error
    if not isinstance(found, dict):
        raise SourceError(f"{path} holds a {type(found).__name__}, expected an object. Copy it again: {path.parent}")
    return found


def _read_shards(path: Path) -> Checkpoint:
    """Weights in several files beside an index that says which tensor is where."""
    where = read_json(path).get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(name, str) for name in where.values()):
        raise SourceError(f"{path} has no weight_map from tensors to files. Copy the whole folder again: {path.parent}")
    outside = [name for name in where.values() if not re.fullmatch(r"[\w-][\w.-]*", name) or name.endswith(INDEX)]
    if outside:
        raise SourceError(
            f"{path} names {outside[0]!r}, expected weight files that lie beside it. Put them there and correct the "
            f"index, then pass {path.parent}"
        )
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(set(where.values())):
        found = read_checkpoint(path.parent / shard).tensors
        tensors |= {name: found[name] for name, file in where.items() if file == shard and name in found}
    lost = [name for name in where if name not in tensors]
    if lost:
        raise SourceError(
            f"{path} promises {len(lost)} tensors that its files do not hold ({', '.join(lost[:3])}). Copy all files "
            f"of the folder again, then pass {path.parent}"
        )
    return Checkpoint(tensors)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, ValueError) as error:
        raise SourceError(
            f"{path} is not a whole safetensors file ({error}). Copy or download it again, then pass {path}"
        ) from error


def check_unpacked(path: Path) -> None:
    """Refuse, before it is opened, a zip that would take far more memory than it has bytes.

    Raises:
        SourceError: it would.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except DAMAGE:
        return  # a damaged file is explained by its reader
    if size > path.stat().st_size + _SLACK:
        raise SourceError(
            f"{path} would unpack to {size:,} bytes, far more than its own size, which weights do not; PyTorch writes "
            "them unpacked. Copy or download it again"
        )


def check_claimed(path: Path, claimed: int) -> None:
    """Refuse a file whose tensors claim far more than it holds: they may share numbers, and can repeat a few for ever.

    Args:
        path: of the file.
        claimed: bytes of all its tensors.

    Raises:
        SourceError: they claim too much.
    """
    if claimed > 4 * path.stat().st_size + _SLACK:
        raise SourceError(
            f"{path} claims tensors of {claimed:,} bytes, far more than it holds. Save plain copies: "
            "torch.save({name: value.clone() for name, value in model.state_dict().items()}, 'net.pt')"
        )


def _of_torchscript(path: Path) -> dict[str, Any]:
    """The weights of a TorchScript program; nothing where the file is none."""
    check_unpacked(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return read_torchscript(path, archive) if is_torchscript(archive) else {}
    except DAMAGE:
        return {}  # a damaged file is explained by its reader


def _read_torch(path: Path) -> Any:
    check_unpacked(path)
    try:
        with torch.serialization.safe_globals(_PLAIN_VALUES), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, about pickles that it then refuses
            return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise _explain(path, str(error)) from error


def _explain(path: Path, text: str) -> SourceError:
    wanted = _wanted_global(path, text)
    if wanted:
        return SourceError(
            f"{path} is a pickle that wants to use {wanted}, which can run any code, so it was not opened. "
            "Expected a checkpoint of plain tensors. If you trust its maker, convert it where that may run: "
            f'python -c "{_CONVERT.format(path=str(path))}" and pass weights.safetensors'
        )
    reason = text.splitlines()[0][:120] if text else "it ends too early"
    return SourceError(
        f"{path} is damaged or cut short: PyTorch cannot read it ({reason}). Copy or download it again, then "
        f"pass {path}"
    )


def _wanted_global(path: Path, text: str) -> str:
    """The class or function that a pickle asked for and did not get; "" if that was not the trouble."""
    found = re.search(r"GLOBAL ([\w.]+)", text)
    return found.group(1) if found else _first_global(path.read_bytes())


def _first_global(data: bytes) -> str:
    """The first global beyond plain tensors of a pickle in protocol 4 or 5, found without running it.

    torch.save writes protocol 2, and torch.load says by itself what such a file wants.
    """
    if data[:1] != b"\x80" or data[1:2] not in (b"\x04", b"\x05"):
        return ""
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(data):
            strings += [argument] if isinstance(argument, str) else []
            if opcode.name == "STACK_GLOBAL" and ".".join(strings[-2:]) not in _PLAIN_GLOBALS:
                return ".".join(strings[-2:])
    except ValueError:  # cut short
        pass
    return ""


def _flatten(content: Any, path: Path) -> Checkpoint:
    tensors, ignored = {}, []
    if isinstance(content, Mapping):
        for name, value in _entries(content, path):
            if isinstance(value, torch.Tensor):
                tensors[name] = value
            else:
                ignored.append(name)
    if not tensors:
        raise SourceError(
            f"{path} holds no named tensors, only {', '.join(ignored[:5]) or type(content).__name__}; "
            "expected a state_dict. Save one: torch.save(model.state_dict(), 'net.pt') and pass net.pt"
        )
    check_claimed(path, sum(tensor.nbytes for tensor in tensors.values()))
    return Checkpoint(tensors, tuple(ignored))


def _entries(content: Mapping[Any, Any], path: Path) -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of everything, unless there is no end to it."""
    for count, entry in enumerate(_walk(content, "", 0)):
        if count > _MOST_ENTRIES:
            raise SourceError(
                f"{path} holds dictionaries inside dictionaries without end; expected a state_dict. Save one: "
                "torch.save(model.state_dict(), 'net.pt') and pass net.pt"
            )
        yield entry


def _walk(content: Mapping[Any, Any], where: str, depth: int) -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of everything; an optimizer's state is one entry, as it holds no weights."""
    for key, value in content.items():
        name = f"{where}{key}"
        if isinstance(value, Mapping) and value and "optim" not in str(key) and depth < _DEEPEST:
            yield from _walk(value, f"{name}.", depth + 1)
        else:
            yield name, value
