"""What a reader finds before any example is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from regraft.data.dataset import Problem
from regraft.data.locate import Locator, printable
from regraft.data.task import Kind
from regraft.spec import Modality

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
SPLIT_NAMES = {  # what people call them, in folders, files and cells
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "holdout", "eval"), "test"),
}


def is_shown(name: str) -> bool:
    """Whether a file or folder was put there by a person: not hidden, nor what macOS adds to archives."""
    return not name.startswith(".") and name != "__MACOSX"


def folder_name(folder: Path) -> str:
    """What a folder is called, be it written as "." or "..".

    Example:
        >>> folder_name(Path("photos/cats/.."))
        'photos'
    """
    return folder.resolve().name if folder.name in ("", "..") else folder.name


def or_table(folder: Path) -> str:
    """The table that lies in a folder, as what may have been meant instead; empty if there is none."""
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() in TABLES and is_shown(path.name))
    return f", or the table in it: read({str(tables[0])!r})" if tables else ""


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled example that has not been opened yet; `split` is None where none was given.

    The label of a cell that held a list is a tuple; that of a row nobody labelled an empty one.
    """

    name: str
    locator: Locator
    label: str | tuple[str, ...]
    split: str | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))


@dataclass
class Listing:
    """Rows as a reader found them.

    Args:
        name: of the dataset, for people.
        modality: of the rows.
        rows: in a stable order.
        classes: names in the order that the data itself declares; None sorts them.
        bad: rows that cannot be used.
        notes: what a person should know.
        label: name of the label column; empty where the data are no table.
        encoding: of the table that holds the texts; empty where texts have encodings of their own.
        kind: of task, where the data themselves declare it.
        labelled: whether rows must have labels; else labels and splits are not looked at.
    """

    name: str
    modality: Modality = "image"
    rows: list[Row] = field(default_factory=list)
    classes: tuple[str, ...] | None = None
    bad: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    label: str = ""
    encoding: str = ""
    kind: Kind | None = None
    labelled: bool = True

    def __post_init__(self) -> None:
        self.name = printable(self.name)

    def mode(self, seen: str) -> str:
        """What a text is said to be encoded in; cells that stand as UTF-8 in memory came in the table's own."""
        return self.encoding if self.encoding and seen == "utf-8" else seen

    def class_names(self, present: set[str]) -> tuple[str, ...]:
        """The classes that have examples: in the declared order, else numbers by value, words by letter."""
        if self.classes is not None:
            return tuple(name for name in self.classes if name in present)
        whole_numbers = all(name.lstrip("-").isdecimal() for name in present)
        return tuple(sorted(present, key=int if whole_numbers else None))
