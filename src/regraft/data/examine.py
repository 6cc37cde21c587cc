"""The one pass over the bytes: content key, how large it is and of what kind, and whether it is whole."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from sys import intern

from regraft.data.bad import BadExample, broken
from regraft.data.dataset import Problem
from regraft.data.decode import n_workers
from regraft.data.listing import Row
from regraft.data.locate import Locator
from regraft.data.medium import Medium

_CHUNK = 64  # rows per task: one task per row would queue more memory than the examples take


@dataclass(frozen=True, slots=True)
class Seen:
    """What the pass learns of one example; see `Example`."""

    key: str
    width: int
    height: int
    mode: str


def examine(rows: Sequence[Row], medium: Medium, workers: int | None = None) -> list[Seen | Problem]:
    """Looks at every row on all cores; in order.

    Args:
        rows: what to look at.
        medium: what they hold.
        workers: threads; None takes one per core.
    """
    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    with ThreadPoolExecutor(workers or n_workers()) as pool:
        return [seen for part in pool.map(lambda chunk: _examine_chunk(chunk, medium), chunks) for seen in part]


def _examine_chunk(rows: Sequence[Row], medium: Medium) -> list[Seen | Problem]:
    return [_examine_row(row, medium) for row in rows]


def _examine_row(row: Row, medium: Medium) -> Seen | Problem:
    try:
        return _see(row.locator, medium)
    except (BadExample, OSError) as error:
        found = broken(error)
        return Problem(found.kind, row.name, found.detail)


def _see(locator: Locator, medium: Medium) -> Seen:
    content = locator.content()
    width, height, mode = medium.look(medium.open(locator, content), content)
    return Seen(medium.key(locator, content), width, height, intern(mode))
