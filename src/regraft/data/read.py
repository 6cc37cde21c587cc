"""The door: whatever holds labelled examples becomes a Dataset, or one error that says all that is wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regraft.data.absent import absent_files
from regraft.data.arrays import list_arrays, list_digits
from regraft.data.audio.speakers import speaker_problems
from regraft.data.check import complaint, fatal, notes, together
from regraft.data.dataset import Dataset, Example, Problem
from regraft.data.examine import Seen, examine
from regraft.data.folder import list_folder, list_unlabelled
from regraft.data.hub import HUB, hub_folder, hub_name
from regraft.data.listing import TABLES, Listing, Row, is_shown, or_table
from regraft.data.medium import MEDIA
from regraft.data.parquet import list_parquet, list_parquet_folder, parquet_files
from regraft.data.splits import draw
from regraft.data.table import list_table
from regraft.data.targets import Targets, find_targets, scarce, unlearnable
from regraft.data.task import KINDS, Kind, Task
from regraft.errors import DataError, closest
from regraft.spec import Modality

Arrays = tuple[Any, Any]


def read(
    where: str | Path | Arrays,
    *,
    skip_bad: bool = False,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    modality: Modality | None = None,
    task: Kind | None = None,
) -> Dataset:
    """Labelled pictures, texts or recordings from a folder, a table, arrays, or a built-in set.

    Every example's bytes are read once: hashed, opened, checked to their end. Pixels are not decoded.

    Args:
        where: a folder `root/{train,val,test}/CLASS/*` or `root/CLASS/*`; a .csv, .tsv, .jsonl or .parquet file
            with a column of pictures, texts, pairs of texts, recordings or paths, a label column and perhaps a
            split column; a folder of .parquet files; "hub:OWNER/NAME" (a set of the Hugging Face hub, as
            `hub_folder` takes it); "digits" (scikit-learn's); arrays (X, y) with X uint8 or
            float 0..1, (N, H, W), (N, H, W, C) or (N, C, H, W); or lists (texts, labels) or (files, labels).
        skip_bad: leave out what cannot be used, and list it in `Dataset.problems`, instead of raising.
        val_fraction: drawn for validation, of what came without a split or as training, if none was given.
        test_fraction: likewise for test.
        modality: "image", "text" or "audio"; None goes by the column or by the files' endings.
        task: "classification", "multilabel" or "regression"; None goes by the labels.

    Raises:
        DataError: everything that is wrong, in one message.

    Example:
        >>> digits = read("digits")
        >>> len(digits), digits.sizes().width, list(digits.counts())
        (1797, (8, 8, 8), ['train', 'val', 'test'])
    """
    _check_fractions(val_fraction, test_fraction)
    _check_task(task)
    listing, shown = _list(where, modality, task), _shown(where)
    medium, in_table = MEDIA[listing.modality], bool(listing.label)
    looked = examine(listing.rows, medium)
    bad, good = _sorted_out(listing, looked)
    hints = absent_files(listing.rows, looked, medium) if in_table else []

    def check(wrong: Sequence[str]) -> None:
        if said := complaint(bad, len(bad) + len(good), wrong, shown, medium.noun, hints, skip_bad):
            raise DataError(said)

    if not good:
        check(())
    targets = find_targets(listing, [row.label for row, _ in good], task, shown)
    if isinstance(targets, str):
        raise DataError(targets)
    classes, plain = targets.names, targets.kind == "classification"
    examples = _examples(good, listing, targets, val_fraction, test_fraction)
    known = [*together(bad), *listing.notes, *targets.notes]
    check(
        fatal(classes, examples, shown, medium.noun, in_table, known)
        if plain
        else unlearnable(targets, examples, shown)
    )
    problems = [*known, *notes(classes, examples, medium, targets.kind), *scarce(targets, examples, medium.noun)]
    if listing.modality == "audio":
        problems += speaker_problems(listing.name, classes, examples)
    found = Dataset(listing.name, classes, examples, tuple(problems), listing.modality, Task(targets.kind))
    return found.rescaled()


def read_unlabelled(
    where: str | Path | Arrays,
    *,
    skip_bad: bool = False,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    modality: Modality = "image",
) -> Dataset:
    """Examples whose labels, where they have any, are not looked at: for pretraining without them.

    Args:
        where: a folder with examples below it, in class folders or not; else what `read` takes. Labels of arrays,
            built-in sets and folders of .parquet files are read over.
        skip_bad: as in `read`.
        val_fraction: likewise.
        test_fraction: likewise.
        modality: "image", "text" or "audio".

    Raises:
        DataError: everything that is wrong, in one message.

    Example:
        >>> read_unlabelled("digits").classes
        ()
    """
    _check_fractions(val_fraction, test_fraction)
    listing, medium, shown = _list_unlabelled(where, modality), MEDIA[modality], _shown(where)
    bad, good = _sorted_out(listing, examine(listing.rows, medium))
    if said := complaint(bad, len(bad) + len(good), (), shown, medium.noun, [], skip_bad):
        raise DataError(said)
    splits = draw(
        [s.key for _, s in good], [0] * len(good), [row.split for row, _ in good], val_fraction, test_fraction
    )
    examples = tuple(
        Example(seen.key, 0, split, row.name, row.locator, seen.width, seen.height, listing.mode(seen.mode))
        for (row, seen), split in zip(good, splits, strict=True)
    )
    return Dataset(listing.name, (), examples, (*together(bad), *listing.notes), modality)


def unlabelled(path: Path, modality: Modality) -> Listing:
    """Every row of a table of pictures, texts or recordings to predict; labels and splits are not looked at.

    Raises:
        DataError: it has no column of that modality.
    """
    return _list_file(path, modality, None, labelled=False)


def _sorted_out(listing: Listing, looked: Sequence[Seen | Problem]) -> tuple[list[Problem], list[tuple[Row, Seen]]]:
    """What cannot be used, and the rows that can."""
    bad = listing.bad + [found for found in looked if isinstance(found, Problem)]
    return bad, [(row, seen) for row, seen in zip(listing.rows, looked, strict=True) if isinstance(seen, Seen)]


def _examples(
    good: Sequence[tuple[Row, Seen]], listing: Listing, targets: Targets, val_fraction: float, test_fraction: float
) -> tuple[Example, ...]:
    keys, given = [seen.key for _, seen in good], [row.split for row, _ in good]
    splits = draw(keys, targets.strata, given, val_fraction, test_fraction)
    labels = targets.strata if targets.kind == "classification" else (0,) * len(good)
    return tuple(
        Example(seen.key, label, split, row.name, row.locator, seen.width, seen.height, listing.mode(seen.mode), target)
        for (row, seen), label, split, target in zip(good, labels, splits, targets.values, strict=True)
    )


def _list(where: str | Path | Arrays, modality: Modality | None, task: Kind | None) -> Listing:
    """The reader that fits."""
    if isinstance(where, tuple):
        return _filled(list_arrays(*where, kind=task), "the arrays", "one label for each example: read((X, y))")
    if str(where) == "digits":
        return list_digits()
    if isinstance(where, str) and where.startswith(HUB):
        listing = list_parquet_folder(hub_folder(where), modality, task)
        listing.name = hub_name(where)
        return listing
    path = Path(where).expanduser()
    if not path.exists():
        raise _absent(str(where), path)
    if path.is_dir():
        tables = parquet_files(path)
        listing = list_parquet_folder(path, modality, task) if tables else list_folder(path, modality)
        expected = f"one folder per class: {path}/CLASS/{MEDIA[listing.modality].sample}{or_table(path)}"
        return _filled(listing, str(path), expected)
    listing = _list_file(path, modality, task)
    if not listing.rows and not listing.bad:
        raise DataError(f"{path} has no rows. Expected one for each example, with columns such as: image, label")
    return listing


def _list_unlabelled(where: str | Path | Arrays, modality: Modality) -> Listing:
    if not isinstance(where, tuple):
        path = Path(where).expanduser()
        if path.is_file():
            return unlabelled(path, modality)
        if path.is_dir() and not parquet_files(path):
            found = list_unlabelled(path, modality)
            return _filled(found, str(path), f"{MEDIA[modality].noun}s somewhere below it")
    return _list(where, modality, None)


def _shown(where: str | Path | Arrays) -> str:
    return repr(str(where)) if isinstance(where, str | Path) else "(X, y)"


def _list_file(path: Path, modality: Modality | None, task: Kind | None, *, labelled: bool = True) -> Listing:
    kind = path.suffix.lower()
    if kind in TABLES:
        reader = list_parquet if kind == ".parquet" else list_table
        return reader(path, modality, task, labelled=labelled)
    raise DataError(
        f"{path} is a file of kind {kind or '(none)'}. "
        f"Expected a folder, .csv, .tsv, .jsonl or .parquet: read({str(path.parent)!r})"
    )


def _check_task(task: str | None) -> None:
    if task is not None and task not in KINDS:
        raise DataError(f"there is no task {task!r}.{closest(task, KINDS)} Expected one of: {', '.join(KINDS)}")


def _filled(listing: Listing, what: str, expected: str) -> Listing:
    if not listing.rows and not listing.bad:
        raise DataError(f"{what} has no {MEDIA[listing.modality].noun}s. Expected {expected}")
    return listing


def _absent(where: str, path: Path) -> DataError:
    scheme = re.match(r"([a-z][a-z0-9+]+):", where)
    if scheme:
        return DataError(
            f"{where!r}: data is not read from {scheme[1]}:, only from hub:. Download it as a folder of class folders "
            "or as Parquet files, then read the folder: read('my_data')"
        )
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    names = sorted(f.name for f in beside if is_shown(f.name) and (f.is_dir() or f.suffix.lower() in TABLES))
    near = closest(path.name, ["digits", *names], cutoff=0.65)
    return DataError(
        f"there is no {where!r}.{near} Expected a folder, a .csv, .jsonl or .parquet file, or 'digits': "
        "read('my_photos')"
    )


def _check_fractions(val: float, test: float) -> None:
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise DataError(
            f"val_fraction {val} and test_fraction {test} leave nothing to train on. Expected two fractions "
            "that add up to less than 1: read(where, val_fraction=0.2, test_fraction=0.2)"
        )
