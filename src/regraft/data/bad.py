"""Examples that cannot be used, whatever their modality."""

from __future__ import annotations

MISSING = "missing"  # kinds of problems that are told in another way when there are many
UNKNOWN_SPLIT = "unknown split"
CUT = "the end of the file is missing"


class BadExample(Exception):  # noqa: N818  (it reads as what it is)
    """Bytes that are not a usable picture, text or recording.

    Args:
        kind: one of the kinds of a `Problem`.
        detail: what is the matter, in words.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


def broken(error: Exception) -> BadExample:
    """What an error while decoding means."""
    if isinstance(error, BadExample):
        return error
    if isinstance(error, FileNotFoundError):
        return BadExample(MISSING, "there is no such file")
    if "truncated" in str(error).lower() or isinstance(error, EOFError):
        return BadExample("truncated", CUT)
    return BadExample("unreadable", f"it does not decode ({error})")
