"""What the fields of an intent may be: declared on each field, refused before any work, in Python and as flags.

A field's metadata may hold a `Rule`, and a `Literal` in its type is one anyway.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin, get_type_hints

from regraft.errors import RunError, closest

RULE = "rule"  # in a field's metadata


@dataclass(frozen=True)
class Rule:
    """What a value must be.

    Args:
        words: as the end of "… is not".
        such_as: a value that is, as a command line writes it.
        holds: the test of it.
    """

    words: str
    such_as: str
    holds: Callable[[Any], bool]


def whole(least: int, *, most: float = math.inf, such_as: str) -> Rule:
    """A whole number within bounds.

    Example:
        >>> whole(1, such_as="10").holds(0), whole(0, most=9, such_as="3").words
        (False, 'a whole number from 0 to 9')
    """
    words = f"a whole number, {least} or more" if most == math.inf else f"a whole number from {least} to {most}"
    return Rule(words, such_as, lambda value: isinstance(value, Integral) and least <= int(value) <= most)


def number(words: str, such_as: str, holds: Callable[[float], bool]) -> Rule:
    """A number of which something holds; infinity and what is no number are none."""
    return Rule(words, such_as, lambda value: _is_number(value) and holds(value))


def numbers(words: str, such_as: str, holds: Callable[[float], bool]) -> Rule:
    """A tuple of numbers, of each of which something holds."""
    return Rule(words, such_as, lambda values: all(_is_number(value) and holds(value) for value in values))


def refuse_impossible(intent: Any) -> None:
    """Compare the fields of a dataclass with what is declared of them; None is always allowed where it is the default.

    Raises:
        RunError: some values are impossible; all of them are named, as flags.
    """
    hints = get_type_hints(type(intent))
    wrong = [told for field in dataclasses.fields(intent) if (told := _wrong(intent, field, hints[field.name]))]
    if wrong:
        raise RunError(" ".join(wrong))


def _wrong(intent: Any, field: dataclasses.Field[Any], hint: Any) -> str:
    """What is wrong with one field, ending in what would not be; empty if nothing is."""
    value, flag = getattr(intent, field.name), "--" + field.name.replace("_", "-")
    if value is None and field.default is None:
        return ""
    options = _options(hint)
    if options and value not in options:
        return f"{flag} {value}: expected one of {', '.join(options)}.{closest(str(value), options)}"
    rule = field.metadata.get(RULE)
    if rule is None:
        return _of_another_type(field.name, value, hint)
    if rule.holds(value):
        return ""
    shown = ",".join(f"{one:g}" for one in value) if isinstance(value, tuple) else value
    return f"{flag} {shown} is not {rule.words}. For example: {flag} {rule.such_as}"


def _of_another_type(name: str, value: Any, hint: Any) -> str:
    """What Python alone can pass: the command line gives texts where texts are wanted."""
    if get_origin(hint) is tuple and not isinstance(value, tuple | list):
        return f"{name}={value!r} is no tuple of texts. For example: {name}=('TEXT',)"
    if hint is str and not isinstance(value, str):
        return f"{name}={value!r} is no text. For example: {name}='TEXT'"
    return ""


def _options(hint: Any) -> tuple[str, ...]:
    """Of a `Literal`, or of one that may be None."""
    for part in (hint, *get_args(hint)):
        if get_origin(part) is Literal:
            return get_args(part)
    return ()


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)
