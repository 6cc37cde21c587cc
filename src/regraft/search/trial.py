"""One candidate carried out: what it would deliver, and how good it is on validation.

Shape letters: N examples, D features, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from regraft.cache import Tap, is_ragged
from regraft.cut import rows_at_once
from regraft.data import CLASSIFICATION, Task, load_rows, transform_for
from regraft.probe import ProbeResult
from regraft.run import Listener
from regraft.search.features import Features, Means
from regraft.search.price import seconds_of_averaging
from regraft.search.prospect import Prospect
from regraft.tune import (
    ArrayRows,
    Event,
    History,
    Network,
    Plan,
    Recipe,
    Rows,
    ViewRows,
    batches,
    full_network,
    row_lengths,
    starting_head,
    steps,
    train_steps,
    upper_network,
    whole,
)

TRAINING = "training"  # folder of checkpoints in the run folder, gone when the run is complete


@dataclass(frozen=True)
class Trial:
    """A recipe carried out on one source.

    Args:
        name: for people ("probe", "finetune").
        prospect: the source it reuses.
        plan: what was trained and frozen.
        network: the part above the plan's cut, trained.
        probe: the head it started from, where there was one.
        val_accuracy: mean merit on the validation split; of classes the fraction right.
        seconds: wall-clock time, the frozen pass to its cut included.
        history: of the training; None where nothing was trained by gradient.
        views: of which its predictions are the mean; 1 is the plain picture alone.
    """

    name: str
    prospect: Prospect
    plan: Plan
    network: Network
    probe: ProbeResult | None
    val_accuracy: float
    seconds: float
    history: History | None = None
    views: int = 1

    @property
    def in_effect(self) -> Plan:
        """The plan as it was carried out: where the weights from before any update are kept, nothing is trained."""
        history = self.history
        kept = history is None or history.kept_epoch or history.blend
        return self.plan if kept else self.plan.untrained()

    def probabilities(self, split: str) -> np.ndarray:
        """Of every class or label for every example of a split, (N, K), from cached rows; of numbers these."""
        rows = (view_at(self.prospect, self.plan, split, view) for view in range(self.views))
        return np.mean([probabilities(self.network, each, task=self.plan.task) for each in rows], axis=0)

    def delivered(self) -> Network:
        """The whole network, from prepared rows to class scores."""
        state = self.network.state_dict()
        source, traced = self.prospect.source, self.prospect.traced
        return full_network(source, traced, self.plan.taps, self.network.head, state, recipe=self.plan.recipe)


def probe_trial(prospect: Prospect, recipe: Recipe, n_classes: int, probe: ProbeResult | None = None) -> Trial:
    """Deliver a probe's head, the best one of the depth profile if none is given; nothing is trained by gradient.

    What is delivered is judged, not the probe: a recipe may take a block out between the two.
    """
    started = time.perf_counter()
    probe = probe or prospect.profile.best
    (plan,) = plans_for(recipe, prospect.features, n_classes, probe)
    network = upper_network(plan, prospect.source, prospect.traced, starting_head(plan, prospect.traced, probe))
    trial = Trial(recipe.name, prospect, plan, network, probe, 0.0, 0.0)
    trial = replace(trial, val_accuracy=float(right(trial, "val").mean()))
    return replace(_averaging(trial), seconds=time.perf_counter() - started)


def train_trial(
    prospect: Prospect,
    recipe: Recipe,
    n_classes: int,
    means: Means,
    *,
    probe: ProbeResult | None = None,
    checkpoint: Path | None = None,
    time_limit: float | None = None,
) -> Trial:
    """Train what lies above a recipe's cut, or above each of its cuts in turn, from cached activations.

    Args:
        prospect: the source; for recipes with random weights, one that has them.
        recipe: what to train and how.
        n_classes: of the new head.
        means: seed, device, listener.
        probe: the head to start from, and the taps that "auto" follows.
        checkpoint: file that a stopped run goes on from.
        time_limit: seconds for all of it; the frozen passes that it needs are made in any case.
    """
    started = time.perf_counter()
    source, traced = prospect.source, prospect.traced
    plans = plans_for(recipe, prospect.features, n_classes, probe)
    plan = whole(recipe, plans)
    fill(prospect, plans)
    if time_limit is not None:
        time_limit -= time.perf_counter() - started + seconds_of_averaging(plan, prospect.features)

    def network_of(plan: Plan) -> Network:
        return upper_network(plan, source, traced, starting_head(plan, traced, probe, seed=means.seed), seed=means.seed)

    network, history = train_steps(
        plans,
        network_of,
        rows_to_train_on(prospect, means.seed),
        seed=means.seed,
        device=means.device,
        checkpoint=checkpoint,
        on_event=_progress(means.listener, f"training ({recipe.name})", plan.updates),
        time_limit=time_limit,
    )
    accuracy = history.kept.val_accuracy or 0.0
    trial = _averaging(Trial(recipe.name, prospect, plan, network, probe, accuracy, 0.0, history))
    return replace(trial, seconds=time.perf_counter() - started)


def _progress(listener: Listener, what: str, n_updates: int) -> Callable[[Event], None]:
    """Tells how far all steps together have come, each of which counts its updates from zero."""
    ended = 0

    def tell(event: Event) -> None:
        nonlocal ended
        listener.progress(what, ended + event.updates, n_updates)
        ended += event.n_updates if event.kind == "finish" else 0

    return tell


def fill(prospect: Prospect, plans: Sequence[Plan], splits: Sequence[str] = ("train", "val")) -> None:
    """What several steps train on, in one pass: each pass of its own would decode and convert anew."""
    cuts = dict.fromkeys(plan.cut for plan in plans if plan.cut not in ("input", "output"))
    if len(cuts) > 1:
        prospect.features.fill([Tap(cut) for cut in cuts], splits)


def _averaging(trial: Trial) -> Trial:
    """The trial with predictions over as many views as its recipe says, or as help on validation."""
    recipe = trial.plan.recipe
    wanted = recipe.most_averaged
    if wanted < 2:
        return trial
    averaged = replace(trial, views=wanted)
    rights = right(averaged, "val").astype(float)
    gained = Gain.of(rights - right(trial, "val"))
    if recipe.average_views == "auto" and not gained.convincing:
        return trial
    return replace(averaged, val_accuracy=float(rights.mean()))


@dataclass(frozen=True)
class Gain:
    """How much better one trial is than another on the same examples.

    Args:
        points: difference of the mean merits; of classes of the accuracies, a fraction.
        se: its standard error; what is easy or hard for both does not count.
        n: examples compared.
    """

    points: float
    se: float
    n: int

    @classmethod
    def of(cls, differences: np.ndarray) -> Gain:
        """From what each example gained: 1, 0 or -1, (N,)."""
        return cls(float(differences.mean()), float(differences.std() / np.sqrt(len(differences))), len(differences))

    @property
    def convincing(self) -> bool:
        """Whether it exceeds its standard error.

        At 1.5 of them three of seven trainings of the best probe were turned down that gained 0.1 to 1.5 points on the
        test split, and none that lost any (cifar10, ten of each class, 200 validation examples).
        """
        return self.points > self.se

    def __str__(self) -> str:
        return f"{100 * self.points:+z.1f} ± {100 * self.se:.1f} points"


def right(trial: Trial, split: str) -> np.ndarray:
    """Merit of a trial's answer on each example of a split, (N,); of classes booleans, which it gets right."""
    return trial.plan.task.merits_of_outputs(trial.probabilities(split), trial.prospect.features.labels(split))


def rows_to_train_on(prospect: Prospect, seed: int) -> Callable[[Plan, str], Rows]:
    """Of each step of a training its rows of a split, those of the training split in the recipe's views.

    Args:
        prospect: whose features.
        seed: of the views, and of the augmentation of pixels.
    """

    def rows_of(plan: Plan, split: str) -> Rows:
        return rows_at(prospect, plan, split, augment_seed=seed if split == "train" else None)

    return rows_of


def rows_at(prospect: Prospect, plan: Plan, split: str, *, augment_seed: int | None = None) -> Rows:
    """The rows that a plan's network takes: features, activations at its cut, or what the source takes.

    Args:
        prospect: whose features.
        plan: where its network starts.
        split: of the dataset.
        augment_seed: for training rows, the seed of the recipe's views and of its augmentation of pixels.
    """
    if augment_seed is None or plan.recipe.views < 2:
        return view_at(prospect, plan, split, 0, augment_seed=augment_seed)
    views = [view_at(prospect, plan, split, k, augment_seed=augment_seed) for k in range(plan.recipe.views)]
    return ViewRows(views, seed=augment_seed)


def view_at(prospect: Prospect, plan: Plan, split: str, view: int, *, augment_seed: int | None = None) -> Rows:
    """The same for one view of each example; view 0 is the plain one."""
    features = prospect.features
    labels = features.labels(split)
    if plan.cut == "output":
        if view:
            features.fill(plan.taps, (split,), view)  # in one pass
        rows = joined(features, plan.taps, split, view)
        return ArrayRows(rows, labels, lengths=row_lengths(rows) if rows.ndim > 2 else None)
    if plan.cut == "input":
        prepared = load_rows(features.data.split(split), transform_for(prospect.source.input, view))
        augment = plan.recipe.augment if augment_seed is not None else "none"
        lengths = row_lengths(prepared) if prospect.source.input.ragged else None
        return ArrayRows(prepared, labels, augment=augment, seed=augment_seed or 0, lengths=lengths)
    return features.activations(Tap(plan.cut), split, view)


def joined(features: Features, taps: tuple[Tap, ...], split: str, view: int = 0) -> np.ndarray:
    """The rows of several taps side by side, (N, D); those of one tap with places of their own as (N, L, D)."""
    n = len(features.labels(split))
    if len(taps) == 1 and is_ragged(features.traced, taps[0]):
        return features(taps[0], split, view)
    return np.concatenate([features(tap, split, view).reshape(n, -1) for tap in taps], axis=1)


def probabilities(network: Network, rows: Rows, *, task: Task = CLASSIFICATION) -> np.ndarray:
    """What a network says of all rows, (N, K) float64: softmax of its scores, sigmoid, or the scores."""
    return task.outputs(scores(network, rows))


@torch.no_grad()
def scores(network: Network, rows: Rows) -> np.ndarray:
    """The outputs of a network on all rows as they are, (N, K) float64."""
    device = next(network.parameters()).device
    order = batches(rows, rows_at_once(network))
    found = torch.cat([network(rows.batch(indices, 0).to(device)).double().cpu() for indices in order])
    return found[torch.from_numpy(np.argsort(np.concatenate(order)))].numpy()


def plans_for(recipe: Recipe, features: Features, n_classes: int, probe: ProbeResult | None) -> tuple[Plan, ...]:
    """The plans that a recipe comes to on a source and a dataset: one, or one for each step of gradual unfreezing."""
    return steps(
        recipe,
        features.source,
        features.traced,
        n_classes,
        probe=probe,
        n_train=len(features.labels("train")),
        n_val=len(features.labels("val")),
        task=features.data.task,
        length=features.length,
    )
