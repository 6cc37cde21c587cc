"""What a training run leaves behind: one row per epoch, and which epoch was kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HistoryRow:
    """One evaluation.

    Args:
        epoch: 0 is the state before any update.
        updates: optimizer steps so far.
        seconds: training and evaluation so far, over all resumed pieces.
        train_loss: mean loss of the epoch's batches, as seen while training; None at epoch 0.
        val_loss: mean loss on the validation rows (of classes cross-entropy); None without such rows.
        val_accuracy: mean merit there (`Task.merits`): of classes the fraction right; None without validation rows.
    """

    epoch: int
    updates: int
    seconds: float
    train_loss: float | None
    val_loss: float | None
    val_accuracy: float | None


@dataclass(frozen=True)
class History:
    """The rows of a run in order, and what the network was left with.

    Args:
        rows: one per evaluation.
        kept_epoch: whose weights were kept; the best of several that were averaged.
        blend: the evaluation of weights that are no single epoch's (a soup, a way back to the start); None without.
        made_of: what they are, for people; empty without.
        diverged: the epoch in which a loss or a weight stopped being a number, which ended the run; 0 for none.
    """

    rows: tuple[HistoryRow, ...]
    kept_epoch: int
    blend: HistoryRow | None = None
    made_of: str = ""
    diverged: int = 0

    @property
    def kept(self) -> HistoryRow:
        """The evaluation of the weights that the network was left with."""
        return self.blend or next(row for row in self.rows if row.epoch == self.kept_epoch)

    def metrics(self) -> list[tuple[Any, ...]]:
        """The rows without their clock: what two runs with the same seed must share."""
        return [(r.epoch, r.updates, r.train_loss, r.val_loss, r.val_accuracy) for r in self.rows]


def merit(row: HistoryRow) -> tuple[float, float]:
    """What epochs are compared by on validation: accuracy, then (small sets tie often) loss."""
    if row.val_accuracy is None or row.val_loss is None:
        return (float("-inf"), float("-inf"))
    return (row.val_accuracy, -row.val_loss)


def waited(rows: Sequence[HistoryRow]) -> int:
    """Evaluations since the best one, whichever is kept."""
    best = max(rows, key=merit)
    return sum(row.epoch > best.epoch for row in rows)
