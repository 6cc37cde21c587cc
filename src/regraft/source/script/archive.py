"""The objects of a TorchScript program (`torch.jit.save`), with their tensors, read without running anything of it.

Its `data.pkl` is a pickle of the program's objects, whose classes are defined by code beside it. Here the pickle is no
program: the few instructions that PyTorch writes are read as data, and nothing is looked up, imported or called. An
object is the mapping of its attributes, with the name of its class; the only functions whose meaning is known are those
that stand for tensors. What another function would have made is noted as absent.
"""

from __future__ import annotations

import io
import pickletools
import re
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
# What PyTorch writes; __torch__ are the file's own enumerations, whose members are named, and made by nobody.
_KNOWN = ("torch._utils ", "torch.jit._pickle ", "torch.device", "torch device", "__torch__.")
_LISTS = r"torch\.jit\._pickle build_\w+list"  # of numbers, or of tensors
_MARK = object()


@dataclass(frozen=True)
class _Global:
    """A class or function that a pickle names; only its name is known."""

    name: str


@dataclass(frozen=True)
class Made:
    """What a function would have made."""

    function: str
    arguments: Any

    @property
    def is_tensor(self) -> bool:
        """Whether it is a tensor."""
        return self.function == _TENSOR


class Object(dict[Any, Any]):
    """An object of the program: its attributes, and the full name of its class."""

    kind = ""


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
    tensors = Tensors(path, archive, "data")
    found: dict[str, Any] = {}
    for names, _, made in tensors.within(read_objects(path, archive)):
        inner = found
        for name in names[:-1]:
            inner = inner.setdefault(name, {})
        inner[names[-1]] = tensors.read(names[-1], made)
    if not found:
        raise frozen(path)
    return found


def frozen(path: Path) -> SourceError:
    """What to say of a program whose weights have no names."""
    return SourceError(
        f"{path} is a TorchScript program without named weights: torch.jit.freeze made constants of them. Save it "
        "before it is frozen, or the weights: torch.save(model.state_dict(), 'weights.pt') and pass weights.pt"
    )


def read_objects(path: Path, archive: zipfile.ZipFile) -> dict[Any, Any]:
    """The program's outermost object, with all that it holds.

    Raises:
        SourceError: the file is damaged.
    """
    program = read_pickle(path, archive, "data")
    if not isinstance(program, dict):
        raise _unread(path, f"it holds a {type(program).__name__}")
    return program


def read_pickle(path: Path, archive: zipfile.ZipFile, name: str) -> Any:
    """What NAME.pkl of a program describes, as plain values; see `Made` and `Object`.

    Raises:
        SourceError: there is none, or it is damaged.
    """
    entry = next((entry for entry in archive.infolist() if entry.filename == f"{_root(archive)}{name}.pkl"), None)
    if entry is None or entry.file_size > _MOST_BYTES:
        raise _unread(path, f"it has no {name}.pkl of a sane size")
    try:
        return _unpickled(archive.read(entry))
    except (*DAMAGE, TypeError, AttributeError, StopIteration) as error:
        raise _unread(path, str(error)[:120]) from error


def _root(archive: zipfile.ZipFile) -> str:
    """The folder that the archive holds everything in, with its slash."""
    return next((name for name in archive.namelist() if name.endswith("/constants.pkl")), "").rpartition("/")[0] + "/"


def _unread(path: Path, reason: str) -> SourceError:
    return SourceError(
        f"{path} is a TorchScript program whose weights cannot be read ({reason}). Copy or download it again; where "
        f"you trust its maker, save them: torch.save(torch.jit.load('{path}').state_dict(), 'weights.pt') and pass "
        "weights.pt"
    )


def made_shape(made: Made) -> tuple[int, ...]:
    """The shape of what stands for a tensor."""
    return tuple(int(side) for side in made.arguments[2])


def memory_of(made: Made) -> tuple[Any, ...]:
    """Where the numbers of a tensor lie: the same for tensors that are one."""
    storage, offset, shape, strides, *_ = made.arguments
    return (storage.parts[2], offset, shape, strides)


class Tensors:
    """Tensors of a program; each storage is read when it is first asked for.

    Args:
        path: of the file, for messages.
        archive: the file.
        name: of the pickle that describes them.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, name: str) -> None:
        self._path, self._archive, self._folder = path, archive, f"{_root(archive)}{name}/"
        self._left = _MOST_ATTRIBUTES
        self._contents: dict[str, bytes] = {}

    def within(
        self, attributes: dict[Any, Any], names: tuple[str, ...] = (), above: tuple[int, ...] = ()
    ) -> Iterator[tuple[tuple[str, ...], dict[Any, Any], Made]]:
        """(names from the outermost object on, the object that holds it, what stands for it) of every tensor.

        Raises:
            SourceError: the objects hold themselves.
        """
        self._left -= len(attributes)
        if self._left < 0 or len(above) > _DEEPEST or id(attributes) in above:
            raise _unread(self._path, "its objects hold themselves")
        for name, value in attributes.items():
            if isinstance(value, dict):
                yield from self.within(value, (*names, str(name)), (*above, id(attributes)))
            elif isinstance(value, Made) and value.is_tensor:
                yield (*names, str(name)), attributes, value

    def read(self, name: str, made: Made) -> torch.Tensor:
        """The values of a tensor.

        Raises:
            SourceError: its storage does not hold them.
        """
        try:
            storage, offset, shape, strides, *_ = made.arguments
            _, kind, key, *_ = storage.parts
            dtype = _STORAGES[kind.name.removeprefix("torch ")]
            content = self._content(key)
            sizes, steps = ([int(n) for n in values] for values in (shape, strides))
            return strided(content, dtype, sizes, steps, int(offset), f"{self._path}: tensor {name!r}")
        except (*DAMAGE, TypeError, AttributeError) as error:
            raise _unread(self._path, f"tensor {name!r}: {error!r}"[:150]) from error

    def _content(self, key: str) -> bytes:
        if key not in self._contents:
            self._contents[key] = self._archive.read(f"{self._folder}{key}")
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
        if name == "NEWOBJ":
            return _instance(made_by.name)
        if made_by.name == "collections OrderedDict":
            return {}
        if made_by.name == "torch.jit._pickle restore_type_tag" or re.fullmatch(_LISTS, made_by.name):
            return arguments[0]
        if not made_by.name.startswith(_KNOWN):
            raise ValueError(f"it wants to use {made_by.name.replace(' ', '.')}, which can run any code")
        return Made(made_by.name, arguments)
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


def _instance(kind: str) -> Object:
    made = Object()
    made.kind = kind.replace(" ", ".")
    return made


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
