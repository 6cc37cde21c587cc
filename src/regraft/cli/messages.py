"""Messages for the shell: the library says what would have worked as a call of Python, a person here types flags."""

from __future__ import annotations

import ast
import json
import re
import shlex
from typing import Any

_RECIPE = re.compile(r"RECIPES\['(\w+)'\]")
_CALL = re.compile(r"\b(?:recipe\.with_|data\.train_size|data\.per_class|load_source|read)\(")
_FLAGS = {"arch": "--arch", "modality": "--modality", "task": "--task"}
_SUBSETS = {"data.train_size": "--train-size", "data.per_class": "--per-class"}
_INPUT = {"size": "--input-size", "mean": "--mean", "std": "--std"}


def in_the_shell(message: str) -> str:
    """The message with its calls as flags; a call that no flags can say stays, as one that tells both.

    Example:
        >>> in_the_shell("Cut lower: recipe.with_(cut='input', lora=0).")
        'Cut lower: --set cut=input --set lora=0.'
        >>> in_the_shell("Say so: load_source('net.th', arch='timm:NAME')")
        'Say so: net.th --arch timm:NAME'
    """
    if "on the command line" in message:
        return message
    told, rest = "", _RECIPE.sub(r"--recipe \1", message)
    while found := _CALL.search(rest):
        call = _call(rest[found.start() :])
        written = call or found[0]
        told += rest[: found.start()] + ((call and _flags(call)) or written)
        rest = rest[found.start() + len(written) :]
    return told + rest


def _call(text: str) -> str | None:
    """The call that the text begins with."""
    for closing in re.finditer(r"\)", text):
        try:
            ast.parse(text[: closing.end()], mode="eval")
        except SyntaxError:
            continue
        return text[: closing.end()]
    return None


def _flags(text: str) -> str | None:
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    called = ast.unparse(call.func)
    if called in _SUBSETS:  # the seed was typed already, or is the default
        return _joined([_SUBSETS[called], _plain(call.args[0])])
    if called == "recipe.with_":
        return " ".join(f"--set {shlex.quote(f'{k.arg}={_toml(k.value)}')}" for k in call.keywords)
    # A name stands for what was typed already.
    given = (_plain(value) for value in call.args if not isinstance(value, ast.Name))
    return _joined([*given, *(_flag(keyword, _FLAGS) for keyword in call.keywords)])


def _flag(keyword: ast.keyword, names: dict[str, str]) -> str | None:
    value = keyword.value
    if keyword.arg == "input" and isinstance(value, ast.Call) and ast.unparse(value.func) == "InputSpec":
        return _joined([_flag(part, _INPUT) for part in value.keywords])
    name, shown = names.get(keyword.arg or ""), _plain(value)
    return f"{name} {shown}" if name and shown else None


def _joined(words: list[str | None]) -> str | None:
    """All of them, or none: half a command would not have worked."""
    return " ".join(word for word in words if word) if all(words) else None


def _plain(value: ast.expr) -> str | None:
    """One word: a text, or numbers with commas between them."""
    try:
        given = ast.literal_eval(value)
    except ValueError:
        return None
    return ",".join(map(str, given)) if isinstance(given, tuple) else shlex.quote(str(given))


def _toml(value: ast.expr) -> str:
    """As `--set` reads it: a text needs no quotation marks, `...` stands for something."""
    given: Any = ast.literal_eval(value)
    if isinstance(given, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in given.items()) + "}"
    return "..." if given is ... else given if isinstance(given, str) else json.dumps(given)
