"""What a person sees: progress and sentences on standard error, results on standard output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table


class Terminal:
    """A listener that draws progress bars and prints sentences on standard error."""

    def __init__(self, console: Console, bars: Progress) -> None:
        self._console = console
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def say(self, text: str) -> None:
        """Print one sentence above the bars."""
        self._console.print(text, highlight=False, markup=False)

    def progress(self, what: str, done: int, total: int) -> None:
        """Move the bar of this kind of work; one that is full disappears."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total, visible=done < total)


@contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal listener; its bars vanish at the end, its sentences stay."""
    console = Console(stderr=True, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        yield Terminal(console, bars)


def print_result(value: Any) -> None:
    """The result of a command as JSON, the only thing on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def table(*columns: str, title: str | None = None, caption: str | None = None) -> Table:
    """An empty table; a column whose name ends in ">" is aligned to the right."""
    made = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for column in columns:
        justify = "right" if column.endswith(">") else "left"
        made.add_column(column.removesuffix(">"), justify=justify, overflow="fold")  # names that differ at their ends
    return made


def table_console() -> Console:
    """A console on standard output for tables; never narrower than a table needs when piped."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)
