"""From the cells of a label column to targets: which task they are, and what is wrong with them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from regraft.data.dataset import Example, Problem
from regraft.data.listing import Listing
from regraft.data.task import BETWEEN, Kind

_FEW_VALUES, _ROWS_PER_VALUE = 20, 5  # numbers that are so few, or so often the same, may be names of classes
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
_NO_NUMBER = re.compile(r"[-+]?(nan|inf|infinity)", re.IGNORECASE)
_SEPARATORS = re.compile(r"[|;]")
NUMBERS = "If they are numbers to predict: --task regression"
_SMALL = 5  # fewer training examples with a label than this leave it to luck

Label = str | tuple[str, ...]


@dataclass(frozen=True)
class Targets:
    """What the rows of a listing are to be taken for.

    Args:
        kind: of task.
        names: of the classes, the labels, or the numbers.
        values: of each row: 0 or 1 for each label, or its numbers; nothing for classes.
        strata: of each row, what splits are to hold alike: the class, or its rarest label.
        notes: what was assumed.
    """

    kind: Kind
    names: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    strata: tuple[int, ...]
    notes: tuple[Problem, ...] = ()


def find_targets(listing: Listing, labels: Sequence[Label], asked: Kind | None, where: str) -> Targets | str:
    """The targets of some rows; or, where they cannot be what was asked for, why.

    Args:
        listing: where the rows are from.
        labels: of the rows that can be used.
        asked: the task that a person named; None goes by the labels.
        where: what `read` was called with, as code.
    """
    kind, why = (asked, "") if asked else _told(listing, labels)
    notes = (Problem("task", listing.name, why),) if why else ()
    if kind == "regression":
        return _numbers(listing, labels, notes, where)
    if kind == "multilabel":
        return _label_sets(listing, [_parts(label) for label in labels], notes, where)
    if any(isinstance(label, tuple) for label in labels):
        other = "regression" if _are_measured(_all_numbers(labels)) else "multilabel"
        return f"{listing.name} has lists of labels, and a class is one of them. {_take(other, where)}"
    names = listing.class_names({str(label) for label in labels})
    index = {name: i for i, name in enumerate(names)}
    return Targets("classification", names, ((),) * len(labels), tuple(index[str(label)] for label in labels), notes)


def _take(other: Kind, where: str) -> str:
    return f"Take --task {other}: read({where}, task={other!r})"


def _told(listing: Listing, labels: Sequence[Label]) -> tuple[Kind, str]:
    """The task that labels are of, and why it is said to be that where it is not the usual one."""
    if listing.kind:
        return listing.kind, ""
    lists = any(isinstance(label, tuple) for label in labels)
    values = _all_numbers(labels)
    if _are_measured(values):
        why = "labels are numbers with fractions, so numbers are predicted: a regression task. "
        return "regression", f"{why}If they are {_otherwise(lists)}"
    numeric = f". {NUMBERS}" if _may_be_measured(_all_numbers(_mended(labels))) else ""
    if lists:
        return "multilabel", f"labels are lists, so any number of them may hold: a multilabel task{numeric}"
    if listing.label.lower() == "labels" and any(_SEPARATORS.search(str(label)) for label in labels):
        why = 'labels are separated by "|" or ";", so any number of them may hold: a multilabel task. '
        return "multilabel", f"{why}If they are {_otherwise(lists)}{numeric}"
    numeric = numeric if listing.classes is None else ""  # classes that the data declare are no measurements
    return "classification", f"labels are numbers, taken as names of classes{numeric}" if numeric else ""


def _otherwise(lists: bool) -> str:
    return "sets of labels: --task multilabel" if lists else "names of classes: --task classification"


def are_numbers(names: Iterable[str]) -> bool:
    """Whether all classes or labels read as numbers, or as several with "|" between them, but for nan or commas."""
    return bool(_all_numbers(_mended(names)))


def _mended(labels: Iterable[Label]) -> list[Label]:
    """Labels without those that stand for a number which nobody knows, and with points for decimal commas."""
    known = (label for label in labels if not _NO_NUMBER.fullmatch(str(label)))
    return [str(label).replace(",", ".") if _DECIMAL_COMMA.fullmatch(str(label)) else label for label in known]


def _how_to_write(label: str) -> str:
    """What to do about a label that is nearly a number; empty if it is none at all."""
    if _DECIMAL_COMMA.fullmatch(label):
        return f"Numbers are written with a point: write {label.replace(',', '.')}"
    return "Leave out such rows" if _NO_NUMBER.fullmatch(label) else ""


def _all_numbers(labels: Sequence[Label]) -> list[float]:
    """The numbers that labels hold, one or several each; none, if any label holds something else."""
    values = [_number(part) for label in labels for part in _parts(label, once=False)]
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else []


def _are_measured(values: Sequence[float]) -> bool:
    """Numbers with fractions, of which few are the same; 0.5, 1.0 and 1.5 on a thousand rows may be classes."""
    known = set(values)
    return any(v % 1 for v in known) and len(known) > min(_FEW_VALUES, len(values) / _ROWS_PER_VALUE)


def _may_be_measured(values: Sequence[float]) -> bool:
    """Numbers with fractions, or many that do not count up from 0 or 1, as the numbers of classes do."""
    known = set(values)
    counted = known <= set(range(len(known) + 1))
    return any(v % 1 for v in known) or (len(known) > _FEW_VALUES and not counted)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _parts(label: Label, once: bool = True) -> list[str]:
    """What a label holds; of names that are repeated one is enough, of numbers all count."""
    parts = [part.strip() for part in (label if isinstance(label, tuple) else _SEPARATORS.split(label))]
    return [part for part in (dict.fromkeys(parts) if once else parts) if part]


def _numbers(listing: Listing, labels: Sequence[Label], notes: tuple[Problem, ...], where: str) -> Targets | str:
    rows = [[_number(part) for part in _parts(label, once=False)] for label in labels]
    wrong = next((label for label, row in zip(labels, rows, strict=True) if not row or None in row), None)
    widths = {len(row) for row in rows}
    if wrong is not None or len(widths) > 1:
        if mended := _how_to_write(str(wrong)):
            again = f"read({where}, task='regression')"
            return f"{wrong!r} is none of the numbers that regression needs. {mended}, then {again}"
        found = f"{wrong!r} is none" if wrong is not None else f"rows have {min(widths)} to {max(widths)} of them"
        lists = any(isinstance(label, tuple) for label in labels)
        other = "multilabel" if lists else "classification"
        return f"regression needs as many numbers for each example, and {found}. {_take(other, where)}"
    values = tuple(tuple(value for value in row if value is not None) for row in rows)
    name, width = listing.label or "value", widths.pop() if widths else 1
    names = (name,) if width == 1 else tuple(f"{name} {i}" for i in range(width))
    if len(set(values)) < 2:
        return (
            f"every example of {listing.name} has the same number, so there is nothing to predict. "
            f"Add others, then read({where}, task='regression')"
        )
    return Targets("regression", names, values, (0,) * len(values), notes)


def _label_sets(
    listing: Listing, sets: Sequence[Sequence[str]], notes: tuple[Problem, ...], where: str
) -> Targets | str:
    times = Counter(name for held in sets for name in held)
    if (barred := next((name for name in times if BETWEEN in name), None)) is not None:
        return (
            f"the label {barred!r} holds {BETWEEN!r}, which stands between labels. "
            f"Call it something else, then read({where})"
        )
    names = listing.class_names(set(times))
    if not names:
        return (
            f"no example of {listing.name} has a label. "
            f"Add some, with {BETWEEN!r} between them, as even|prime, then read({where})"
        )
    place = {name: i for i, name in enumerate(names)}
    values = tuple(tuple(float(name in held) for name in names) for held in map(set, sets))
    strata = tuple(
        min((place[n] for n in held), key=lambda i: (times[names[i]], i), default=len(names)) for held in sets
    )
    none = sum(not held for held in sets)
    if none:
        notes += (Problem("no labels", listing.name, f"{none} of {len(sets)} have none of the labels"),)
    return Targets("multilabel", names, values, strata, notes)


def unlearnable(targets: Targets, examples: Sequence[Example], where: str) -> list[str]:
    """Messages about targets that nothing can be learned from."""
    train = [example.target for example in examples if example.split == "train"]
    if not train:
        return [f"{where} has no training example. Put some into the split train, then read({where})"]
    if targets.kind == "regression":
        return []
    never = [name for i, name in enumerate(targets.names) if not any(target[i] for target in train)]
    if not never:
        return []
    return [
        f"no training example has the label {', '.join(map(repr, never[:10]))}. "
        f"{f'{NUMBERS}. ' if are_numbers(targets.names) else ''}"
        f"Add some, or remove it from the other splits, then read({where})"
    ]


def scarce(targets: Targets, examples: Sequence[Example], noun: str) -> Iterable[Problem]:
    """Labels that hardly any training example has, or hardly any lacks."""
    train = [example.target for example in examples if example.split == "train"]
    for i, name in enumerate(targets.names if targets.kind == "multilabel" else ()):
        held = sum(target[i] > 0 for target in train)
        if min(held, len(train) - held) < _SMALL:
            detail = f"{held} of {len(train)} training {noun}s have it; what is learned of it depends on luck"
            yield Problem("small label", name, detail)
