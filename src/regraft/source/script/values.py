"""What TorchScript's own functions do to plain values: numbers, texts, lists and dictionaries.

Nothing here can grow without end: texts, lists and whole numbers that would are refused.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_MOST_ITEMS, _MOST_TEXT, _MOST_WHOLE = 1 << 16, 1 << 14, 1 << 62


@dataclass(frozen=True)
class Ref:
    """A value of the graph: a tensor, or a size that depends on the number of pictures."""

    name: str


@dataclass(frozen=True)
class Number:
    """A tensor without axes whose number is known; traces hold sizes in such."""

    value: Any


@dataclass(frozen=True)
class Device:
    """Whichever device the input is on."""

    def __str__(self) -> str:
        return "cpu"


@dataclass(frozen=True)
class Named:
    """A named tuple."""

    fields: tuple[str, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Member:
    """A member of an enumeration."""

    kind: str
    value: Any


def bounded(value: Any) -> Any:
    """A value, seen not to be too long or large.

    Raises:
        ValueError: it is.

    Example:
        >>> bounded([1, 2])
        [1, 2]
    """
    if isinstance(value, list | tuple | dict) and len(value) > _MOST_ITEMS:
        raise ValueError(f"a list of {len(value):,} items")
    if isinstance(value, str) and len(value) > _MOST_TEXT:
        raise ValueError(f"a text of {len(value):,} letters")
    if isinstance(value, int) and abs(value) > _MOST_WHOLE:
        raise ValueError("a number beyond all sizes")
    return value


def _repeated(items: list[Any], times: int) -> list[Any]:
    if times * len(items) > _MOST_ITEMS:
        raise ValueError(f"a list of {times * len(items):,} items")
    return items * times


def _power(base: float, exponent: float) -> float:
    if abs(exponent) > 64 or abs(base) > 1 << 31:
        raise ValueError("a number beyond all sizes")
    return base**exponent


def _divided(a: float, b: float, rounding_mode: str | None = None) -> float:
    if rounding_mode == "floor":
        return a // b
    if rounding_mode == "trunc":
        whole = abs(a) // abs(b)
        return whole if (a < 0) == (b < 0) else -whole
    return a / b


def _formatted(text: str, *values: Any) -> str:
    """TorchScript's format knows no more than {}; what is no number or text is left out."""
    shown = (str(value)[:100] if isinstance(value, str | int | float) else "…" for value in values)
    parts = text.split("{}")
    return "".join(part + next(shown, "") for part in parts[:-1]) + parts[-1]


def _equal(a: Any, b: Any) -> bool:
    """Lists are compared one deep: deeper ones could be made to take for ever."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return _same(a, b)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list | tuple | dict) or isinstance(b, list | tuple | dict):
        raise TypeError("lists of lists cannot be compared")
    return a == b


def _piece(items: Any, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    return items[start:end:step]


def _set(items: Any, key: Any, value: Any) -> None:
    items[key] = value


# By name: what numbers and texts give. Those of sizes are computed in the graph where a size is open.
OF_NUMBERS: dict[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "floordiv": operator.floordiv,
    "floor_divide": operator.floordiv, "div": _divided, "true_divide": operator.truediv,
    "remainder": operator.mod, "fmod": math.fmod, "neg": operator.neg, "pow": _power, "abs": abs,
    "sqrt": math.sqrt, "exp": math.exp, "log": math.log, "ceil": math.ceil, "floor": math.floor, "round": round,
    "rsub": operator.sub, "eq": _equal, "ne": lambda a, b: not _equal(a, b),
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
    "__and__": operator.and_, "__or__": operator.or_, "__xor__": operator.xor, "__not__": operator.not_,
    "max": max, "min": min, "Int": int, "Float": float, "Bool": bool, "str": str, "format": _formatted,
    "__range_length": lambda start, end, step: len(range(start, end, step)),
    "__derive_index": lambda i, start, step: start + i * step,
    "ScalarImplicit": lambda a: a, "IntImplicit": int, "FloatImplicit": float,
}  # fmt: skip
# What is asked of a size with its value in the example: its answer decides the way through the program.
ASKED = ("eq", "ne", "lt", "le", "gt", "ge", "__and__", "__or__", "__not__", "Bool", "format", "str")
# Functions of sizes, and the arithmetic of the graph that computes them.
IN_GRAPH = {
    "add": "_operator.add", "sub": "_operator.sub", "mul": "_operator.mul", "floordiv": "_operator.floordiv",
    "floor_divide": "_operator.floordiv", "true_divide": "_operator.truediv", "remainder": "_operator.mod",
    "neg": "_operator.neg", "max": "torch.sym_max", "min": "torch.sym_min", "Int": "torch.sym_int",
    "Float": "torch.sym_float",
}  # fmt: skip
# By name: what lists, texts and dictionaries give.
OF_LISTS: dict[str, Callable[..., Any]] = {
    "len": len, "append": lambda items, item: items.append(item), "extend": lambda items, more: items.extend(more),
    "insert": lambda items, at, item: items.insert(at, item), "pop": lambda items, *at: items.pop(*at),
    "reverse": lambda items: items.reverse(), "clear": lambda items: items.clear(),
    "copy": lambda items: items.copy(), "list": list, "slice": _piece, "add": operator.add, "mul": _repeated,
    "__contains__": lambda items, item: any(_same(item, known) for known in items), "__getitem__": operator.getitem,
    "_set_item": _set, "keys": list, "values": lambda items: list(items.values()),
    "items": lambda items: list(items.items()), "get": lambda items, *key: items.get(*key),
    "eq": _equal, "ne": lambda a, b: not _equal(a, b),
}  # fmt: skip
