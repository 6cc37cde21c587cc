"""Splits drawn by content: an example goes where the hash of its bytes says, whatever its name or order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from regraft.digest import digest_bytes


def draw(
    keys: Sequence[str],
    labels: Sequence[int],
    given: Sequence[str | None],
    val_fraction: float,
    test_fraction: float,
) -> list[str]:
    """The split of each example.

    Examples without a split, and those given as training, form the pool. Validation is drawn out of it if no
    example was given as validation; test likewise. The same content always lands in the same drawn split.
    A class that would be missing from a drawn split gives it its content of the lowest hash, test first, as
    long as it keeps one for training.

    Args:
        keys: content keys (N).
        labels: class indices (N).
        given: the split each example came with, or None (N).
        val_fraction: of the pool, expected.
        test_fraction: of the pool, expected.
    """
    # Test and validation own fixed intervals of the hash: giving one of them does not move the other.
    intervals = {"test": (0.0, test_fraction), "val": (test_fraction, test_fraction + val_fraction)}
    intervals = {split: (a, b) for split, (a, b) in intervals.items() if a < b and split not in given}
    pool = [i for i, split in enumerate(given) if split in (None, "train")]
    units = {keys[i]: _unit(keys[i]) for i in pool}
    drawn = {key: _place(unit, intervals) for key, unit in units.items()}
    for contents in _contents_per_class(keys, labels, pool):
        _fill(drawn, sorted(contents, key=units.__getitem__), tuple(intervals))
    return [drawn[key] if split in (None, "train") else split for key, split in zip(keys, given, strict=True)]


def _unit(key: str) -> float:
    """A number in [0, 1) from the content, independent of the hash that chooses subsets."""
    return int(digest_bytes(f"split:{key}".encode())[:12], 16) / 16**12


def _place(unit: float, intervals: dict[str, tuple[float, float]]) -> str:
    return next((split for split, (a, b) in intervals.items() if a <= unit < b), "train")


def _contents_per_class(keys: Sequence[str], labels: Sequence[int], pool: list[int]) -> Iterator[set[str]]:
    contents: dict[int, set[str]] = {}
    for i in pool:
        contents.setdefault(labels[i], set()).add(keys[i])
    yield from (contents[label] for label in sorted(contents))


def _fill(drawn: dict[str, str], contents: list[str], splits: tuple[str, ...]) -> None:
    """Moves contents of one class, lowest hash first, until training and then each drawn split has one."""
    for wanted in ("train", *splits):
        held = {split: [key for key in contents if drawn[key] == split] for split in ("train", *splits)}
        largest = max((keys for split, keys in held.items() if split != wanted), key=len, default=[])
        # Training may take the last one of another split; the others only share what is left over.
        if not held[wanted] and len(largest) > (wanted != "train"):
            drawn[largest[0]] = wanted
