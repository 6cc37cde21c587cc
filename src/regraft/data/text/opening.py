"""Bytes that hold a text, and texts that are in memory already, alone or in pairs."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import NamedTuple

from regraft.data.bad import BadExample

SUFFIXES = frozenset({".txt"})
# Longest first: the mark of UTF-16 begins that of UTF-32.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
FALLBACK = "cp1252"  # what editors on Windows wrote for decades: Latin-1 with quotation marks
_BETWEEN = b"\xff"  # between the texts of a pair: this byte occurs in no UTF-8


class Pair(NamedTuple):
    """Two texts of which one question is asked, such as premise and hypothesis."""

    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.first} | {self.second}"


Opened = str | Pair


@dataclass(frozen=True, slots=True)
class TextLocator:
    """A text that is in memory anyway: a cell of a table. Bytes that did not decode are marked as Python marks them."""

    text: str

    def content(self) -> bytes:
        return _as_bytes(self.text)


@dataclass(frozen=True, slots=True)
class PairLocator:
    """Two texts that are in memory anyway: two cells of a row."""

    first: str
    second: str

    def content(self) -> bytes:
        return _BETWEEN.join(part.encode() for part in self.opened())

    def opened(self, content: bytes = b"") -> Pair:
        return Pair(plain(self.first), plain(self.second))


def marked(content: bytes) -> str | None:
    """The encoding that a byte order mark at the beginning names."""
    return next((encoding for mark, encoding in _MARKS if content.startswith(mark)), None)


def encoding_of(content: bytes) -> str:
    """The encoding of a text: as its byte order mark says, else UTF-8, else Windows-1252.

    Raises:
        BadExample: none of them fits, or it is not a text at all.
    """
    named = marked(content)
    first = named or "utf-8"
    failure = _failure(content, first)
    if not failure:
        return first
    if named:
        raise BadExample("broken encoding", f"byte {failure.start} is not {named}, as its first bytes promise")
    if not content.decode("utf-8", "ignore").isascii():  # Windows-1252 would garble those characters silently
        raise BadExample("broken encoding", f"byte {failure.start} is not UTF-8, as the rest is; save it as UTF-8")
    failure = _failure(content, FALLBACK)
    if failure:
        raise BadExample("broken encoding", f"byte {failure.start} is not UTF-8 or Windows-1252; save it as UTF-8")
    return FALLBACK


def open_text(content: bytes) -> str:
    """The text of a file, without the mark at its beginning and the line end at its end.

    Raises:
        BadExample: nothing there, or an encoding that is not known.

    Example:
        >>> open_text("Größe\\r\\n".encode("utf-16"))
        'Größe'
    """
    if not content:
        raise BadExample("empty text", "it has no characters")
    text = content.decode(encoding_of(content))
    return text.removesuffix("\n").removesuffix("\r")


def plain_bytes(content: bytes) -> bytes:
    """The text of a file as UTF-8: the same text has the same key, however it was saved."""
    return open_text(content).encode()


def plain(cell: str) -> str:
    """A cell whose undecodable bytes Python has marked, decoded as a file of its own would be.

    Raises:
        BadExample: no known encoding fits, or half of a character that takes two (a lone surrogate of JSON).
    """
    try:
        cell.encode()
    except UnicodeEncodeError:
        return open_text(_as_bytes(cell))
    return cell


def look_at_text(text: Opened, content: bytes) -> tuple[int, int, str]:
    """Number of characters, 0, and the encoding; for pairs, the characters of both.

    Raises:
        BadExample: it has no characters but spaces, or NUL characters.
    """
    parts = text if isinstance(text, Pair) else (text,)
    for part in parts:
        if "\0" in part:
            raise BadExample("not a text", f"character {part.index(chr(0))} is NUL; save it as UTF-8 text")
        if not part.strip():
            raise BadExample("empty text", "it has no characters but spaces")
    return sum(map(len, parts)), 0, "utf-8" if isinstance(text, Pair) else encoding_of(content)


def _as_bytes(cell: str) -> bytes:
    try:
        return cell.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise BadExample("broken encoding", f"character {error.start} is half of a pair (a lone surrogate)") from error


def _failure(content: bytes, encoding: str) -> UnicodeDecodeError | None:
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        return error
