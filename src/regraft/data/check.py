"""What is wrong with labelled examples as a whole: what ends the run, and what a person should know."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from regraft.data.bad import MISSING, UNKNOWN_SPLIT
from regraft.data.dataset import Example, Problem
from regraft.data.folder import BESIDE
from regraft.data.listing import SPLIT_NAMES
from regraft.data.medium import Medium
from regraft.data.targets import NUMBERS, are_numbers
from regraft.data.task import BETWEEN, Kind
from regraft.data.text.opening import FALLBACK
from regraft.errors import closest

_SHOWN = 20  # problems in one message; the rest is counted
_SMALL = 5  # fewer training examples than this leave a class to luck
_IMBALANCE = 10  # largest class over smallest
_LONG = 10_000  # characters; networks for text read the first 2,000 or so


def together(bad: Sequence[Problem]) -> list[Problem]:
    """Rows with the same unknown split as one problem: one word is wrong, however many rows say it."""
    times = Counter(problem.detail for problem in bad if problem.kind == UNKNOWN_SPLIT)
    merged = {}
    for i, problem in enumerate(bad):
        if problem.kind == UNKNOWN_SPLIT:
            n = times[problem.detail]
            detail = f"{problem.detail} ({n} row{'s' if n > 1 else ''})"
            merged.setdefault(problem.detail, Problem(problem.kind, problem.name, detail))
        else:
            merged[i] = problem
    return list(merged.values())


def by_kind(problems: Iterable[Problem]) -> list[tuple[Problem, int]]:
    """The first problem of every kind, and how many more there are of it.

    Example:
        >>> [(first.name, more) for first, more in by_kind([Problem("truncated", name, "") for name in "abc"])]
        [('a', 2)]
    """
    kinds: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        kinds[problem.kind].append(problem)
    return [(same[0], len(same) - 1) for _, same in sorted(kinds.items())]


def listed(bad: Sequence[Problem], total: int, noun: str = "picture") -> str:
    """Examples that cannot be used, one to a line, the first ones by name.

    Args:
        bad: one problem for each.
        total: examples there are, good and bad.
        noun: what one example is called.
    """
    shown = together(bad)
    lines = [f"{len(bad)} of {total} {noun}s cannot be used:"]
    lines += [f"  {problem}" for problem in shown[:_SHOWN]]
    lines += [f"  ... and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
    return "\n".join(lines)


def complaint(
    bad: Sequence[Problem], total: int, wrong: Sequence[str], where: str, noun: str, hints: Sequence[str], skip: bool
) -> str:
    """Everything that ends the run, and what to do about it; empty if nothing does.

    Args:
        bad: one problem for each example that cannot be used.
        total: examples there are, good and bad.
        wrong: messages about the others.
        where: what `read` was called with, as code.
        noun: what one example is called.
        hints: what examples that cannot be used have in common.
        skip: whether they are to be left out.
    """
    if not bad:
        return "\n".join(wrong)
    told = [listed(bad, total, noun), *hints]
    if len(bad) == total:
        told.append(f"Nothing is left to learn from. Mend {_to_mend(bad)}, then read({where})")
    elif wrong:  # what cannot be used may be why, so that leaving it out is no way out
        told += wrong
    elif skip:
        return ""
    else:
        told.append(f"Mend or remove them, or leave them out with --skip-bad: read({where}, skip_bad=True)")
    return "\n".join(told)


def _to_mend(bad: Sequence[Problem]) -> str:
    kinds = {problem.kind for problem in bad}
    return {UNKNOWN_SPLIT: "the names of the splits", MISSING: "the paths"}.get(
        kinds.pop() if len(kinds) == 1 else "", "them"
    )


def fatal(
    classes: tuple[str, ...],
    examples: Sequence[Example],
    where: str,
    noun: str,
    in_table: bool,
    known: Sequence[Problem] = (),
) -> list[str]:
    """Messages about classes that nothing can be learned from.

    Args:
        classes: names.
        examples: those that can be used.
        where: what `read` was called with, as code.
        noun: what one example is called.
        in_table: whether labels and splits are cells, rather than folders.
        known: what the reader noticed, which may be why.
    """
    if len(classes) < 2:
        found = f"one class, {classes[0]!r}" if classes else f"no class with a usable {noun}"
        second = "rows with a second label" if in_table else "a second class folder (root/CLASS/*) or label"
        return [f"{where} has {found}. A classifier needs at least two: add {second}, then read({where})"]
    contents = defaultdict(set)
    for example in examples:
        contents[example.label].add(example.key)
    single = [name for label, name in enumerate(classes) if len(contents[label]) == 1]
    taught = {example.label for example in examples if example.split == "train"}
    untaught = [name for label, name in enumerate(classes) if label not in taught and name not in single]
    sure = [name for label, name in enumerate(classes) if label in taught and name not in single]
    messages = []
    if single:
        doubt = f". {NUMBERS}" if are_numbers(classes) else ""
        strange = [name for name in single if classes.index(name) not in taught]
        messages.append(
            f"{_classes(single)} only one {noun} (the same {noun} twice counts once){doubt}."
            f"{_misspelt(strange, sure)} A class needs at least two, one to train on and one to test on: "
            f"add more, or remove it, then read({where})"
        )
    if untaught:
        some = "Give some rows of each the split train" if in_table else f"Put some into train/{untaught[0]}/"
        messages.append(
            f"{_classes(untaught)} no training {noun}.{_beside(known)}{_misspelt(untaught, sure)} {some} "
            f"or remove the class from the other splits, then read({where})"
        )
    return messages


def _beside(known: Sequence[Problem]) -> str:
    """Folders that were taken for no split, in which the training examples may lie."""
    others = [problem.name for problem in known if problem.detail == BESIDE]
    told = (f" {name!r} is ignored, {BESIDE}.{closest(name, SPLIT_NAMES, n=1)}" for name in others[:_SHOWN])
    return "".join(told)


def _misspelt(unsure: Iterable[str], sure: Sequence[str]) -> str:
    """The classes that others may have been meant for."""
    return "".join(dict.fromkeys(closest(name, sure, n=1) for name in unsure))


def notes(
    classes: tuple[str, ...], examples: Sequence[Example], medium: Medium, kind: Kind = "classification"
) -> list[Problem]:
    """What does not end the run but makes its numbers doubtful."""
    peculiar = {"text": _peculiar_texts, "audio": _peculiar_sounds}.get(medium.modality)
    return [
        *(peculiar(examples) if peculiar else ()),
        *_same_words(classes),
        *_repeated(classes, examples, medium.noun, kind),
        *(_scarce(classes, examples, medium.noun) if kind == "classification" else ()),
        *(_absent(classes, examples, medium.noun) if kind == "classification" else ()),
    ]


def _same_words(classes: Iterable[str]) -> Iterable[Problem]:
    """One problem for each group of names that differ only in case or in blanks around them."""
    groups = defaultdict(list)
    for name in classes:
        groups[name.strip().casefold()].append(name)
    for alike in groups.values():
        if len(alike) > 1:
            detail = f"{_names(alike)} are learned as {len(alike)} labels; if they are one, write them alike"
            yield Problem("labels alike", alike[0], detail)


def _peculiar_texts(examples: Sequence[Example]) -> Iterable[Problem]:
    yield from _alike(examples, "long text", f"more than {_LONG:,} characters", lambda e: e.width > _LONG)
    yield from _alike(examples, "encoding", "read as Windows-1252, being no UTF-8", lambda e: e.mode == FALLBACK)


def _peculiar_sounds(examples: Sequence[Example]) -> Iterable[Problem]:
    yield from _alike(examples, "silent", "silent from beginning to end", lambda e: e.mode == "silent")
    yield from _alike(examples, "clipped", "clipped: recorded too loud", lambda e: e.mode == "clipped")


def _alike(examples: Sequence[Example], kind: str, trait: str, has: Callable[[Example], bool]) -> Iterable[Problem]:
    """One problem for all examples of one trait."""
    found = [example.name for example in examples if has(example)]
    if found:
        others = f": {', '.join(found[:_SHOWN])}{', ...' if len(found) > _SHOWN else ''}"
        yield Problem(kind, found[0], f"{len(found)} of {len(examples)} are {trait}{others if len(found) > 1 else ''}")


def _repeated(classes: tuple[str, ...], examples: Sequence[Example], noun: str, kind: Kind) -> list[Problem]:
    times = Counter(example.key for example in examples)
    same = defaultdict(list)
    for example in examples:
        if times[example.key] > 1:
            same[example.key].append(example)
    return [
        *_differing(same.values(), "conflicting labels", noun, lambda e: _said(classes, e, kind)),
        *_differing(same.values(), "duplicate across splits", noun, lambda e: e.split),
    ]


def _differing(
    groups: Iterable[list[Example]], kind: str, noun: str, trait: Callable[[Example], str]
) -> Iterable[Problem]:
    """One problem for each group of equal examples that differ in a trait."""
    for group in groups:
        if len({trait(example) for example in group}) > 1:
            where = ", ".join(f"{example.name} ({trait(example)})" for example in group)
            yield Problem(kind, group[0].name, f"the same {noun} is {where}")


def _said(classes: tuple[str, ...], example: Example, kind: Kind) -> str:
    """An example's label in words."""
    if kind == "classification":
        return classes[example.label]
    if kind == "regression":
        return BETWEEN.join(f"{value:g}" for value in example.target)
    held = [name for name, value in zip(classes, example.target, strict=True) if value]
    return BETWEEN.join(held) or "no label"


def _scarce(classes: tuple[str, ...], examples: Sequence[Example], noun: str) -> Iterable[Problem]:
    sizes = Counter(example.label for example in examples if example.split == "train")
    for label, name in enumerate(classes):
        if sizes[label] < _SMALL:
            yield Problem("small class", name, f"{sizes[label]} training {noun}s; results will depend on luck")
    (large, high), *_, (small, low) = Counter({label: sizes[label] for label in range(len(classes))}).most_common()
    if high > _IMBALANCE * low:
        detail = f"{low} training {noun}s, {high} of {classes[large]!r}; accuracy favours the larger class"
        yield Problem("imbalanced classes", classes[small], detail)


def _absent(classes: tuple[str, ...], examples: Sequence[Example], noun: str) -> Iterable[Problem]:
    """One problem for each split that holds none of some classes, and so says nothing about them."""
    for split in ("val", "test"):
        held = {example.label for example in examples if example.split == split}
        lacking = [name for label, name in enumerate(classes) if label not in held]
        if held and lacking:
            detail = f"it has no {noun} of {_names(lacking)}; how well a model tells that stays unknown"
            yield Problem("class missing in split", split, detail)


def _classes(names: list[str]) -> str:
    return f"class {_names(names)} has" if len(names) == 1 else f"the classes {_names(names)} have"


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more
