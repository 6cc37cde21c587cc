"""The card of a source that was pretrained here: figures, how it was made, and the command that makes it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from regraft.spec import InputSpec
from regraft.tune import History, HistoryRow, Plan


@dataclass(frozen=True)
class Made:
    """A pretraining that ended.

    Args:
        data: name of the training set.
        learnt: what the network learnt, in words.
        classes: names of its outputs.
        input: what it expects.
        licence: of the weights, or "".
        command: the command line that makes them again, or "".
        plan: what was trained.
        history: how it went.
        metrics: n_train, val_accuracy, and test_accuracy with n_test where there was a test split.
    """

    data: str
    learnt: str
    classes: tuple[str, ...]
    input: InputSpec
    licence: str
    command: str
    plan: Plan
    history: History
    metrics: dict[str, Any]


def card(made: Made) -> str:
    """README.md of the source's folder."""
    spec, metrics = made.input, made.metrics
    figures = [f"| training pictures | {metrics['n_train']:,} |"]
    if metrics["val_accuracy"] is not None:
        figures.append(f"| validation accuracy, last epoch | {metrics['val_accuracy']:.2%} |")
    if "test_accuracy" in metrics:
        figures.append(f"| test accuracy, {metrics['n_test']:,} pictures | {metrics['test_accuracy']:.2%} |")
    lines = [
        *("---", f"license: {made.licence or 'unknown'}", "library_name: regraft", "---", ""),
        f"# {made.plan.source} trained on {made.data}",
        "",
        f"{made.plan.n_params('trained'):,} parameters. It learnt {made.learnt}: {', '.join(made.classes)}. "
        f"Input {spec.size}, mean {spec.mean}, std {spec.std}.",
        "",
        *("| | |", "|---|---|", *figures, ""),
        "The test pictures were looked at once, after the last epoch; the validation ones steered nothing.",
        "",
        "## How it was made",
        "",
        *((f"    {made.command}", "") if made.command else ()),
        f"{made.plan.n_epochs} epochs, {made.plan.updates:,} updates, "
        f"{made.history.rows[-1].seconds / 60:.0f} minutes on "
        f"{torch.get_num_threads()} threads, PyTorch {torch.__version__.split('+')[0]}.",
        "",
        *("```toml", made.plan.recipe.to_toml().strip(), "```", ""),
        *("| epoch | training loss | validation loss | validation accuracy |", "|---|---|---|---|"),
        *(_epoch_line(row) for row in made.history.rows[1:]),
        "",
    ]
    return "\n".join(lines)


def _epoch_line(row: HistoryRow) -> str:
    cells = (row.train_loss, row.val_loss, row.val_accuracy)
    return f"| {row.epoch} | " + " | ".join("" if cell is None else f"{cell:.4f}" for cell in cells) + " |"
