"""Tables: .csv, .tsv and .jsonl with texts or with paths of files, and what they share with Parquet."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TextIO

from regraft.data.bad import UNKNOWN_SPLIT, BadExample
from regraft.data.dataset import Problem
from regraft.data.listing import SPLIT_NAMES, Listing, Row
from regraft.data.locate import FileLocator, Locator
from regraft.data.medium import MEDIA, modality_of_files
from regraft.data.task import Kind
from regraft.data.text.opening import PairLocator, TextLocator, marked, plain
from regraft.errors import DataError
from regraft.spec import Modality

CONTENT_COLUMNS: dict[Modality, tuple[str, ...]] = {
    "image": ("image", "img"),
    "text": ("text", "sentence"),
    "audio": ("audio", "sound"),
}
PATH_COLUMNS = ("path", "file_name", "filename", "file")
PAIRS = (  # the names in GLUE, SNLI and their kin
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
)
LABEL_COLUMNS = ("label", "target", "class")
PLURAL_COLUMNS = ("labels", "targets")  # of sets of labels, or of several numbers
SPLIT_COLUMNS = ("split",)

Place = tuple[str, Locator]  # the name of an example, and where it is


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what.

    Args:
        content: the examples, or their paths.
        label: the labels; empty where they are not looked at.
        split: the splits, if there are any.
        second: the second texts, of pairs.
        modality: of the examples; None if the endings of paths have to tell.
    """

    content: str
    label: str
    split: str | None = None
    second: str | None = None
    modality: Modality | None = None


def find_columns(
    path: Path,
    names: Iterable[str],
    modality: Modality | None = None,
    numbers: Collection[str] = (),
    likely: Modality | None = None,
    labelled: bool = True,
) -> Columns:
    """The columns to read, whatever their case.

    Args:
        path: of the table, for messages.
        names: of its columns.
        modality: what to look for; None takes what there is.
        numbers: names of columns that hold numbers.
        likely: what the cells seem to hold, for messages.
        labelled: whether labels and splits are looked for.

    Raises:
        DataError: no column for examples or labels, or columns for more than one modality.
    """
    held = {name.strip().lower(): name for name in reversed(list(names))}
    label = _first((*LABEL_COLUMNS, *PLURAL_COLUMNS), held) if labelled else ""
    pair = next((pair for pair in PAIRS if held.keys() >= set(pair)), None)
    content: dict[Modality, str] = {
        kind: name for kind, wanted in CONTENT_COLUMNS.items() if (name := _first(wanted, held))
    }
    if pair:
        content["text"] = held[pair[0]]
    paths = _first(PATH_COLUMNS, held)
    kind = _kind(path, content, paths, modality)
    chosen = content.get(kind, paths) if kind else paths
    if chosen is None and modality and content and labelled:
        raise _not_there(path, modality, content)
    if chosen is None or label is None:
        raise _no_columns(path, list(reversed(held.values())), chosen, label, kind or likely, numbers)
    second = held[pair[1]] if pair and kind == "text" else None
    return Columns(chosen, label, _first(SPLIT_COLUMNS, held) if labelled else None, second, kind)


def label_name(value: Any) -> str | tuple[str, ...] | None:
    """A label as text, or several of a list; None if there is none."""
    if isinstance(value, list):
        names = [label_name(one) for one in value]
        return None if not all(isinstance(name, str) for name in names) else tuple(map(str, names))
    if value is None or value == "" or value != value or isinstance(value, dict):  # NaN differs from itself
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return plain(str(value)).strip() or None


def enter(
    listing: Listing,
    name: str,
    record: Mapping[Any, Any],
    columns: Columns,
    locate: Callable[[], Place],
    label: Callable[[Any], str | tuple[str, ...] | None] = label_name,
    default: str | None = None,
) -> None:
    """One row into the listing, or what is the matter with it.

    Args:
        listing: of the table.
        name: of the row, for people, if it cannot be used.
        record: its cells.
        columns: which of them are which.
        locate: gives the example's name and place; raises BadExample.
        label: gives the label that a cell says, or None. Who asked for a multilabel task means by an empty cell that
            no label holds.
        default: the split, where the row names none.
    """
    try:
        shown, locator = locate()
        found = _label_in(record, columns.label, listing.kind, label) if columns.label else ()
        split = _split(record.get(columns.split)) if columns.split else None
    except BadExample as error:
        listing.bad.append(Problem(error.kind, name, error.detail))
    else:
        listing.rows.append(Row(shown, locator, found, split or default))


def _label_in(
    record: Mapping[Any, Any], column: str, kind: Kind | None, label: Callable[[Any], str | tuple[str, ...] | None]
) -> str | tuple[str, ...]:
    cell = record.get(column)
    found = () if kind == "multilabel" and cell in (None, "") else label(cell)
    if found is None:
        raise BadExample("no label", f"the cell says {cell!r}" if cell else _empty(column))
    return found


def _empty(column: str) -> str:
    plural = column.strip().lower() in PLURAL_COLUMNS
    return "the cell is empty" + ("; if that means none of the labels: --task multilabel" if plural else "")


def holds_texts(columns: Columns) -> bool:
    """Whether the cells are texts, rather than paths of files."""
    return columns.modality == "text" and columns.content.strip().lower() not in PATH_COLUMNS


def text_locator(record: Mapping[Any, Any], columns: Columns) -> TextLocator | PairLocator:
    """The text or the pair of a row.

    Raises:
        BadExample: a cell is empty, or holds no text.
    """
    first = _text(record.get(columns.content))
    return TextLocator(first) if columns.second is None else PairLocator(first, _text(record.get(columns.second)))


def file_locator(table: Path, value: Any, columns: Columns) -> FileLocator:
    """The file that a row names, relative to the table's folder; blanks around its path do not count.

    Raises:
        BadExample: the cell is empty.
        UnicodeError: the table is not UTF-8, so that no file can be meant.
    """
    named = str(value or "").strip()
    if not named:
        raise BadExample(f"no {MEDIA[columns.modality or 'image'].noun}", "the cell is empty")
    named.encode()
    return FileLocator(str(table.parent / named))


def finish(listing: Listing, columns: Columns | None) -> Listing:
    """The listing, once all of its rows are known: its modality, and labels of one kind.

    Raises:
        DataError: files of more than one modality.
    """
    if columns:
        paths = (row.locator.path for row in listing.rows if isinstance(row.locator, FileLocator))
        listing.modality = columns.modality or modality_of_files(paths, listing.name)
        listing.label = columns.label
    if listing.classes is None:
        _set_strays_apart(listing)
    return listing


def list_table(
    path: Path, modality: Modality | None = None, kind: Kind | None = None, *, labelled: bool = True
) -> Listing:
    """Every row of a .csv, .tsv or .jsonl file; paths of files are relative to the table's folder."""
    listing = Listing(path.stem, kind=kind, labelled=labelled)
    columns: Columns | None = None
    try:
        for number, record in enumerate(_jsonl(path) if path.suffix.lower() == ".jsonl" else _csv(path)):
            columns = columns or find_columns(
                path, record, modality, _numbers(record), _likely(record), labelled=labelled
            )
            _add(listing, path, number, record, columns)
        if columns is None:
            raise _no_rows(path, modality, labelled)
    except UnicodeError as error:
        raise DataError(
            f"{path} is not a text table ({_undecodable(error)}). Expected UTF-8; save it as CSV UTF-8"
        ) from error
    if holds_texts(columns):
        listing.encoding = _encoding(path)
    return finish(listing, columns)


def _no_rows(path: Path, modality: Modality | None, labelled: bool) -> DataError:
    """What is missing in a table of no rows: the columns, or all but the columns."""
    if path.suffix.lower() == ".jsonl" or not (names := _header(path)):
        return DataError(f"{path} has no rows. Expected {_sample(path, kind=modality)}")
    columns = find_columns(path, names, modality, labelled=labelled)
    noun = MEDIA[columns.modality].noun if columns.modality else "file"
    return DataError(f"{path} has no rows. Expected one for each {noun}, below the first line: {','.join(names)}")


def _undecodable(error: UnicodeError) -> str:
    """What is no text; of a cell whose bytes Python has marked, the byte that was there."""
    if not isinstance(error, UnicodeEncodeError):
        return str(error)
    cell, mark = error.object.encode("utf-8", "replace").decode(), ord(error.object[error.start])
    if not 0xDC80 <= mark <= 0xDCFF:
        return f"character {error.start} of {cell!r} is half of a pair"
    return f"the byte 0x{mark - 0xDC00:02X} in {cell!r} is not UTF-8"


def _add(listing: Listing, table: Path, number: int, record: Mapping[Any, Any], columns: Columns) -> None:
    name, value = f"{table.name}#{number}", record.get(columns.content)
    if None in record:  # where csv puts cells that no column is left for
        detail = f"it has {len(record[None])} cells too many; put texts with separators into quotation marks"
        listing.bad.append(Problem("extra cells", name, detail))
    elif holds_texts(columns):
        enter(listing, name, record, columns, lambda: (name, text_locator(record, columns)))
    else:
        if isinstance(value, Mapping):  # the struct that Hugging Face datasets writes
            value = value.get("path")
        enter(listing, name, record, columns, lambda: (str(value).strip(), file_locator(table, value, columns)))


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN differs from itself
        raise BadExample("empty text", "the cell is empty")
    if not isinstance(value, str | int | float):
        raise BadExample("not a text", f"the cell holds a {type(value).__name__}")
    return str(value)


def _split(value: Any) -> str | None:
    """One of the splits, or None where the cell is empty."""
    text = str(value or "").strip().lower()
    if text and text not in SPLIT_NAMES:
        raise BadExample(UNKNOWN_SPLIT, f"there is no split {text!r}, expected one of {', '.join(SPLIT_NAMES)}")
    return SPLIT_NAMES[text] if text else None


def _set_strays_apart(listing: Listing) -> None:
    """Numbers among words, or words among numbers, are two ways of labelling in one table: the fewer are bad."""
    lists = [row for row in listing.rows if isinstance(row.label, tuple)]
    if listing.kind or 2 * len(lists) > len(listing.rows):
        return  # any number of labels may hold, or numbers are wanted
    listing.rows = [row for row in listing.rows if not isinstance(row.label, tuple)]
    detail = "the cell holds a list, and most others hold one label"
    listing.bad += [Problem("no label", row.name, detail) for row in lists]
    numbers = [row for row in listing.rows if _is_number(row.label)]
    words = len(listing.rows) - len(numbers)
    if not numbers or not words:
        return
    kind, others = ("word", "numbers") if words < len(numbers) else ("number", "words")
    strays = [row for row in listing.rows if _is_number(row.label) == (kind == "number")]
    listing.rows = [row for row in listing.rows if _is_number(row.label) != (kind == "number")]
    detail = f"is a {kind}, and {len(listing.rows)} other labels are {others}; label all of them alike"
    listing.bad += [Problem("mixed labels", row.name, f"the label {row.label!r} {detail}") for row in strays]


def _is_number(label: str | tuple[str, ...]) -> bool:
    try:
        float(str(label))
    except ValueError:
        return False
    return True


def _numbers(record: Mapping[Any, Any]) -> list[str]:
    """Columns that hold numbers, judging by one row."""
    return [name for name, value in record.items() if name is not None and _is_number(str(value))]


def _kind(path: Path, content: dict[Modality, str], paths: str | None, modality: Modality | None) -> Modality | None:
    """What the table holds; None where the endings of paths have to tell."""
    if modality:
        return modality
    told = [*content.values(), *([paths] if paths and content.keys() <= {"text"} else [])]
    if len(told) > 1:
        raise DataError(
            f"{path} has columns of more than one kind: {', '.join(told)}. "
            f"Say which: read({str(path)!r}, modality={next(iter(content))!r})"
        )
    return next(iter(content), None)


def _not_there(path: Path, asked: Modality, content: Mapping[Modality, str]) -> DataError:
    """A person asked for examples of one kind, and the table holds another."""
    held = " and ".join(f"a {MEDIA[kind].noun} column, {name!r}" for kind, name in content.items())
    return DataError(
        f"--modality {asked} asks for {MEDIA[asked].noun}s, and {path} has {held}. Leave it out: read({str(path)!r})"
    )


def _no_columns(
    path: Path,
    names: list[str],
    chosen: str | None,
    label: str | None,
    kind: Modality | None,
    numbers: Collection[str],
) -> DataError:
    """Which column is missing, of a table with some names that holds examples of some kind."""
    if not all(name.isprintable() for name in names):
        return DataError(f"the first line of {path} is no text in UTF-8. Expected {_sample(path)}")
    shown = ", ".join(names[:20]) or "(none)"
    if chosen is None and len(numbers) > 1:
        return DataError(
            f"{path} is a table of numbers ({shown}). Pretrained networks have nothing to transfer to it; "
            "gradient-boosted trees or a linear model do well: sklearn.ensemble.HistGradientBoostingClassifier()"
        )
    kinds = " or ".join(
        f"a {MEDIA[one].noun} column ({' | '.join(c)})" for one, c in CONTENT_COLUMNS.items() if kind in (None, one)
    )
    examples = f"{kinds} or a column of paths ({' | '.join(PATH_COLUMNS)})"
    labels = f"a label column ({' | '.join(LABEL_COLUMNS)})"
    missing = ", and ".join(wanted for wanted, found in ((examples, chosen), (labels, label)) if found is None)
    return DataError(f"{path} has the columns {shown}. Expected {missing}; {_sample(path, chosen, label, kind)}")


def _sample(path: Path, content: str | None = None, label: str | None = None, kind: Modality | None = None) -> str:
    """How a table may begin, with the columns that are there already; an empty label is not wanted."""
    contents = [content] if content else [c[0] for one, c in CONTENT_COLUMNS.items() if kind in (None, one)]
    labels = [] if label == "" else [label or LABEL_COLUMNS[0]]
    samples = [[name, *labels] for name in contents]
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        return "lines such as " + " or ".join(json.dumps(dict.fromkeys(sample, "...")) for sample in samples)
    start = ("columns" if labels else "a column") + " such as " if suffix == ".parquet" else "a first line such as: "
    return start + " or ".join(",".join(sample) for sample in samples)


def _likely(record: Mapping[Any, Any]) -> Modality | None:
    """What a row seems to hold, by the endings of its cells; words with blanks between them are text."""
    cells = [cell for cell in record.values() if isinstance(cell, str)]
    endings = {PurePath(cell.strip()).suffix.lower() for cell in cells}
    named: Modality | None = next((medium.modality for medium in MEDIA.values() if medium.suffixes & endings), None)
    if named is None and any(" " in cell.strip() for cell in cells):
        return "text"
    return named


def _header(path: Path) -> list[str]:
    with _opened(path) as file:
        return list(_reader(path, file).fieldnames or ())


def _reader(path: Path, file: TextIO) -> csv.DictReader[Any]:
    header = file.readline()
    file.seek(0)
    separators = "\t" if path.suffix.lower() == ".tsv" else ",;\t"
    return csv.DictReader(file, delimiter=max(separators, key=header.count), strict=True)


def _csv(path: Path) -> Iterator[dict[Any, Any]]:
    with _opened(path) as file, _cells_of_any_length():
        records = _reader(path, file)
        try:
            yield from records
        except csv.Error as error:  # without strict, a mark that is never closed swallows the rows after it
            raise DataError(
                f"after line {records.line_num}, {path} does not split into cells ({error}). Expected quotation marks "
                f'around the whole cell, and doubled inside: "a ""fine"" film",good'
            ) from error


def _jsonl(path: Path) -> Iterator[dict[Any, Any]]:
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            record = _json_object(line)
            if record is None:
                raise DataError(
                    f"line {number} of {path} is not a JSON object. "
                    'Expected one per line: {"text": "a good film", "label": "positive"}'
                )
            yield record


def _opened(path: Path) -> TextIO:
    """The file as text. Bytes that are not UTF-8 are marked, so that each row is judged by itself."""
    named = _encoding(path)
    if named and named != "utf-8-sig":
        return path.open(newline="", encoding=named)
    return path.open(newline="", encoding="utf-8-sig", errors="surrogateescape")


def _encoding(path: Path) -> str:
    """The encoding that the first bytes name, if any."""
    with path.open("rb") as file:
        return marked(file.read(4)) or ""


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """csv refuses cells above 128 kB; a document may be longer."""
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _json_object(line: str) -> dict[Any, Any] | None:
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _first(wanted: Iterable[str], held: Mapping[str, str]) -> str | None:
    return next((held[name] for name in wanted if name in held), None)
