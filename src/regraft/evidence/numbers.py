"""What the report shows of answers that are no single class: numbers predicted and true, labels one by one.

Letters: N examples, K labels or numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from regraft.data.task import BETWEEN
from regraft.evidence.figures import LINE, SERIES, Picture, draw, finish
from regraft.evidence.predictions import Answer, numbers
from regraft.evidence.trust import ClassFigures

MOST_NUMBERS = 4  # of the numbers that one example has, those that are drawn


def scatters(rows: Sequence[Answer], names: Sequence[str]) -> list[Picture]:
    """For each of the first numbers, what was predicted over what is true.

    Args:
        rows: of predictions.csv.
        names: of the numbers, K.
    """
    truth, said = numbers(rows)
    return [_scatter(i, name, truth[:, i], said[:, i]) for i, name in enumerate(names[:MOST_NUMBERS])]


def _scatter(i: int, name: str, truth: np.ndarray, said: np.ndarray) -> Picture:
    off, ends = np.abs(said - truth), [min(truth.min(), said.min()), max(truth.max(), said.max())]
    alt = f"{name}, predicted against true, of {len(truth)} examples; they lie {off.mean():.3g} apart on average."

    def plot(axes: Axes, narrow: bool) -> None:
        axes.plot(ends, ends, color=LINE, lw=1.2, label="predicted as it is")
        axes.plot(truth, said, "o", ms=3.5, alpha=0.5, mew=0, color=SERIES[0], label="one example")
        axes.set_xlabel(f"{name}, true")
        axes.set_ylabel("predicted")
        finish(axes, columns=1 if narrow else 2)

    return draw(f"numbers-{i}", alt, plot, 3.8, 3.8)


def per_label(rows: Sequence[Answer], names: Sequence[str]) -> tuple[ClassFigures, ...]:
    """Precision, recall and F1 of every label.

    Args:
        rows: of predictions.csv.
        names: of the labels, K.

    Example:
        >>> rows = [Answer("a", "a", "even|prime", "even", 0.9), Answer("b", "b", "even", "even|prime", 0.8)]
        >>> [(one.recall, one.n) for one in per_label(rows, ["even", "prime"])]
        [(1.0, 2), (0.0, 1)]
    """
    there, said = ([set(text.split(BETWEEN)) for text in side] for side in _sides(rows))
    return tuple(_of_label(name, [name in s for s in there], [name in s for s in said]) for name in names)


def _sides(rows: Sequence[Answer]) -> tuple[list[str], list[str]]:
    return [row.truth for row in rows], [row.predicted for row in rows]


def _of_label(name: str, there: list[bool], said: list[bool]) -> ClassFigures:
    both, called, held = sum(t and s for t, s in zip(there, said, strict=True)), sum(said), sum(there)
    precision, recall = both / called if called else None, both / held if held else None
    return ClassFigures(name, held, precision, recall, 2 * both / (called + held) if called and held else None)
