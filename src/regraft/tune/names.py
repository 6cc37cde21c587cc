"""Patterns over names of tensors: what they match, and the refusal where that is nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from regraft.errors import RecipeError, closest


def matching(pattern: str, names: Iterable[str]) -> set[str]:
    """The names in which a regular expression is found, anywhere.

    Example:
        >>> sorted(matching("layer[34]|head", ["layer1.weight", "layer3.weight", "head.bias"]))
        ['head.bias', 'layer3.weight']
    """
    return {name for name in names if re.search(pattern, name)}


def required(field: str, pattern: str, names: Collection[str], *, elsewhere: Iterable[str] = (), why: str = "") -> set:
    """What a recipe's pattern matches, which must not be nothing.

    Args:
        field: of the recipe.
        pattern: a regular expression.
        names: where it has to match.
        elsewhere: names where a match does not count.
        why: what is the matter with those, as the end of "it matches only tensors that …".

    Raises:
        RecipeError: it matches none of the names; the nearest are shown.
    """
    found = matching(pattern, names)
    if found:
        return found
    lost = sorted(matching(pattern, elsewhere))
    if lost:
        raise RecipeError(
            f"{field} = {pattern!r} matches only tensors that {why}: {', '.join(lost[:3])}. "
            f"Match others, for example {field} = {_module(min(names))!r}."
        )
    near = closest(pattern, [*_modules(names), *names]) or f" Names are such as {', '.join(_some(names))}."
    raise RecipeError(f"{field} = {pattern!r} matches no tensor.{near} `regraft inspect SOURCE` lists the layers.")


def _module(name: str) -> str:
    return name.rpartition(".")[0] or name


def _modules(names: Iterable[str]) -> list[str]:
    """The modules around some tensors, the outermost first."""
    parts = [name.split(".") for name in names]
    return sorted({".".join(path[:i]) for path in parts for i in range(1, len(path))}, key=lambda m: (m.count("."), m))


def _some(names: Iterable[str]) -> list[str]:
    """A few names, from modules of their own."""
    return list({_module(name): name for name in sorted(names)}.values())[:5]
