"""From intent to fact: a recipe, a source and the number of examples become a plan."""

from __future__ import annotations

import copy
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from regraft.cache import Tap, TapModel, estimate_bytes
from regraft.cut import Cut, Traced, between
from regraft.errors import RecipeError
from regraft.head import LinearHead
from regraft.probe import ProbeResult
from regraft.source import Source
from regraft.tune.network import Network, Prefix, feature_width, network_above
from regraft.tune.plan import BODY, HEAD, Plan, PlanRow, State, epochs_and_updates, tap_name, trained_rows
from regraft.tune.recipe import Recipe

HEAD_WIDTH = 128  # features up to which a head keeps the recipe's rate


def resolve(
    recipe: Recipe,
    source: Source,
    traced: Traced,
    n_classes: int,
    *,
    probe: ProbeResult | None = None,
    n_train: int,
) -> Plan:
    """Decide for each tensor of a source whether and how it is trained.

    Args:
        recipe: the intent.
        source: for recipes with random weights, already re-initialised.
        traced: its graph.
        n_classes: of the new head.
        probe: what "auto" taps follow; None takes the classifier's own input.
        n_train: training examples; "auto" trains more stages when there are more.

    Returns:
        A plan whose rows name every parameter and buffer of the source and of the head exactly once.

    Raises:
        RecipeError: a tap lies below the cut.
        CutError: no such cut.

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
    taps = choose_taps(recipe, traced, probe)
    cut = choose_cut(recipe, traced, taps, n_train)
    epochs, updates = epochs_and_updates(recipe, n_train)
    body = _body_rows(recipe, source, traced, cut, taps)
    head = _head_rows(recipe, traced, taps, n_classes, epochs)
    cached = 0 if cut == "output" else estimate_bytes(traced, [Tap(cut)], n_train)
    seconds = _step_seconds(recipe, source, traced, cut, taps, n_classes) * updates if updates else 0.0
    return Plan(
        recipe,
        source.uri,
        cut,
        taps,
        (*body, *head),
        n_classes,
        n_train,
        epochs,
        updates,
        cached,
        round(seconds, 2),
    )


def choose_taps(recipe: Recipe, traced: Traced, probe: ProbeResult | None) -> tuple[Tap, ...]:
    """The activations that the head reads.

    Raises:
        CutError: the recipe names a cut that does not exist.
        RecipeError: a grid is not a number.
    """
    if recipe.taps == "auto" and probe is not None:
        return tuple(probe.candidate.taps)
    if recipe.taps in ("auto", "feature"):
        return (Tap(traced.feature.name),)
    return tuple(_parse_tap(text.strip(), traced) for text in recipe.taps.split("+"))


def _parse_tap(text: str, traced: Traced) -> Tap:
    name, at, grid = text.partition("@")
    if at and not grid.isdigit():
        raise RecipeError(f"taps = {text!r}: the grid after @ must be a number. For example: taps = '{name}@4'.")
    cut = traced.cut(name)
    flat = len(cut.shape) == 1
    return Tap(cut.name, int(grid) if at else (0 if flat else 1))


def choose_cut(recipe: Recipe, traced: Traced, taps: Sequence[Tap], n_train: int) -> str:
    """Above which cut to train.

    "auto" trains the top quarter of the stages below the head with fewer than 100 examples, the top half with
    fewer than 1,000, else all: few examples cannot correct what training low stages spoils.

    Raises:
        RecipeError: a tap lies below the cut, so that the trained part could not compute it.
    """
    if recipe.cut == "output":
        return "output"
    tapped = [traced.cut(tap.cut) for tap in taps]
    lowest = min(tapped, key=lambda cut: cut.index)
    if recipe.cut != "auto":
        return _legal(recipe, traced, lowest.name)
    places = _places(traced, max(tapped, key=lambda cut: cut.index))
    share = 0.25 if n_train < 100 else 0.5 if n_train < 1000 else 1.0
    highest = places[len(places) - max(1, round(share * len(places)))]
    return max((p for p in places if p.index <= min(highest.index, lowest.index)), key=lambda p: p.index).name


def _places(traced: Traced, top: Cut) -> list[Cut]:
    """The input and one cut per stage below `top`, each with parameters between it and the next."""
    places = [traced.cut("input")]
    for stage in traced.stages:
        if places[-1].params_below < stage.params_below < top.params_below:
            places.append(stage)
    return places


def _legal(recipe: Recipe, traced: Traced, lowest: str) -> str:
    cut = traced.cut(recipe.cut)
    if cut.needs_input:
        raise RecipeError(
            f"recipe {recipe.name!r} trains above {cut.name!r}, but what lies above it reads the network's input "
            f"again, so its activation alone is not enough. Train above a stage: recipe.with_(cut={lowest!r})."
        )
    if cut.index > traced.cut(lowest).index:
        raise RecipeError(
            f"recipe {recipe.name!r} trains above {cut.name!r}, but its head also reads {lowest!r}, which "
            f"lies below. Cut there or lower: recipe.with_(cut={lowest!r})."
        )
    return cut.name


def starting_head(plan: Plan, traced: Traced, probe: ProbeResult | None) -> LinearHead:
    """The head that training starts from: a copy of the probe's, or one that scores all classes alike.

    Raises:
        RecipeError: the plan wants the probe's head, but there is none for its taps.
    """
    if plan.recipe.head == "fresh":
        return LinearHead.zeros(feature_width(traced, plan.taps), plan.n_classes)
    if probe is None or tuple(probe.candidate.taps) != plan.taps:
        raise RecipeError(
            f"recipe {plan.recipe.name!r} starts from the head of a probe on "
            f"{' + '.join(map(tap_name, plan.taps))}, but no such probe was given. Fit one with "
            "depth_profile(...) and pass it: probe=profile.best. "
            "Or start from zero: recipe.with_(head='fresh')."
        )
    return copy.deepcopy(probe.fitted.head)


def frozen_prefix(plan: Plan, source: Source, traced: Traced) -> nn.Module:
    """The layers below the plan's cut, from pixels 0..255 to its activation: for rows without a cache."""
    return Prefix(TapModel(traced, [Tap(plan.cut)], source.input.mean, source.input.std))


def upper_network(plan: Plan, source: Source, traced: Traced, head: LinearHead) -> Network:
    """The part of the network that the plan trains, with its own copy of the source's tensors."""
    recipe = plan.recipe
    return network_above(
        traced,
        plan.cut,
        plan.taps,
        head,
        source=source,
        batch_norm=recipe.batch_norm,
        dropout=recipe.dropout,
    )


# rows -----------------------------------------------------------------------------------------------

Tensors = list[tuple[str, Tensor]]


def _body_rows(recipe: Recipe, source: Source, traced: Traced, cut: str, taps: Sequence[Tap]) -> list[PlanRow]:
    members = _members(source, traced, cut, taps)
    top = max((stage for stage, state in members if state == "trained"), default=0)
    statistics = _statistics(traced)
    rows: list[PlanRow] = []
    for (stage, state), tensors in sorted(members.items()):
        group = traced.stages[stage].name if stage < len(traced.stages) else "classifier"
        if state == "trained":
            rows += _trained_stage(group, tensors, recipe, recipe.lr * recipe.layer_decay ** (top - stage), statistics)
        else:
            rows.append(_still_row(group, tensors, state, statistics))
    return rows


def _members(source: Source, traced: Traced, cut: str, taps: Sequence[Tap]) -> dict[tuple[int, State], Tensors]:
    """Every tensor of the source, by the stage it is first used in and by what becomes of it."""
    ends = [tap.cut for tap in taps]
    delivered = between(traced, "input", ends).state_dict().keys()
    trained = set() if cut == "output" else between(traced, cut, ends).state_dict().keys()
    stages = _stage_of(traced)
    members: dict[tuple[int, State], Tensors] = {}
    for name, tensor in source.model.state_dict(keep_vars=True).items():
        state: State = "trained" if name in trained else "frozen" if name in delivered else "dropped"
        members.setdefault((stages.get(name, len(traced.stages)), state), []).append((name, tensor))
    return members


def _stage_of(traced: Traced) -> dict[str, int]:
    """For each tensor in the graph the number of the stage in which it is first used."""
    order = {node: i for i, node in enumerate(traced.graph.graph.nodes)}
    by_name = {node.name: i for node, i in order.items()}
    ends = [by_name[stage.node] for stage in traced.stages]
    return {
        str(node.target): bisect_left(ends, min(order[user] for user in node.users))
        for node in order
        if node.op == "get_attr" and node.users
    }


def _statistics(traced: Traced) -> set[str]:
    """Names of the buffers that batch norms read: those that change in training mode."""
    buffers = {name for name, _ in traced.graph.named_buffers()}
    nodes = [node for node in traced.graph.graph.nodes if node.op == "get_attr" and node.target in buffers]
    return {str(n.target) for n in nodes if any("batch_norm" in str(user.target) for user in n.users)}


def _trained_stage(group: str, tensors: Tensors, recipe: Recipe, rate: float, statistics: set[str]) -> list[PlanRow]:
    named = [(BODY + name, tensor) for name, tensor in tensors]
    rows = trained_rows(group, [(name, t) for name, t in named if isinstance(t, nn.Parameter)], recipe, rate)
    moving = [(name, t) for name, t in tensors if name in statistics and recipe.batch_norm == "train"]
    still = [(n, t) for n, t in tensors if not isinstance(t, nn.Parameter) and (n, t) not in moving]
    if moving:
        names = tuple(BODY + name for name, _ in moving)
        rows.append(PlanRow(f"{group} · statistics", names, 0, "trained", batch_norm="train"))
    if still:
        rows.append(_still_row(f"{group} · statistics", still, "frozen", statistics))
    return rows


def _still_row(group: str, tensors: Tensors, state: State, statistics: set[str]) -> PlanRow:
    count = sum(t.numel() for _, t in tensors if isinstance(t, nn.Parameter))
    norm = "frozen" if any(name in statistics for name, _ in tensors) else ""
    return PlanRow(group, tuple(BODY + name for name, _ in tensors), count, state, batch_norm=norm)


def _head_rows(recipe: Recipe, traced: Traced, taps: Sequence[Tap], n_classes: int, epochs: int) -> list[PlanRow]:
    head = LinearHead.zeros(feature_width(traced, taps), n_classes)
    named = [(HEAD + name, parameter) for name, parameter in head.named_parameters()]
    rows = trained_rows("head", named, recipe, _head_rate(recipe, head.weight.shape[1]))
    if not epochs:
        rows = [replace(row, state="fitted", lr=0.0, weight_decay=0.0) for row in rows]
    buffers = tuple(HEAD + name for name, _ in head.named_buffers())
    return [*rows, PlanRow("head · scaling", buffers, 0, "frozen" if epochs else "fitted")]


def _head_rate(recipe: Recipe, width: int) -> float:
    """Adam moves every weight by about its rate, so scores move by rate times width: a wide head that starts
    at the probe's solution would lose it within a few steps."""
    keep = recipe.head == "probe" and recipe.optimizer == "adamw"
    return recipe.head_lr * min(1.0, HEAD_WIDTH / width) if keep else recipe.head_lr


def _step_seconds(
    recipe: Recipe, source: Source, traced: Traced, cut: str, taps: Sequence[Tap], n_classes: int
) -> float:
    """Of one update: three times a timed forward pass, since the backward pass costs about two."""
    if cut == "output":
        return 0.0
    head = LinearHead.zeros(feature_width(traced, taps), n_classes)
    network = network_above(traced, cut, taps, head, source=source)
    batch = torch.zeros(min(8, recipe.batch_size), *traced.cut(cut).shape)
    with torch.no_grad():
        fastest = min(_timed(network, batch) for _ in range(3))
    return 3 * fastest * recipe.batch_size / len(batch)


def _timed(network: Network, batch: Tensor) -> float:
    began = time.perf_counter()
    network(batch)
    return time.perf_counter() - began
