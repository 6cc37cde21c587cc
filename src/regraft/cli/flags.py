"""Flags made from dataclass fields: a fact about an option is declared once, on its field."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click

Command = Callable[..., Any]


class Duration(click.ParamType):
    """Seconds, written as `90`, `90s`, `10m` or `2h`."""

    name = "duration"
    _units = types.MappingProxyType({"": 1, "s": 1, "m": 60, "h": 3600})

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", value)
        if not match:
            self.fail(f"{value!r} is not a duration; write 90s, 10m or 2h", param, ctx)
        return float(match[1]) * self._units[match[2]]


class Numbers(click.ParamType):
    """Numbers with commas between them: `3,32,32`."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers; write for example 3,32,32", param, ctx)


KINDS: dict[str, click.ParamType] = {"duration": Duration(), "numbers": Numbers()}


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else on standard output.")


def flags(intent: type) -> Callable[[Command], Command]:
    """Add one option for each field of a dataclass that has a `help` in its metadata.

    A `tuple[str, ...]` becomes an option that may be given several times, a `Literal` a choice, a bool a switch.
    Metadata `kind` names one of `KINDS`.
    """
    hints = get_type_hints(intent)
    options = [_option(field, hints[field.name]) for field in dataclasses.fields(intent) if "help" in field.metadata]

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _option(field: dataclasses.Field[Any], hint: Any) -> Callable[[Command], Command]:
    name = "--" + field.name.replace("_", "-")
    default = None if field.default is dataclasses.MISSING else field.default
    help_text = field.metadata["help"]
    if hint is bool:
        return click.option(name, field.name, is_flag=True, default=bool(default), help=help_text)
    repeated = get_origin(hint) is tuple and "kind" not in field.metadata
    shown = default not in (None, "", ())
    kind = KINDS[field.metadata["kind"]] if "kind" in field.metadata else _click_type(hint)
    return click.option(
        name, field.name, type=kind, default=default, multiple=repeated, show_default=shown, help=help_text
    )


def _click_type(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not types.NoneType)
    if get_origin(hint) is Literal:
        return click.Choice(get_args(hint))
    if get_origin(hint) is tuple:
        return get_args(hint)[0]
    return click.Path(path_type=Path) if hint is Path else hint
