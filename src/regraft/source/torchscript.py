"""The weights of a TorchScript program (`torch.jit.save`), read without running anything of it.

Its `data.pkl` is a pickle of the program's objects, whose classes are defined by code beside it. Here the pickle is no
program: the few instructions that PyTorch writes are read as data, and nothing is looked up, imported or called. An
object is the mapping of its attributes, whatever its class; the only functions whose meaning is known are those that
stand for tensors. What another function would have made is noted as absent.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regraft.errors import SourceError
from regraft.source.archive import DAMAGE
from regraft.source.strided import strided

_MOST_BYTES = 1 << 28  # of the pickle, which holds names and sizes
_MOST_ATTRIBUTES, _DEEPEST = 1_000_000, 64
_STORAGES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
_TENSOR = "torch._utils _rebuild_tensor_v2"
_KNOWN = ("torch._utils ", "torch.jit._pickle ", "torch.device", "torch device")  # that PyTorch writes
_MARK = object()


@dataclass(frozen=True)
class _Global:
    """A class or function that a pickle names; only its name is known."""

    name: str


@dataclass(frozen=True)
class _Made:
    """What a function would have made."""

    function: str
    arguments: Any


@dataclass(frozen=True)
class _Storage:
    """A persistent object of the pickle: the numbers of one or more tensors."""

    parts: Any


def is_torchscript(archive: zipfile.ZipFile) -> bool:
    """Whether a zip is a TorchScript program, by the member that only such have."""
    return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    """Attributes of attributes, down to tensors, under the names that they have in the network.

    Raises:
        SourceError: the file is damaged, was frozen, or its objects hold themselves.
    """
    entry = next((entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")), None)
    if entry is None or entry.file_size > _MOST_BYTES:
        raise _unread(path, "it has no data.pkl of a sane size")
    root = entry.filename.removesuffix("data.pkl")
    try:
        program = _unpickled(archive.read(entry))
    except (*DAMAGE, TypeError, AttributeError, StopIteration) as error:
        raise _unread(path, str(error)[:120]) from error
    if not isinstance(program, dict):
        raise _unread(path, f"it holds a {type(program).__name__}")
    found = _Tensors(path, archive, root).of(program, ())
    if not found:
        raise SourceError(
            f"{path} is a TorchScript program without named weights: torch.jit.freeze made constants of them. Save "
            "them before it is frozen: torch.save(model.state_dict(), 'weights.pt') and pass weights.pt"
        )
    return found


def _unread(path: Path, reason: str) -> SourceError:
    return SourceError(
        f"{path} is a TorchScript program whose weights cannot be read ({reason}). Copy or download it again; where "
        f"you trust its maker, save them: torch.save(torch.jit.load('{path}').state_dict(), 'weights.pt') and pass "
        "weights.pt"
    )


class _Tensors:
    """Tensors of a program's objects; each storage is read when it is first asked for."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, root: str) -> None:
        self._path, self._archive, self._root = path, archive, root
        self._left = _MOST_ATTRIBUTES
        self._contents: dict[str, bytes] = {}

    def of(self, attributes: dict[Any, Any], above: tuple[int, ...]) -> dict[str, Any]:
        """The attributes that are tensors or hold some."""
        self._left -= len(attributes)
        if self._left < 0 or len(above) > _DEEPEST or id(attributes) in above:
            raise _unread(self._path, "its objects hold themselves")
        found: dict[str, Any] = {}
        for name, value in attributes.items():
            if isinstance(value, dict):
                inner = self.of(value, (*above, id(attributes)))
                found |= {str(name): inner} if inner else {}
            elif isinstance(value, _Made) and value.function == _TENSOR:
                found[str(name)] = self._tensor(str(name), value.arguments)
        return found

    def _tensor(self, name: str, arguments: Any) -> torch.Tensor:
        try:
            storage, offset, shape, strides, *_ = arguments
            _, kind, key, *_ = storage.parts
            dtype = _STORAGES[kind.name.removeprefix("torch ")]
            content = self._content(key)
            sizes, steps = ([int(n) for n in values] for values in (shape, strides))
            return strided(content, dtype, sizes, steps, int(offset), f"{self._path}: tensor {name!r}")
        except (*DAMAGE, TypeError, AttributeError) as error:
            raise _unread(self._path, f"tensor {name!r}: {error!r}"[:150]) from error

    def _content(self, key: str) -> bytes:
        if key not in self._contents:
            self._contents[key] = self._archive.read(f"{self._root}data/{key}")
        return self._contents[key]


# a pickle as data -------------------------------------------------------------------------------------

_VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "BINSTRING")
_FIXED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list}


def _unpickled(content: bytes) -> Any:
    """What a pickle of TorchScript describes, as plain values.

    Raises:
        ValueError: it uses an instruction that PyTorch does not write there.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(io.BytesIO(content)):
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _VALUES:
            stack.append(argument)
        elif name in _FIXED:
            stack.append(_FIXED[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "GLOBAL":
            stack.append(_Global(str(argument)))
        elif name != "PROTO":
            stack.append(_combined(name, stack))
    raise ValueError("its pickle has no end")


def _combined(name: str, stack: list[Any]) -> Any:
    """What an instruction makes of the values on the stack, which it takes away."""
    if name == "TUPLE":
        return tuple(_to_mark(stack))
    if name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        values = [stack.pop() for _ in range(int(name[-1]))]
        return tuple(reversed(values))
    if name == "BINPERSID":
        return _Storage(stack.pop())
    if name in ("NEWOBJ", "REDUCE"):
        arguments, made_by = stack.pop(), stack.pop()
        if name == "NEWOBJ" or made_by.name == "collections OrderedDict":
            return {}
        if not made_by.name.startswith(_KNOWN):
            raise ValueError(f"it wants to use {made_by.name.replace(' ', '.')}, which can run any code")
        return _Made(made_by.name, arguments)
    if name in ("SETITEMS", "APPENDS"):
        values = list(_to_mark(stack))
        return _extended(stack.pop(), values)
    if name == "BUILD":
        return _built(stack)
    if name in ("SETITEM", "APPEND"):
        count = 2 if name == "SETITEM" else 1
        values = [stack.pop() for _ in range(count)][::-1]
        return _extended(stack.pop(), values)
    raise ValueError(f"its pickle holds the instruction {name}")


def _to_mark(stack: list[Any]) -> Iterator[Any]:
    """The values above the last mark, in order."""
    at = len(stack) - 1 - next(i for i, value in enumerate(reversed(stack)) if value is _MARK)
    values = stack[at + 1 :]
    del stack[at:]
    return iter(values)


def _extended(whole: Any, values: list[Any]) -> Any:
    if isinstance(whole, list):
        whole.extend(values)
    else:
        whole.update(zip(values[::2], values[1::2], strict=True))
    return whole


def _built(stack: list[Any]) -> Any:
    """An object is given its attributes."""
    state, made = stack.pop(), stack.pop()
    if isinstance(made, dict) and isinstance(state, dict):
        made.update(state)
    return made
