"""TorchScript files as sources: graph, names and weights, read without `torch.jit.load`, which runs what it likes.

The archive holds a pickle of the program's objects (see `archive`) and the code of their classes (see
`code`). The call of the outermost module is followed on shapes alone; what comes out is the same graph that a
program of `torch.export` has, so everything after that is shared with it.
"""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regraft.errors import SourceError, first_line
from regraft.source.archive import DAMAGE
from regraft.source.checkpoint import open_checkpoint
from regraft.source.files import check_claimed, check_unpacked
from regraft.source.pt2.program import Program, Stored, picture_axes, program_source
from regraft.source.request import Request
from regraft.source.script.archive import (
    Made,
    Object,
    Tensors,
    frozen,
    is_torchscript,
    made_shape,
    memory_of,
    read_objects,
    read_pickle,
)  # fmt: skip
from regraft.source.script.code import Code
from regraft.source.script.ops import Operations, unread
from regraft.source.script.run import Run
from regraft.source.script.values import Named, Number, Ref
from regraft.source.source import Source
from regraft.spec import Spec

_PICTURES = 23  # a prime that hardly divides a size of anything else; where it does, that size is computed, no more
_DAMAGE = (*DAMAGE, TypeError, AttributeError, StopIteration)


@dataclass(frozen=True)
class _File:
    """What was read of a file."""

    path: Path
    root: Object
    code: Code
    tensors: list[Stored]
    constants: list[Any]
    example: tuple[int, ...]


def is_script(path: Path) -> bool:
    """Whether a file is a TorchScript program, by its content."""
    try:
        with zipfile.ZipFile(path) as archive:
            return is_torchscript(archive)
    except _DAMAGE:
        return False


def open_script(path: Path, request: Request) -> Source:
    """A TorchScript file as a source; `net.pt#NAME` ends the network at a module or a value of that name.

    With an architecture of one's own, it is a file of weights for that.

    Raises:
        SourceError: the file cannot be read, uses an operation that is not let through, or does not say its input.
    """
    if request.arch is not None:
        return open_checkpoint(path, request)
    check_unpacked(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _opened(_read(path, archive), request)
    except SourceError:
        raise
    except _DAMAGE as error:
        raise SourceError(
            f"{path} is a damaged TorchScript program ({first_line(error)}). Copy or download it again"
        ) from error


def _read(path: Path, archive: zipfile.ZipFile) -> _File:
    root, code = read_objects(path, archive), Code(path, archive)
    if not isinstance(root, Object):
        raise SourceError(f"{path} is a damaged TorchScript program: it holds no module. Copy or download it again")
    tensors = _stored(path, root, code, Tensors(path, archive, "data"))
    if not any(tensor.is_param for tensor in tensors):
        raise frozen(path)
    constants, of_constants = _constants(path, archive)
    return _File(path, root, code, [*tensors, *of_constants], constants, _example(path, archive))


def _stored(path: Path, root: Object, code: Code, tensors: Tensors) -> list[Stored]:
    found: list[Stored] = []
    firsts: dict[Any, str] = {}
    claimed = 0
    for names, owner, made in tensors.within(root):
        script = code.find_class(owner.kind) if isinstance(owner, Object) else None
        name, leaf = ".".join(names), names[-1]
        tensor = tensors.read(name, made)
        claimed += tensor.nbytes
        check_claimed(path, claimed)
        is_param = script is not None and leaf in script.parameters and tensor.is_floating_point()
        first = firsts.setdefault(memory_of(made), name) if is_param else name
        hidden = script is None or leaf not in (*script.parameters, *script.buffers)
        named = f"_attribute_{len(found)}" if hidden else name  # a plain attribute may have any name
        found.append(Stored(named, f"self.{name}", is_param, hidden, tensor, first))
    return found


def _constants(path: Path, archive: zipfile.ZipFile) -> tuple[list[Any], list[Stored]]:
    """What stands for each of CONSTANTS, and those that are tensors with axes."""
    tensors, values, stored = Tensors(path, archive, "constants"), [], []
    for i, made in enumerate(read_pickle(path, archive, "constants")):
        if not isinstance(made, Made) or not made.is_tensor:
            values.append(None)
            continue
        name = f"_constant_{i}"
        tensor = tensors.read(name, made)
        if tensor.dim():
            stored.append(Stored(name, f"self.{name}", False, True, tensor, name))
            check_claimed(path, sum(constant.tensor.nbytes for constant in stored))
        values.append(Ref(f"self.{name}") if tensor.dim() else Number(tensor.item()))
    return values, stored


def _example(path: Path, archive: zipfile.ZipFile) -> tuple[int, ...]:
    """The shape of the input that a program was traced with; () where it is not there."""
    if not any(name.endswith("/traced_inputs.pkl") for name in archive.namelist()):
        return ()
    inputs = read_pickle(path, archive, "traced_inputs").get("forward", [])
    return made_shape(inputs[0]) if inputs and isinstance(inputs[0], Made) and inputs[0].is_tensor else ()


# the way through --------------------------------------------------------------------------------------


def _opened(file: _File, request: Request) -> Source:
    name, others = _inputs(file)
    if file.example and len(file.example) != 4:
        raise SourceError(
            f"{file.path} was traced with an input of {len(file.example)} axes, expected pictures (N, C, H, W) or "
            "(N, H, W, C). Trace the part that takes such: torch.jit.trace(model.eval(), (pictures,))"
        )
    axes = picture_axes(file.example[1:]) if file.example else (0, 1, 2)
    channels, height, width = (file.example[1 + axis] for axis in axes) if file.example else (3, 224, 224)
    size = (channels, height, width)
    spec = request.input_or(None, size)
    shape = request.size_or((channels if file.example else 0, 0, 0), size if file.example else None)
    made_for = file.example[0] if file.example else None
    program = _Input(name, shape, axes != (0, 1, 2), others)
    try:
        return program_source(file.path, _followed(file, program, made_for, is_fixed=False), spec, request)
    except SourceError as error:
        if made_for is None:
            raise
        return _mended(file, program, made_for, spec, request, error)


def _mended(file: _File, taken: _Input, made_for: int, spec: Spec, request: Request, error: SourceError) -> Source:
    """The program as it is for the number of pictures that it was traced with, opened for any."""
    try:
        return program_source(file.path, _followed(file, taken, made_for, is_fixed=True), spec, request)
    except SourceError:
        raise error from None


@dataclass(frozen=True)
class _Input:
    """The input's name, one picture's (C, H, W), whether channels come last, and arguments beside it."""

    name: str
    shape: tuple[int, int, int]
    channels_last: bool
    others: int


def _inputs(file: _File) -> tuple[str, int]:
    """The name of the one input, and how many arguments beside it may be left out as None."""
    script = file.code.find_class(file.root.kind)
    if script is None or "forward" not in script.methods:
        raise SourceError(
            f"{file.path} is a TorchScript program without a forward method, so there is nothing to call. Save the "
            "module itself: torch.jit.save(torch.jit.script(model.eval()), 'net.pt')"
        )
    tree = script.methods["forward"].args
    needed = tree.args[1 : len(tree.args) - len(tree.defaults)]
    optional = [argument for argument in needed[1:] if _is_optional(argument.annotation)]
    if not needed or len(optional) != len(needed) - 1 or not _is_tensor(needed[0].annotation):
        raise SourceError(
            f"{file.path} takes {len(needed)} inputs, expected pictures alone. Save the part that takes pictures: "
            "torch.jit.save(torch.jit.script(model.encoder.eval()), 'net.pt')"
        )
    return needed[0].arg, len(optional)


def _is_tensor(annotation: ast.expr | None) -> bool:
    return annotation is None or (isinstance(annotation, ast.Name) and annotation.id == "Tensor")


def _is_optional(annotation: ast.expr | None) -> bool:
    kind = annotation.value if isinstance(annotation, ast.Subscript) else None
    return isinstance(kind, ast.Name) and kind.id == "Optional"


def _followed(file: _File, taken: _Input, made_for: int | None, *, is_fixed: bool) -> Program:
    """The program as its way for pictures of this size has it, for any number of them or for the example's."""
    n = made_for if is_fixed and made_for else _PICTURES
    channels, height, width = taken.shape
    shape = (n, height, width, channels) if taken.channels_last else (n, *taken.shape)
    values: dict[str, Any] = {"": torch.device("meta"), taken.name: torch.empty(shape, device="meta")}
    for stored in file.tensors:
        kind = torch.float32 if stored.tensor.is_floating_point() else stored.tensor.dtype
        values[stored.value] = torch.empty(stored.tensor.shape, dtype=kind, device="meta")
    operations = Operations(values, 0 if is_fixed else n)
    given = Run(file.code, file.constants, operations).follow(file.root, [Ref(taken.name), *[None] * taken.others])
    output = _first_tensor(given, operations)
    return Program(taken.name, taken.shape, taken.channels_last, operations.nodes, file.tensors, output, made_for,
                   is_fixed, "TorchScript")  # fmt: skip


def _first_tensor(given: Any, operations: Operations) -> str:
    """The output, or the first of several."""
    parts: Sequence[Any] = [given]
    if isinstance(given, Named | dict):
        parts = given.values if isinstance(given, Named) else list(given.values())
    elif isinstance(given, list | tuple):
        parts = given
    for part in parts:
        if isinstance(part, Ref) and operations.is_tensor(part):
            return part.name
    raise unread("an output that is no tensor")
