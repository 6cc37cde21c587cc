"""Files that a table names and that are not there: where they were looked for, and what may be the matter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath

from regraft.data.bad import MISSING
from regraft.data.dataset import Problem
from regraft.data.examine import Seen
from regraft.data.listing import Row
from regraft.data.locate import FileLocator
from regraft.data.medium import Medium

_ADDRESS = re.compile(r"\bhttps?:/")  # a path keeps one of the two slashes


def absent_files(rows: Sequence[Row], looked: Sequence[Seen | Problem], medium: Medium) -> list[str]:
    """What the files that are not there have in common, in a line; nothing, if all are there.

    Args:
        rows: of a table.
        looked: what was found of each.
        medium: what the files should hold.
    """
    absent = [
        row.locator.path
        for row, found in zip(rows, looked, strict=True)
        if isinstance(found, Problem) and found.kind == MISSING and isinstance(row.locator, FileLocator)
    ]
    if not absent:
        return []
    where = f"Paths are relative to the folder of the table: the first was looked for at {absent[0]}"
    return [". ".join([where, *_clues(absent, medium)])]


def _clues(paths: Sequence[str], medium: Medium) -> Iterator[str]:
    def some(fits: Callable[[str], object]) -> list[str]:
        return [path for path in paths if fits(path)]

    if found := some(_ADDRESS.search):
        yield f"{len(found)} are addresses, and nothing is downloaded: save the files and write where they are"
        return
    if found := some(lambda path: "\\" in path):
        there = [path for path in found if Path(path.replace("\\", "/")).is_file()]
        yield f"{len(found)} have backslashes{f' ({len(there)} would be found without)' if there else ''}: write /"
    if found := some(lambda path: not PurePath(path).suffix):
        ending = next((end for end in sorted(medium.suffixes) if Path(f"{found[0]}{end}").is_file()), None)
        nearby = f", and there is {PurePath(found[0]).name}{ending}" if ending else ""
        yield f"{len(found)} have no ending such as {PurePath(medium.sample).suffix}{nearby}: write the whole name"
