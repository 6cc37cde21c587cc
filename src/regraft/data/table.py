"""Tables: .csv and .jsonl with a picture's path and its label, and what they share with Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.data.dataset import Problem
from regraft.data.listing import SPLIT_NAMES, Listing, Row
from regraft.data.locate import FileLocator
from regraft.errors import DataError

PICTURE_COLUMNS = ("image", "path", "file_name", "filename", "file", "img")
LABEL_COLUMNS = ("label", "target", "class")
SPLIT_COLUMNS = ("split",)


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what."""

    picture: str
    label: str
    split: str | None


def find_columns(path: Path, names: Iterable[str]) -> Columns:
    """The columns to read.

    Raises:
        DataError: no column for pictures or labels.
    """
    names = list(names)
    picture, label = _first(PICTURE_COLUMNS, names), _first(LABEL_COLUMNS, names)
    if picture is None or label is None:
        others = [n for n in names if n in ("text", "sentence", "audio")]
        hint = f" Columns of kind {others[0]!r} are not read yet." if others and picture is None else ""
        raise DataError(
            f"{path} has the columns {', '.join(names) or '(none)'}.{hint} "
            f"Expected a picture column ({' | '.join(PICTURE_COLUMNS)}) and a label column "
            f"({' | '.join(LABEL_COLUMNS)}); a first line such as: image,label"
        )
    return Columns(picture, label, _first(SPLIT_COLUMNS, names))


def label_name(value: Any) -> str | None:
    """A label as text; None if there is none."""
    if value is None or value == "" or value != value:  # NaN differs from itself
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


def split_name(value: Any) -> str | None:
    """One of the splits, or None where the cell is empty.

    Raises:
        ValueError: a name that stands for no split.
    """
    text = str(value or "").strip().lower()
    if text and text not in SPLIT_NAMES:
        raise ValueError(f"unknown split {text!r}, expected one of {', '.join(SPLIT_NAMES)}")
    return SPLIT_NAMES[text] if text else None


def list_table(path: Path) -> Listing:
    """Every row of a .csv or .jsonl file; pictures are paths relative to the table's folder."""
    records = _jsonl(path) if path.suffix.lower() == ".jsonl" else _csv(path)
    listing = Listing(path.stem)
    columns: Columns | None = None
    try:
        for number, record in enumerate(records):
            columns = columns or find_columns(path, record)
            _add(listing, path, f"{path.name}#{number}", record, columns)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a text table ({error}). Expected UTF-8; save it as CSV UTF-8") from error
    return listing


def _add(listing: Listing, table: Path, name: str, record: Mapping[str, Any], columns: Columns) -> None:
    picture = record.get(columns.picture)
    if isinstance(picture, Mapping):  # the struct that Hugging Face datasets writes
        picture = picture.get("path")
    label = label_name(record.get(columns.label))
    if not picture or label is None:
        what = "no label" if picture else "no picture"
        listing.bad.append(Problem(what, name, "the cell is empty"))
        return
    try:
        split = split_name(record.get(columns.split)) if columns.split else None
    except ValueError as error:
        listing.bad.append(Problem("unknown split", name, str(error)))
        return
    listing.rows.append(Row(str(picture), FileLocator(str(table.parent / str(picture))), label, split))


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        yield from csv.DictReader(file)


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            record = _json_object(line)
            if record is None:
                raise DataError(
                    f"line {number} of {path} is not a JSON object. "
                    'Expected one per line: {"image": "cat.jpg", "label": "cat"}'
                )
            yield record


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _first(wanted: Iterable[str], names: list[str]) -> str | None:
    return next((name for name in wanted if name in names), None)
