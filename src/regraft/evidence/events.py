"""Training curves as TensorBoard event files: the only file that imports tensorboard.

    tensorboard/N-NAME/events.out.tfevents.…    one folder for each training, N as in curves.csv's order; tags
                                                loss/train, loss/val and accuracy/val over updates

Look at them with `tensorboard --logdir RUN/tensorboard`.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from regraft.search import Trial
from regraft.tune import History

EVENTS = "tensorboard"
TAGS = {"loss/train": "train_loss", "loss/val": "val_loss", "accuracy/val": "val_accuracy"}


def write_events(run: Path, trials: Iterable[Trial]) -> int:
    """Write the curves of every trial that trained by gradient; without tensorboard nothing is written.

    Args:
        run: the run folder; what it has of this kind is replaced.
        trials: in the order of curves.csv.

    Returns:
        How many trainings were written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # an extra: curves.csv holds the same numbers
        return 0
    shutil.rmtree(run / EVENTS, ignore_errors=True)
    trained = [(trial.name, trial.history) for trial in trials if trial.history is not None]
    for i, (name, history) in enumerate(trained):
        with SummaryWriter(str(run / EVENTS / f"{i}-{_slug(name)}")) as writer:
            _add(writer, history)
    return len(trained)


def _add(writer: Any, history: History) -> None:
    began = time.time() - history.rows[-1].seconds  # so that TensorBoard's relative time is the training's own
    for row in history.rows:
        for tag, field in TAGS.items():
            if (value := getattr(row, field)) is not None:
                writer.add_scalar(tag, value, row.updates, walltime=began + row.seconds)


def _slug(name: str) -> str:
    """A name as a folder that every system takes.

    Example:
        >>> _slug("lda on layer2@2, trained above conv1/bn")
        'lda-on-layer2-2-trained-above-conv1-bn'
    """
    return re.sub(r"[^\w.]+", "-", name).strip("-.")[:80]
