"""From a plan's rows to an optimizer, and from a step to a rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from regraft.errors import RecipeError
from regraft.tune.lora import adapted_layers, plan_name
from regraft.tune.plan import Plan


def parameter_groups(plan: Plan, network: nn.Module) -> list[dict]:
    """One optimizer group per trained row of the plan; all other parameters stop asking for gradients.

    Groups are made by name, never by value: two biases that both start at zero are two parameters.

    Raises:
        RecipeError: a parameter of the network is in no row.
    """
    held = dict(network.named_parameters())
    layers = adapted_layers(held)
    parameters = {plan_name(name, layers): parameter for name, parameter in held.items()}
    trained = {name for row in plan.rows if row.state == "trained" for name in row.names}
    strays = sorted(set(parameters) - {name for row in plan.rows for name in row.names})
    if strays:
        raise RecipeError(
            f"the plan must name each parameter of the network, but not so {', '.join(strays[:5])}. "
            "Make the plan for this network: resolve(recipe, source, traced, n_classes, ...)."
        )
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in trained)
    return [
        {
            "params": [parameters[name] for name in row.names if name in parameters],
            "lr": row.lr,
            "top_lr": row.lr,
            "weight_decay": row.weight_decay,
        }
        for row in plan.rows
        if row.state == "trained" and any(name in parameters for name in row.names)
    ]


def make_optimizer(plan: Plan, groups: list[dict]) -> torch.optim.Optimizer:
    """The recipe's optimizer over some groups; fused, because on cached activations its own arithmetic counts."""
    recipe = plan.recipe
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)
    return (torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW)(groups, fused=True)


def rate_factor(schedule: str, warmup: float, step: int, steps: int) -> float:
    """What the top rate is multiplied with at a step.

    Args:
        schedule: "cosine", "linear", "onecycle" or "constant".
        warmup: share of the steps in which the factor rises.
        step: from 0.
        steps: of the whole run.

    Example:
        >>> [round(rate_factor("cosine", 0.2, step, 10), 2) for step in (0, 1, 2, 6, 9)]
        [0.5, 1.0, 1.0, 0.5, 0.04]
    """
    rising = int(warmup * steps)
    if step < rising:
        if schedule == "onecycle":  # starts at a 25th, as in the paper's experiments
            return 0.04 + 0.96 * (1 - math.cos(math.pi * step / rising)) / 2
        return (step + 1) / rising
    if schedule == "constant":
        return 1.0
    done = (step - rising) / max(1, steps - rising)
    return 1 - done if schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
