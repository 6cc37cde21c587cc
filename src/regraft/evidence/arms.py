"""Arms: one procedure carried out on pretrained weights, on fresh ones, or without any; watched on the test split.

Law: nothing is chosen by what is seen on the test split; validation chooses, as in the fit.

Letters: N test examples, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from regraft.cut import Traced
from regraft.cut.reuse import with_weights_of
from regraft.data import CLASSIFICATION, Dataset, Task, load_rows, transform_for
from regraft.errors import RecipeError
from regraft.evidence.runs import Point, RawRun
from regraft.probe import ProbeResult
from regraft.search import Features, Means, Prospect, Trial, look_at, probe_for, traced_source
from regraft.search.trial import fill, plans_for, probabilities, rows_to_train_on, view_at
from regraft.source import Source, with_random_weights
from regraft.tune import (
    RECIPES,
    Event,
    History,
    Network,
    Plan,
    Recipe,
    Rows,
    resolve,
    starting_head,
    train_steps,
    upper_network,
)
from regraft.tune.rows import n_batches

SAMPLE = 16  # examples that are timed
EVALUATING = 1.4  # a run with its evaluations takes so many times as long as its updates


@dataclass(frozen=True)
class Case:
    """What is to be proven.

    Args:
        chosen: the delivered trial.
        correct: what it had right on the test split, bool (N,); of other tasks the merit of each answer, float.
        seconds: that the fit took.
        means: seed, device, listener, cache.
        pool: the examples with all labelled ones for training, of which the fit may have used a part.
        time_limit: seconds that the measurement may take; None is as many as it needs.
    """

    chosen: Trial
    correct: np.ndarray
    seconds: float
    means: Means
    pool: Dataset
    time_limit: float | None = None

    @property
    def data(self) -> Dataset:
        """What the fit learned from."""
        return self.chosen.prospect.features.data

    @property
    def source(self) -> Source:
        """Whose weights are in question."""
        return self.chosen.prospect.source

    @property
    def n_train(self) -> int:
        """Labelled examples that the fit learned from."""
        return len(self.chosen.prospect.features.labels("train"))

    @property
    def updates(self) -> int:
        """Optimizer steps of the delivered trial."""
        return self.chosen.history.rows[-1].updates if self.chosen.history else 0

    def with_seed(self, seed: int) -> Means:
        """The same means under another seed."""
        return replace(self.means, seed=seed)


def delivered(case: Case) -> RawRun:
    """The delivered trial as a raw run: where it started, and where it ended."""
    end = Point(case.updates, case.seconds, case.correct)
    if case.chosen.history is None:
        return RawRun("transfer", case.means.seed, case.n_train, (end,), seconds=case.seconds)
    prospect, plan, probe = case.chosen.prospect, case.chosen.plan, case.chosen.probe
    head = starting_head(plan, prospect.traced, probe)
    network = upper_network(plan, prospect.source, prospect.traced, head)
    before = right(network, tested(prospect, plan, case.chosen.views), plan.task)
    start = Point(0, max(0.0, case.seconds - case.chosen.seconds), before)
    kept = Point(case.chosen.history.kept.updates, case.seconds, case.correct)
    points = (start, kept) if kept.updates else (kept,)
    return RawRun("transfer", case.means.seed, case.n_train, points, seconds=case.seconds)


def transferred(case: Case, data: Dataset, seed: int) -> RawRun:
    """The delivered kind of model made again, from the same weights, on other examples or under another seed."""
    return _alike(case, case.source, data, seed, None)


def on_fresh_weights(case: Case, data: Dataset, seed: int, *, time_limit: float | None = None) -> RawRun:
    """The delivered kind of model made on fresh weights: what the procedure alone gives.

    The procedure chooses depth, grid and head anew. Held to the choice that suited the pretrained weights it would be
    5 points weaker on the digits, and the weights would be praised for them.

    Args:
        case: whose procedure.
        data: to learn from.
        seed: of the weights and the order.
        time_limit: seconds after which no further update is made; None is the time of the fit.
    """
    return _alike(case, with_random_weights(case.source, seed), data, seed, time_limit)


def from_scratch(
    case: Case, data: Dataset, seed: int, *, updates: int | None = None, time_limit: float | None = None
) -> RawRun:
    """Every layer trained from fresh weights, with rates of its own.

    Args:
        case: whose architecture.
        data: to learn from.
        seed: of the weights and the order.
        updates: for which its schedule is made; None takes the whole one.
        time_limit: seconds after which no further update is made, should updates take longer than was expected.
    """
    began = time.perf_counter()
    means = case.with_seed(seed)
    prospect = _unprofiled(case, with_random_weights(case.source, seed), data, means)
    recipe = RECIPES["scratch"] if updates is None else _paced(RECIPES["scratch"], updates, _n_train(data))
    if case.chosen.views > 1:  # what the delivered model sees or hears of an example, its control does
        recipe = recipe.with_(views=case.chosen.plan.recipe.views, keep=case.chosen.plan.recipe.keep)
    return _timed(_trained(prospect, recipe, means, None, time_limit, case.chosen.views), began)


@dataclass(frozen=True)
class Pace:
    """How fast training from scratch goes.

    Args:
        planned: updates of its whole schedule.
        step: seconds of one update.
        start: seconds of one evaluation; there is one before the first update, and one after the last.
    """

    planned: int
    step: float
    start: float

    @property
    def seconds(self) -> float:
        """Of the whole schedule."""
        return 2 * self.start + self.planned * self.step

    def updates(self, seconds: float) -> int:
        """How many updates fit a time, at most all."""
        return max(0, min(self.planned, int((seconds - 2 * self.start) / max(1e-9, self.step))))


def scratch_pace(case: Case) -> Pace:
    """From the forward pass of a few examples, which are as long as examples are; an update takes three times that."""
    prospect, recipe = case.chosen.prospect, RECIPES["scratch"]
    plan = resolve(
        recipe, prospect.source, prospect.traced, len(case.data.classes), n_train=case.n_train, task=case.data.task
    )
    network = upper_network(plan, prospect.source, prospect.traced, starting_head(plan, prospect.traced, None))
    forward = _seconds_each(network, case.data.split("train"), prospect.source)
    looked_at = len(case.correct) + len(prospect.features.labels("val"))
    return Pace(plan.updates, EVALUATING * 3 * recipe.batch_size * forward, looked_at * forward)


@torch.no_grad()
def _seconds_each(network: Network, data: Dataset, source: Source) -> float:
    """Of the forward pass of one example, the faster of two times."""
    sample = replace(data, examples=data.examples[:SAMPLE])
    batch = torch.from_numpy(load_rows(sample, transform_for(source.input)))
    times = []
    for _ in range(2):
        began = time.perf_counter()
        network(batch)
        times.append(time.perf_counter() - began)
    return min(times) / len(sample)


def _alike(case: Case, source: Source, data: Dataset, seed: int, time_limit: float | None) -> RawRun:
    began = time.perf_counter()
    means = case.with_seed(seed)
    recipe = case.chosen.plan.recipe
    probed = recipe.head == "probe"
    prospect = look_at(data, source, means, _traced(case, source)) if probed else _unprofiled(case, source, data, means)
    probe = probe_for(prospect, recipe.with_(cut="auto"))
    if case.chosen.history is None and probe is not None:
        run = _closed_form(prospect, probe, case.chosen.plan.n_classes, case.chosen.views)
    else:
        free = recipe if recipe.cut == "input" or not probed else recipe.with_(cut="auto")
        limit = max(case.seconds, case.chosen.seconds) if time_limit is None else time_limit
        run = _trained(prospect, free, means, probe, limit - (time.perf_counter() - began), case.chosen.views)
    return _timed(run, began)


def _timed(run: RawRun, began: float) -> RawRun:
    """The run with all its time, so that what came before its first evaluation counts too."""
    took = time.perf_counter() - began
    before = max(0.0, took - run.points[-1].seconds)
    points = tuple(replace(point, seconds=point.seconds + before) for point in run.points)
    return replace(run, points=points, seconds=took)


def _unprofiled(case: Case, source: Source, data: Dataset, means: Means) -> Prospect:
    """A source on examples without the heads at every depth, which training from pixels does not need."""
    traced = _traced(case, source)
    return Prospect(source, traced, Features(data, source, traced, means), case.chosen.prospect.profile)


def _traced(case: Case, source: Source) -> Traced:
    """The case's graph on the weights of another source of its architecture; exporting it again takes seconds."""
    own = case.chosen.prospect.traced
    return traced_source(source) if own.fallback_reason else with_weights_of(own, source.model)


def _closed_form(prospect: Prospect, probe: ProbeResult, n_classes: int, views: int) -> RawRun:
    began = time.perf_counter()
    plan = resolve(
        RECIPES["probe"],
        prospect.source,
        prospect.traced,
        n_classes,
        probe=probe,
        n_train=len(prospect.features.labels("train")),
        task=prospect.features.data.task,
    )
    network = upper_network(plan, prospect.source, prospect.traced, starting_head(plan, prospect.traced, probe))
    correct = right(network, tested(prospect, plan, views), plan.task)
    return RawRun("", 0, plan.n_train, (Point(0, time.perf_counter() - began, correct),))


def _trained(
    prospect: Prospect, recipe: Recipe, means: Means, probe: ProbeResult | None, time_limit: float | None, views: int
) -> RawRun:
    source, traced = prospect.source, prospect.traced

    def network_of(plan: Plan) -> Network:
        return upper_network(plan, source, traced, starting_head(plan, traced, probe))

    return watched(prospect, _plans(prospect, recipe, probe), network_of, means, time_limit, views)


def _plans(prospect: Prospect, recipe: Recipe, probe: ProbeResult | None) -> tuple[Plan, ...]:
    """The plans of a recipe; a probe that reads lower than the delivered one's may leave fewer stages to unfreeze."""
    features = prospect.features
    try:
        return plans_for(recipe, features, len(features.data.classes), probe)
    except RecipeError:
        if recipe.unfreeze in (0, "auto"):
            raise
    return plans_for(recipe.with_(unfreeze="auto"), features, len(features.data.classes), probe)


def watched(
    prospect: Prospect,
    plans: Sequence[Plan],
    network_of: Callable[[Plan], Network],
    means: Means,
    time_limit: float | None,
    views: int = 1,
) -> RawRun:
    """Train as one plan says, or several in turn, and note what is right on the test split at each evaluation.

    Args:
        prospect: whose rows.
        plans: of `steps`.
        network_of: the network above a plan's cut, as it starts.
        means: seed and device.
        time_limit: seconds for the updates, and for the rows that they are made on.
        views: of each test example, over which predictions are averaged.
    """
    fill(prospect, plans, ("test",))
    began = time.perf_counter()
    fill(prospect, plans)
    watch = _Watch()

    def begun(plan: Plan) -> Network:
        network = network_of(plan)
        watch.follow(network, tested(prospect, plan, views), plan.task)
        return network

    _, history = train_steps(
        plans,
        begun,
        rows_to_train_on(prospect, means.seed),
        seed=means.seed,
        device=means.device,
        on_event=watch,
        time_limit=None if time_limit is None else time_limit - (time.perf_counter() - began),
    )
    points, kept = watch.points(history, moving=plans[-1].recipe.average == "ema")
    return RawRun("", means.seed, plans[-1].n_train, points, kept, time.perf_counter() - began)


class _Watch:
    """Notes what the network in training has right on the test split, at each evaluation of each step."""

    def __init__(self) -> None:
        self._seen: list[tuple[np.ndarray, float]] = []  # what is right, and the seconds lost here before
        self._lost = self._newest = 0.0  # seconds spent here, which training did not take
        self._right: Callable[[], np.ndarray]

    def follow(self, network: Network, test: Sequence[Rows], task: Task) -> None:
        """Look at another network from now on, on the same examples.

        Args:
            network: the next step's.
            test: rows at its cut, in each view.
            task: what the answers are.
        """
        self._right = partial(right, network, test, task)

    def __call__(self, event: Event) -> None:
        if event.kind == "finish":
            self._lost -= self._newest  # the clock of the step had stopped
        if event.kind not in ("start", "epoch"):
            return
        began = time.perf_counter()
        self._seen.append((self._right(), self._lost))
        self._newest = time.perf_counter() - began
        self._lost += self._newest

    def points(self, history: History, *, moving: bool) -> tuple[tuple[Point, ...], int]:
        """One for each evaluation of a history that has ended, and which of them was kept.

        Weights that are an average of several were not seen on the way, so they are looked at now.

        Args:
            history: of all steps.
            moving: whether a moving average was kept.
        """
        rows = history.rows
        points = [
            Point(row.updates, max(0.0, row.seconds - lost), correct)
            for row, (correct, lost) in zip(rows, self._seen, strict=True)
        ]
        if history.made_of:
            return (*points, replace(points[-1], correct=self._right())), len(points)
        # A step begins with what the one before kept, as the same epoch: the last of those is the one that went on.
        kept = max(i for i, row in enumerate(rows) if row.epoch == history.kept_epoch)
        if moving:
            points[kept] = replace(points[kept], correct=self._right())
        return tuple(points), kept


def tested(prospect: Prospect, plan: Plan, views: int) -> list[Rows]:
    """The rows of the test split in so many views, over which the delivered trial's predictions are averaged."""
    return [view_at(prospect, plan, "test", view) for view in range(views)]


def right(network: Network, views: Sequence[Rows], task: Task = CLASSIFICATION) -> np.ndarray:
    """Right or wrong for each row, bool (N,); of other tasks than classification the merit of each, float (N,).

    Args:
        network: that answers.
        views: rows of the same examples; the answer is the mean over them.
        task: what the answers are.
    """
    network.eval()
    answers = np.mean([probabilities(network, rows, task=task) for rows in views], axis=0)
    return task.merits_of_outputs(answers, views[0].labels)


def _paced(recipe: Recipe, updates: int, n_train: int) -> Recipe:
    """The recipe with so many updates, so that its schedule ends when the time does."""
    in_an_epoch = n_batches(n_train, recipe.batch_size)
    return recipe.with_(epochs=max(1, round(updates / in_an_epoch)), min_updates=0)


def _n_train(data: Dataset) -> int:
    return len(data.split("train"))
