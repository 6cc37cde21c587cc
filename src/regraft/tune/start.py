"""Where training starts: the head, the values of fresh layers, and the network above the plan's cut."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from regraft.cache import Tap, TapModel
from regraft.cut import Traced
from regraft.errors import RecipeError
from regraft.head import make_head
from regraft.probe import ProbeResult
from regraft.source import Source, build
from regraft.tune.edit import edited
from regraft.tune.lora import adapt, adapted_layers
from regraft.tune.network import Modes, Network, Prefix, head_shape, network_above
from regraft.tune.plan import BODY, Plan, tap_name
from regraft.tune.recipe import Recipe


def starting_head(plan: Plan, traced: Traced, probe: ProbeResult | None, *, seed: int = 0) -> nn.Module:
    """The head that training starts from: a copy of the probe's, or one that scores all classes alike.

    Args:
        plan: what the head reads, and whether it starts from a probe.
        traced: the source's graph.
        probe: `profile.best` or `profile.single`, whichever the plan was made with.
        seed: of a fresh head's inner layers.

    Raises:
        RecipeError: the plan wants the probe's head, but there is none for its taps.
    """
    recipe = plan.recipe
    if recipe.head == "fresh":
        return fresh_head(recipe, traced, plan.taps, plan.n_classes, seed=seed)
    if probe is None or tuple(probe.candidate.taps) != plan.taps or probe.fitted.head.weight.is_meta:
        raise RecipeError(
            f"recipe {recipe.name!r} starts from the head of a probe on "
            f"{' + '.join(map(tap_name, plan.taps))}, but no such probe was given. Fit one with "
            "depth_profile(...) and pass it: probe=profile.best or profile.single. "
            "Or start from zero: recipe.with_(head='fresh')."
        )
    return copy.deepcopy(probe.fitted.head)


def fresh_head(recipe: Recipe, traced: Traced, taps: Sequence[Tap], n_classes: int, *, seed: int = 0) -> nn.Module:
    """A recipe's head layers for what some taps give; it scores all classes alike.

    Args:
        recipe: whose `head_layers`.
        traced: the source's graph.
        taps: what the head reads.
        n_classes: of the head.
        seed: of its inner layers.
    """
    shape, layout = head_shape(edited(traced, recipe), taps, recipe.head_layers)
    return make_head(recipe.head_layers, shape, layout, n_classes, seed=seed)


def frozen_prefix(plan: Plan, source: Source, traced: Traced) -> nn.Module:
    """The layers below the plan's cut, from prepared rows to its activation: for rows without a cache."""
    return Prefix(TapModel(traced, [Tap(plan.cut)], source.input))


def upper_network(plan: Plan, source: Source, traced: Traced, head: nn.Module, *, seed: int = 0) -> Network:
    """The part of the network above the plan's cut, with its own copy of the source's tensors.

    Args:
        plan: where it begins, what is replaced, what starts fresh.
        source: the network.
        traced: its graph.
        head: its tensors are copied.
        seed: of the layers that start anew.
    """
    changing = frozenset(name.removeprefix(BODY) for name in plan.trained)
    moving = any(row.batch_norm == "train" for row in plan.rows if row.state == "trained")
    network = network_above(
        edited(traced, plan.recipe, seed=seed),
        plan.cut,
        plan.taps,
        head,
        source=source,
        modes=Modes("train" if moving else "frozen", plan.recipe.dropout, changing),
    )
    if plan.recipe.restore:
        _renew(network, plan, source, seed)
    if plan.recipe.lora:
        assert network.body is not None
        adapt(network.body, adapted_layers(changing), plan.recipe, seed=seed)
    return network


@torch.no_grad()
def _renew(network: Network, plan: Plan, source: Source, seed: int) -> None:
    """Give the tensors that are not restored the values of a newly built network."""
    own = network.state_dict()
    fresh = {n for row in plan.rows if row.start == "fresh" for n in row.names if n in own and n.startswith(BODY)}
    values = _built(source, seed)
    for name in fresh:
        value = values.get(name.removeprefix(BODY))
        if value is not None and value.shape == own[name].shape:  # layers of replaced blocks are fresh already
            own[name].copy_(value)


def _built(source: Source, seed: int) -> dict[str, Tensor]:
    # Not the seed itself: a source with random weights may have been made with it, and would come out the same.
    return build(source.arch, source.arch_args, seed=seed + 1)[0].state_dict()
