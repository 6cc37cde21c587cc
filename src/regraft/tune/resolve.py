"""From intent to fact: a recipe, a source and the number of examples become a plan."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from regraft.cache import Tap, estimate_bytes
from regraft.cut import Traced, statistics
from regraft.data import CLASSIFICATION, Task
from regraft.errors import RecipeError
from regraft.head import LinearHead
from regraft.probe import ProbeResult
from regraft.source import Source
from regraft.tune.names import matching, required
from regraft.tune.network import Network, network_above
from regraft.tune.plan import BODY, HEAD, Plan, PlanRow, State, epochs_and_updates, trained_rows
from regraft.tune.recipe import Recipe
from regraft.tune.scope import Scope, scope_of

HEAD_WIDTH = 128  # features up to which a head keeps the recipe's rate
_TIMED_ROWS, _TIMED_TOKENS = 8, 2048  # of a batch that is timed: enough to be steady, few enough to be quick

Tensors = list[tuple[str, Tensor]]


def resolve(
    recipe: Recipe,
    source: Source,
    traced: Traced,
    n_classes: int,
    *,
    probe: ProbeResult | None = None,
    n_train: int,
    n_val: int = 0,
    task: Task = CLASSIFICATION,
    length: int | None = None,
) -> Plan:
    """Decide for each tensor of a source whether and how it is trained.

    Args:
        recipe: the intent.
        source: for recipes with random weights, already re-initialised.
        traced: its graph.
        n_classes: of the new head: classes, labels, or numbers.
        probe: what "auto" taps follow, `profile.best` or `profile.single`; None takes the classifier's own input.
        n_train: training examples; "auto" trains more stages when there are more.
        n_val: validation examples, whose activations are cached beside theirs.
        task: what the head's outputs are.
        length: of texts, the tokens that each comes to in a padded batch, for the time that an update takes and the
            bytes of a cache; None takes those of the traced example.

    Returns:
        A plan whose rows name every parameter and buffer of the source and of the head exactly once.

    Raises:
        RecipeError: a pattern matches nothing, a tap lies below the cut, or texts are to have views.
        CutError: no such cut, or no such block.

    Example:
        >>> from regraft.cut import trace
        >>> from regraft.testing import tiny_source
        >>> from regraft.tune import RECIPES
        >>> source = tiny_source()
        >>> traced = trace(source.model, torch.zeros(2, *source.input.size))
        >>> plan = resolve(RECIPES["scratch"], source, traced, 3, n_train=60)
        >>> plan.cut, plan.n_params("frozen"), plan.updates
        ('input', 0, 800)
    """
    scope = scope_of(recipe, traced, n_classes, probe, n_train)
    refuse_idle(scope)
    return planned(scope, source, n_classes, n_train=n_train, n_val=n_val, task=task, length=length)


def planned(
    scope: Scope, source: Source, n_classes: int, *, n_train: int, n_val: int, task: Task, length: int | None
) -> Plan:
    """The plan of a scope; what a recipe says of layers that this scope does not train is no error here.

    Args:
        scope: which tensors are trained.
        source: as for `resolve`.
        n_classes: likewise.
        n_train: likewise.
        n_val: likewise.
        task: likewise.
        length: likewise.

    Raises:
        RecipeError: the rows or the task do not allow what the recipe does with them.
    """
    recipe = scope.recipe
    check_views(recipe, source)
    _check_rows(scope, source)
    _check_task(recipe, task)
    epochs, updates = epochs_and_updates(recipe, n_train)
    rates = _Rates(scope)
    rows = (*_body_rows(scope, source, rates), *_head_rows(scope, rates, epochs))
    seconds = _seconds_a_row(scope, source, length) * epochs * n_train if updates else 0.0
    return Plan(
        recipe,
        source.uri,
        scope.cut,
        scope.taps,
        rows,
        n_classes,
        n_train,
        epochs,
        updates,
        _cached_bytes(scope, n_train, n_val, length),
        round(seconds, 2),
        task,
    )


def refuse_idle(scope: Scope) -> None:
    """Refuse what would have no effect: a rate for what is not trained, statistics to measure where there are none.

    Of several scopes that train ever more the last is asked: what has no effect there has none in any.

    Raises:
        RecipeError: there is such a thing.
    """
    trained = scope.trained_parameters
    for pattern in scope.recipe.rates:
        required("rates", pattern, trained, elsewhere=scope.parameters - trained, why="are not trained")
    if scope.recipe.batch_norm == "reestimate" and not scope.measured:
        raise RecipeError(_nothing_to_measure(scope))


def _nothing_to_measure(scope: Scope) -> str:
    """Statistics to be measured must lie above the cut; those that start anew follow the batches anyway."""
    if (scope.delivered - scope.fresh) & statistics(scope.traced.graph).keys():
        return (
            "batch_norm = 'reestimate' measures the batch norms above the cut, and there are none. "
            "Cut lower: recipe.with_(cut='input')."
        )
    return (
        f"batch_norm = 'reestimate' measures batch norms that keep the source's statistics, and {scope.traced.model} "
        "has none below the head. Leave it out: recipe.with_(batch_norm='frozen')."
    )


def check_views(recipe: Recipe, source: Source) -> None:
    """Look whether a source's examples have the other versions that a recipe asks for, which needs no features.

    Raises:
        RecipeError: they are texts, of which there is the plain version alone, or recordings that it would flip.
    """
    plain = {"views": 0, "average_views": 0, "augment": "none"}
    asked = [name for name in plain if getattr(recipe, name) not in (0, 1, "none")]
    if asked and source.input.ragged:
        told = " and ".join(f"{name} = {getattr(recipe, name)!r}" for name in asked)
        instead = ", ".join(f"{name}={plain[name]!r}" for name in asked)
        raise RecipeError(
            f"recipe {recipe.name!r} says {told}, and {source.uri} reads texts, of which there is no version but the "
            f"plain one: pictures and recordings have others. Leave it out: recipe.with_({instead})."
        )
    if recipe.augment != "none" and source.input.modality == "audio":
        raise RecipeError(
            f"recipe {recipe.name!r} says augment = {recipe.augment!r}, which flips and crops pictures, and "
            f"{source.uri} hears recordings. Of these there are versions shifted, louder or noisier: "
            "recipe.with_(augment='none', views=4)."
        )


def _check_rows(scope: Scope, source: Source) -> None:
    """Token ids are names: their mean or their neighbour is another word. Activations have no edges to crop."""
    recipe = scope.recipe
    if recipe.augment != "none" and scope.cut != "input":
        raise RecipeError(
            f"recipe {recipe.name!r} says augment = {recipe.augment!r}, which changes pictures, and it trains from "
            f"what is cached at {scope.cut!r}. Cache several versions of each: recipe.with_(augment='none', views=4); "
            "or train from the pictures: recipe.with_(cut='input')."
        )
    changing = [name for name in ("mixup", "noise") if getattr(recipe, name)]
    if changing and source.input.modality == "text" and scope.cut == "input":
        raise RecipeError(
            f"recipe {recipe.name!r} changes rows ({', '.join(changing)}), and the rows of {source.uri} are token ids, "
            f"which are names and no amounts. Train above its table: recipe.with_(cut={scope.traced.cuts[1].name!r})."
        )


def _check_task(recipe: Recipe, task: Task) -> None:
    """Only classes are contrasted; numbers are not smoothed or weighted either."""
    about = {"classification": (), "multilabel": ("contrastive",)}
    classes_only = about.get(task.kind, ("contrastive", "label_smoothing", "class_weights"))
    asked = [name for name in classes_only if getattr(recipe, name) not in (0.0, "none")]
    if asked:
        raise RecipeError(
            f"recipe {recipe.name!r} says {' and '.join(asked)}, which is about classes, and this is a {task.kind} "
            f"task. Leave it out: recipe.with_({asked[0]}={'none' if asked[0] == 'class_weights' else 0.0!r})."
        )


# rates ----------------------------------------------------------------------------------------------


class _Rates:
    """The rate of each parameter: by the first of the recipe's patterns that matches, else by depth."""

    def __init__(self, scope: Scope) -> None:
        recipe, self._stages = scope.recipe, scope.stage_of()
        self._named: dict[str, float] = {}
        for pattern, rate in recipe.rates.items():
            for name in matching(pattern, scope.trained_parameters):
                self._named.setdefault(name, rate)
        self._top = max((self._stages[name] for name in scope.trained & scope.parameters), default=0)
        self._recipe = recipe
        self._head = _head_rate(recipe, scope.head)

    def body(self, name: str) -> float:
        """Of a parameter of the source."""
        by_depth = self._recipe.lr * self._recipe.layer_decay ** (self._top - self._stages[name])
        return self._named.get(name, by_depth)

    def head(self, name: str) -> float:
        """Of a parameter of the head."""
        return self._named.get(name, self._head)


def _head_rate(recipe: Recipe, head: nn.Module) -> float:
    """Adam moves every weight by about its rate, so scores move by rate times width: a wide head that starts
    at the probe's solution would lose it within a few steps."""
    if recipe.head != "probe" or recipe.optimizer == "sgd" or not isinstance(head, LinearHead):
        return recipe.head_lr
    return recipe.head_lr * min(1.0, HEAD_WIDTH / head.weight.shape[1])


# rows -----------------------------------------------------------------------------------------------


def _body_rows(scope: Scope, source: Source, rates: _Rates) -> list[PlanRow]:
    rows: list[PlanRow] = []
    for (stage, state, start), tensors in sorted(_members(scope, source).items()):
        group = (*(each.name for each in scope.traced.stages), "classifier", "replaced")[stage]
        if state == "trained":
            rows += _trained_stage(group, tensors, start, scope, rates)
        else:
            name = f"{group} · statistics" if state == "fitted" else group
            rows.append(_still_row(name, tensors, state, start, scope))
    return rows


Start = Literal["source", "fresh"]


def _members(scope: Scope, source: Source) -> dict[tuple[int, State, Start], Tensors]:
    """Every tensor of the source, by the stage it is first used in, what becomes of it, and where it starts."""
    stages = scope.stage_of()
    trained_stages = {stages[name] for name in scope.trained if name in stages}
    members: dict[tuple[int, State, Start], Tensors] = {}
    for name, tensor in scope.tensors(source.model).items():
        gone = any(name.startswith(f"{block}.") for block in scope.recipe.replace)
        stage = stages.get(name, len(scope.traced.stages) + gone)
        start: Start = "fresh" if name in scope.fresh or scope.recipe.weights == "random" else "source"
        state = _state(name, scope)
        if state == "frozen" and not isinstance(tensor, nn.Parameter) and stage in trained_stages:
            state = "trained"  # shown below the stage's other rows, as statistics that stay
        members.setdefault((stage, state, start), []).append((name, tensor))
    return members


def _state(name: str, scope: Scope) -> State:
    if name in scope.trained:
        return "trained"
    if name in scope.measured:
        return "fitted"
    return "frozen" if name in scope.delivered else "dropped"


def _trained_stage(group: str, tensors: Tensors, start: Start, scope: Scope, rates: _Rates) -> list[PlanRow]:
    parameters = [(name, t) for name, t in tensors if isinstance(t, nn.Parameter)]
    rated = [(rates.body(name), BODY + name, p) for name, p in parameters]
    rows = _by_rate(group, rated, start, scope.recipe)
    if scope.adapters:
        rows = [replace(row, group=f"{group} · adapters") for row in rows]
    buffers = [(name, t) for name, t in tensors if not isinstance(t, nn.Parameter)]
    moving = tuple(BODY + name for name, _ in buffers if name in scope.trained)
    if moving:
        rows.append(PlanRow(f"{group} · statistics", moving, 0, "trained", batch_norm="train", start=start))
    still = [(name, t) for name, t in buffers if name not in scope.trained]
    if still:
        rows.append(_still_row(f"{group} · statistics", still, "frozen", start, scope))
    return rows


def _by_rate(
    group: str, rated: Iterable[tuple[float, str, nn.Parameter]], start: Start, recipe: Recipe
) -> list[PlanRow]:
    """Rows of one group of parameters, one or two for each rate."""
    members: dict[float, list[tuple[str, nn.Parameter]]] = {}
    for rate, name, parameter in rated:
        members.setdefault(rate, []).append((name, parameter))
    return [row for rate, each in members.items() for row in trained_rows(group, each, recipe, rate, start)]


def _still_row(group: str, tensors: Tensors, state: State, start: Start, scope: Scope) -> PlanRow:
    count = sum(t.numel() for _, t in tensors if isinstance(t, nn.Parameter))
    means = statistics(scope.traced.graph)
    has_norm = any(name in means for name, _ in tensors)
    norm = "reestimate" if state == "fitted" else "frozen" if has_norm else ""
    names = tuple(BODY + name for name, _ in tensors)
    return PlanRow(group, names, count, state, batch_norm=norm, start=start)


def _head_rows(scope: Scope, rates: _Rates, epochs: int) -> list[PlanRow]:
    start = scope.recipe.head
    named = [(HEAD + name, parameter) for name, parameter in scope.head.named_parameters()]
    rated = [(rates.head(name), name, p) for name, p in named if name in scope.head_trained]
    rows = [replace(row, start=start) for row in _by_rate("head", rated, "fresh", scope.recipe)]
    if not epochs:
        rows = [replace(row, state="fitted", lr=0.0, weight_decay=0.0) for row in rows]
    still = [(name, p) for name, p in named if name not in scope.head_trained]
    if still:
        count, names = sum(p.numel() for _, p in still), tuple(name for name, _ in still)
        rows.append(PlanRow("head · still", names, count, "frozen" if epochs else "fitted", start=start))
    buffers = tuple(HEAD + name for name, _ in scope.head.named_buffers())
    if buffers:
        rows.append(PlanRow("head · scaling", buffers, 0, "frozen" if epochs else "fitted", start=start))
    return rows


# cost -----------------------------------------------------------------------------------------------


def _cached_bytes(scope: Scope, n_train: int, n_val: int, length: int | None) -> int:
    """Of training and validation rows, in all their views; pooled features of the plain view are there already."""
    if scope.cut == "input":  # nothing is frozen below it: examples are decoded, not cached
        return 0
    views, judged = max(1, scope.recipe.views), n_val if scope.recipe.average_views else 0
    others = (views - 1) * (n_train + judged)
    if scope.cut == "output":
        return estimate_bytes(scope.traced, scope.taps, others)
    cut, found = scope.traced.cut(scope.cut), estimate_bytes(scope.traced, [Tap(scope.cut)], n_train + n_val + others)
    return found // cut.shape[0] * length if length and cut.ragged else found


def _seconds_a_row(scope: Scope, source: Source, length: int | None) -> float:
    """Its share of an update: three times a timed forward pass, since the backward pass costs about two."""
    if scope.cut == "output":
        return 0.0
    network = network_above(scope.traced, scope.cut, scope.taps, scope.head, source=source)
    batch = _timed_rows(scope, length)
    with torch.no_grad():
        fastest = min(_timed(network, batch) for _ in range(3))
    return 3 * fastest / len(batch)


def _timed_rows(scope: Scope, length: int | None) -> Tensor:
    cut, n = scope.traced.cut(scope.cut), min(_TIMED_ROWS, scope.recipe.batch_size)
    if length is None or not cut.ragged:
        return torch.zeros(n, *cut.shape)
    return torch.zeros(max(1, min(n, _TIMED_TOKENS // length)), length, *cut.shape[1:])


def _timed(network: Network, batch: Tensor) -> float:
    began = time.perf_counter()
    network(batch)
    return time.perf_counter() - began
