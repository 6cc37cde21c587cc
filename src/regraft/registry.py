"""Names that stand for things: one small class, used wherever a user may choose by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from regraft.errors import RegraftError, closest

T = TypeVar("T")


class Registry(Generic[T]):
    """A table of names; an unknown name is an error that shows the nearest ones.

    Args:
        what: what an entry is, for messages ("recipe", "probe head").
        error: the error class that an unknown name raises.

    Example:
        >>> heads = Registry[int]("head")
        >>> heads.add("ridge", 1)
        1
        >>> heads["ridge"]
        1
    """

    def __init__(self, what: str, error: type[RegraftError] = RegraftError) -> None:
        self._what = what
        self._error = error
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Enter a name; returns the entry."""
        if name in self._entries:
            raise ValueError(f"{self._what} {name!r} is already registered")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            known = ", ".join(self._entries)
            raise self._error(f"unknown {self._what} {name!r}.{closest(name, self._entries)} Known: {known}.")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)
