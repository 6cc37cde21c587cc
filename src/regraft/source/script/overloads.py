"""Which overload of an operation a call means: TorchScript's code names the operation alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from regraft.source.pt2.ops import find_op
from regraft.source.pt2.program import DTYPES, in_evaluation
from regraft.source.script.values import Device, Number, Ref

IsTensor = Callable[[Any], bool]
_FORMATS = ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")  # by PyTorch's numbers
_SCALARS: dict[str, tuple[type, ...]] = {"int": (int,), "SymInt": (int,), "float": (float,), "str": (str,)}
_NUMBERED = ("ScalarType", "Layout", "MemoryFormat")  # types whose values are whole numbers in the code


@dataclass(frozen=True)
class Call:
    """An operation and its arguments, in the order of its schema.

    Args:
        target: as in an exported program.
        args: by position; a tensor may still be a `Number`.
        kwargs: those that the schema takes by name alone.
        gives: "one", "tuple" or "list".
    """

    target: str
    args: list[Any]
    kwargs: dict[str, Any]
    gives: str


def chosen(op: str, args: Sequence[Any], kwargs: Mapping[str, Any], is_tensor: IsTensor) -> Call | None:
    """The overload that takes these arguments; None where none does or the operation is not let through.

    Args:
        op: name, without library.
        args: plain values, and values of the graph.
        kwargs: likewise.
        is_tensor: whether a value of the graph is a tensor, and no size.

    Example:
        >>> chosen("add", [Ref("x"), 1], {}, lambda value: True).target
        'torch.ops.aten.add.Scalar'
    """
    for ease in range(3):  # as it stands; with numbers turned as TorchScript does; with numbers taken for tensors
        for target, schema in _overloads(op):
            given = _bound(schema, args, kwargs)
            if given is None or not all(_fits(given[a.name], str(a.real_type), ease, is_tensor)
                                        for a in schema.arguments if a.name in given):  # fmt: skip
                continue
            return _call(op, target, schema, given)
    return None


@lru_cache(maxsize=1024)
def _overloads(op: str) -> tuple[tuple[str, Any], ...]:
    """(target, schema) of the overloads that are let through."""
    packet = getattr(torch.ops.aten, op, None) if op.isidentifier() else None
    targets = [f"torch.ops.aten.{op}.{name}" for name in getattr(packet, "overloads", list)()]
    found = ((target, find_op(target)) for target in targets)
    return tuple((target, getattr(op, "_schema", None)) for target, op in found if op is not None)


def _bound(schema: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments by name; None where they are not those of the schema."""
    names = [argument.name for argument in schema.arguments if not argument.kwarg_only]
    given = dict(zip(names, args, strict=False))
    twice = len(args) > len(names) or not given.keys().isdisjoint(kwargs)
    needed = {argument.name for argument in schema.arguments if not argument.has_default_value()}
    given |= kwargs
    return None if twice or not needed <= set(given) <= {a.name for a in schema.arguments} else given


def _fits(value: Any, kind: str, ease: int, is_tensor: IsTensor) -> bool:
    inner = re.fullmatch(r"(Optional|List)\[(.+)\]", kind)
    if inner and inner[1] == "Optional":
        return value is None or _fits(value, inner[2], ease, is_tensor)
    if inner:
        if isinstance(value, list | tuple):
            return all(_fits(item, inner[2], ease, is_tensor) for item in value)
        return ease > 0 and inner[2] in _SCALARS and _fits(value, inner[2], ease, is_tensor)
    if isinstance(value, Ref) and is_tensor(value):
        return kind == "Tensor"
    if kind == "Tensor":
        return isinstance(value, Number) and ease > 1
    return _fits_plain(value, kind, ease)


def _fits_plain(value: Any, kind: str, ease: int) -> bool:
    if kind in ("bool", "Device"):
        return isinstance(value, bool if kind == "bool" else Device)
    if kind in _NUMBERED:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "number":
        return isinstance(value, int | float | Ref | Number)
    if isinstance(value, Ref | Number):  # sizes are whole; a trace holds them in tensors
        return kind in ("int", "SymInt") and (ease > 0 or isinstance(value, Ref))
    numbers = (int, float) if ease and kind == "float" else _SCALARS.get(kind, ())
    return isinstance(value, numbers) and not isinstance(value, bool)


def _call(op: str, target: str, schema: Any, given: dict[str, Any]) -> Call:
    """The call with what has to be said of it: in evaluation, on the input's device."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    kinds = {argument.name: str(argument.real_type) for argument in schema.arguments}
    values = {argument.name: _as_kind(given.get(argument.name, argument.default_value), kinds[argument.name])
              for argument in schema.arguments if argument.name in given or not argument.kwarg_only}  # fmt: skip
    if "device" in kinds and not any("Tensor" in kind for kind in kinds.values()):
        values["device"] = {"device": 0}  # of what is made from nothing
    by_name = {argument.name for argument in schema.arguments if argument.kwarg_only}
    for name, value in in_evaluation(op, values).items():
        if name in by_name:
            kwargs[name] = value
        else:
            args.append(value)
    returns = [str(value.type) for value in schema.returns]
    gives = "tuple" if len(returns) > 1 else "list" if returns and returns[0].startswith("List") else "one"
    return Call(target, args, kwargs, gives)


def _as_kind(value: Any, kind: str) -> Any:
    """What stands for a type, a device or a layout, as an exported program has it; numbers of arguments unwrapped."""
    kind = re.sub(r"Optional\[(.+)\]", r"\1", kind)
    if value is None or kind == "Layout":
        return None
    if kind == "Device":
        return {"device": 0}
    if kind == "ScalarType":
        return {"dtype": DTYPES[value]}
    if kind == "MemoryFormat":
        return {"memory_format": _FORMATS[value]}
    if isinstance(value, Number) and kind != "Tensor":
        return value.value
    inner = re.fullmatch(r"List\[(.+)\]", kind)
    if inner and isinstance(value, list | tuple):
        return [_as_kind(item, inner[1]) for item in value]
    return value
