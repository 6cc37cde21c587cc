"""Patterns over names of tensors: what they match, and the refusal where that is nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from itertools import chain

from regraft.errors import RecipeError, did_you_mean

MOST_NEAR = 3  # names that a message shows


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
    near = did_you_mean(nearest(pattern, names)) or f" Names are such as {', '.join(_some(names))}."
    raise RecipeError(f"{field} = {pattern!r} matches no tensor.{near} `regraft inspect SOURCE` lists the layers.")


def _module(name: str) -> str:
    return name.rpartition(".")[0] or name


def nearest(pattern: str, names: Iterable[str]) -> list[str]:
    """Parts of names that resemble a regular expression, one word of it after the other; none if none does.

    Each alternative is a word, without what is special in it. As a pattern is looked for anywhere in a name, so is the
    word: it is compared with all runs of as many parts between dots as it has.

    Example:
        >>> nearest("^hiden[12]|atn", ["enc.hidden1.weight", "enc.hidden2.weight", "enc.attn.weight"])
        ['hidden2', 'hidden1', 'attn']
    """
    words = [word.strip(".") for word in re.sub(r"\\[a-zA-Z]|[^\w.|]", "", pattern).split("|")]
    paths = [name.split(".") for name in names]
    near = [get_close_matches(word, _runs(paths, word.count(".") + 1), n=MOST_NEAR) for word in words]
    return list(dict.fromkeys(chain(*near)))[:MOST_NEAR]


def _runs(paths: Iterable[list[str]], length: int) -> set[str]:
    """All stretches of so many parts, as they stand in names."""
    return {".".join(path[i : i + length]) for path in paths for i in range(len(path) - length + 1)}


def _some(names: Iterable[str]) -> list[str]:
    """A few names, from modules of their own."""
    return list({_module(name): name for name in sorted(names)}.values())[:5]
