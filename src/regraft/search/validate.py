"""Whether training beyond the probe paid off, judged on enough examples to tell.

Shape letters: N training examples.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from regraft.probe import folds, refit
from regraft.search.features import Means
from regraft.search.trial import Gain, Trial, joined, probabilities, right, rows_at, view_at
from regraft.tune import Rows, starting_head, train, upper_network

# With fewer validation examples one of them is worth more than half a point, and training examples help to judge.
FEW = 200
N_FOLDS = 3


class _Some:
    """Some rows of others, in the order of `places`."""

    def __init__(self, rows: Rows, places: np.ndarray) -> None:
        self.prefix = rows.prefix
        self.lengths = None if rows.lengths is None else rows.lengths[places]
        self.labels = rows.labels[places]
        self._rows = rows
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def batch(self, indices: np.ndarray, epoch: int) -> torch.Tensor:
        """The rows at some indices, as the others give them."""
        return self._rows.batch(self._places[indices], epoch)


def gain(new: Trial, old: Trial) -> Gain:
    """What a trial gives over another on the validation split."""
    return Gain.of(right(new, "val").astype(float) - right(old, "val"))


def seconds_held_out(tuned: Trial) -> float:
    """About how long `sure_gain` takes to judge a trial on training examples: 0 where validation is enough."""
    if tuned.history is None or len(tuned.prospect.features.labels("val")) >= FEW:
        return 0.0
    last = tuned.history.rows[-1]
    return N_FOLDS * last.seconds * tuned.history.kept.epoch / max(1, last.epoch)


def sure_gain(tuned: Trial, probe: Trial, means: Means, *, held_out: bool = True) -> Gain:
    """What training gives over the probe, on validation and, where that is small, on training examples held out.

    The probe's own held-out scores are there already; the training is repeated for each fold, from a head that was
    fitted without it, for as many epochs as were best on validation.

    Args:
        tuned: a trained trial that started from a probe's head.
        probe: the trial to beat.
        means: seed and device.
        held_out: whether there is time for training examples, however small validation is.
    """
    on_val = right(tuned, "val").astype(float) - right(probe, "val")
    kept = tuned.history.kept.epoch if tuned.history else 0
    scores = probe.probe.fitted.cv_scores if probe.probe else None
    if not held_out or len(on_val) >= FEW or not kept or scores is None or tuned.probe is None:
        return Gain.of(on_val)
    y, task = tuned.prospect.features.labels("train"), tuned.plan.task
    on_train = right_held_out(tuned, means).astype(float) - task.merits(scores, y)
    return Gain.of(np.concatenate([on_val, on_train]))


def right_held_out(tuned: Trial, means: Means) -> np.ndarray:
    """Merits (N,) on training examples of a training that was made without them, as long as was best on validation.

    Args:
        tuned: a trained trial that started from a probe's head.
        means: seed and device.
    """
    y, kept = tuned.prospect.features.labels("train"), tuned.history.kept.epoch if tuned.history else 0
    task = tuned.plan.task
    if kept:
        return task.merits_of_outputs(_held_out(tuned, kept, means), y)
    assert tuned.probe is not None
    scores = tuned.probe.fitted.cv_scores  # of the head that it started from, which no update bettered
    assert scores is not None
    return task.merits(scores, y)


def _held_out(tuned: Trial, epochs: int, means: Means) -> np.ndarray:
    """Answers (N, K) on training examples, each by a network that was trained without its fold."""
    prospect, probe = tuned.prospect, tuned.probe
    assert probe is not None
    y, K, task = prospect.features.labels("train"), tuned.plan.n_classes, tuned.plan.task
    X = joined(prospect.features, probe.candidate.taps, "train")
    rows = rows_at(prospect, tuned.plan, "train", augment_seed=means.seed)
    seen = [view_at(prospect, tuned.plan, "train", view) for view in range(tuned.views)]
    recipe = tuned.plan.recipe.with_(keep="last", patience=0)
    answers = np.empty((len(y), K))
    fold = folds(y, N_FOLDS, means.seed)
    for number in range(N_FOLDS):
        inside, outside = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        fitted = refit(probe.candidate, X[inside], y[inside], K, seed=means.seed, task=task)
        plan = replace(tuned.plan, recipe=recipe, n_epochs=epochs, n_train=len(inside))
        head = starting_head(plan, prospect.traced, replace(probe, fitted=fitted))
        network = upper_network(plan, prospect.source, prospect.traced, head)
        train(plan, network, _Some(rows, inside), None, seed=means.seed, device=means.device)
        scores = [probabilities(network, _Some(view, outside), task=task) for view in seen]
        answers[outside] = np.mean(scores, axis=0)
    return answers
