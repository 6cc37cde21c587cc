"""The one pass over the bytes: content key, size and kind from the header, and whether the end is there."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from sys import intern

from regraft.data.dataset import Problem
from regraft.data.decode import n_workers
from regraft.data.listing import Row
from regraft.data.locate import Locator
from regraft.data.picture import BadPicture, broken, confirm_whole
from regraft.digest import digest_bytes

_CHUNK = 64  # rows per task: one task per row would queue more memory than the examples take


@dataclass(frozen=True, slots=True)
class Seen:
    """What the pass learns of one picture."""

    key: str
    width: int
    height: int
    mode: str


def examine(rows: Sequence[Row], workers: int | None = None) -> list[Seen | Problem]:
    """Looks at every row on all cores; in order.

    Args:
        rows: what to look at.
        workers: threads; None takes one per core.
    """
    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    with ThreadPoolExecutor(workers or n_workers()) as pool:
        return [seen for part in pool.map(_examine_chunk, chunks) for seen in part]


def _examine_chunk(rows: Sequence[Row]) -> list[Seen | Problem]:
    return [_examine_row(row) for row in rows]


def _examine_row(row: Row) -> Seen | Problem:
    try:
        return _see(row.locator)
    except (BadPicture, OSError) as error:
        found = broken(error)
        return Problem(found.kind, row.name, found.detail)


def _see(locator: Locator) -> Seen:
    content = locator.content()
    with locator.image(content) as image:
        width, height, mode = *image.size, intern(image.mode)
        confirm_whole(image, content)
    return Seen(digest_bytes(content), width, height, mode)
