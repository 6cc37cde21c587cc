"""Schemes that other packages bring: entry points of the group `regraft.sources`, loaded when they are first used.

    [project.entry-points."regraft.sources"]
    zoo = "my_zoo.regraft:open_zoo"

`open_zoo(name, request)` opens `zoo:NAME` as a `Source`. Its module enters the architecture of the same name, so that a
saved model is built again without the weights: `ARCHITECTURES.add("zoo", build_zoo)`.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from regraft.errors import SourceError

GROUP = "regraft.sources"


@lru_cache
def plugin(scheme: str) -> Any:
    """What another package registered for a scheme; None where none did.

    Raises:
        SourceError: the package that promises it cannot be imported.

    Example:
        >>> plugin("no-such-scheme") is None
        True
    """
    found = tuple(entry_points(group=GROUP, name=scheme))
    if len(found) > 1:
        names = ", ".join(entry.value for entry in found)
        raise SourceError(f"several packages bring sources of kind {scheme + ':'!r} ({names}). Uninstall all but one")
    return _loaded(scheme, found[0]) if found else None


def _loaded(scheme: str, entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:  # a stranger's module may fail in any way
        raise SourceError(
            f"sources of kind {scheme + ':'!r} come from {entry.value}, which cannot be imported "
            f"({type(error).__name__}: {error}). Reinstall that package, or try: python -c 'import {entry.module}'"
        ) from error


def plugin_names() -> tuple[str, ...]:
    """The schemes that other packages bring."""
    return tuple(sorted(entry_points(group=GROUP).names))
