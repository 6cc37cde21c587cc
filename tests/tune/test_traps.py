"""What goes wrong in other tools without a word: each as a test that it does not here."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from regraft.cut import Traced, trace, trace_source
from regraft.digest import digest_state
from regraft.errors import RecipeError
from regraft.source import Source, make_source
from regraft.spec import InputSpec
from regraft.testing import tiny_source, tiny_text_source
from regraft.tune import (
    ArrayRows,
    Recipe,
    full_network,
    resolve,
    starting_head,
    steps,
    train,
    upper_network,
)
from regraft.tune.optim import make_optimizer, parameter_groups

SHORT = Recipe("short", cut="input", head="fresh", epochs=2, batch_size=4, lr=1e-2, head_lr=1e-2)


class Mixed(nn.Module):
    """Batch norm, group norm and dropout in each of three blocks; biases that start at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.middle, self.high = self.block(3), self.block(8), self.block(8)
        self.linear = nn.Linear(8, 4)

    def block(self, channels: int) -> nn.Sequential:
        conv = nn.Conv2d(channels, 8, 3, padding=1)
        nn.init.zeros_(conv.bias)
        return nn.Sequential(conv, nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, x):
        return self.linear(self.high(self.middle(self.low(x))).mean((2, 3)))


def newly_trained(recipe: Recipe, source: Source, traced: Traced) -> list[set[str]]:
    """The stages that each step of gradual unfreezing trains and the one before did not."""
    plans = steps(recipe, source, traced, 2, n_train=8)
    names = [{n for row in plan.rows if row.state == "trained" for n in row.names} for plan in plans]
    groups = {n: row.group.partition(" · ")[0] for row in plans[-1].rows for n in row.names if n.startswith("body.")}
    return [{groups[n] for n in new - old if n in groups} for old, new in pairwise([set(), *names])]


@pytest.mark.parametrize("source", [tiny_source(), tiny_text_source()], ids=lambda source: source.uri)
def test_a_count_of_layers_means_stages_with_parameters_on_any_network(source: Source) -> None:
    """The third layer from the top was a pooling here and a block there (flash, NAT, Ludwig)."""
    traced = trace_source(source)
    recipe = Recipe("count", head="fresh", taps="feature", unfreeze="auto", epochs=1)
    every = newly_trained(recipe, source, traced)
    assert all(len(stages) == 1 for stages in every) and len(set.union(*every)) == len(every)
    for k in range(1, len(every) + 1):
        assert newly_trained(recipe.with_(unfreeze=k), source, traced) == every[:k]
    with pytest.raises(RecipeError, match=rf"'input' here.*with_\(unfreeze={len(every)}\)"):
        steps(recipe.with_(unfreeze=len(every) + 1), source, traced, 2, n_train=8)


@pytest.fixture(scope="module")
def mixed():
    model = Mixed().eval()
    source = make_source("test:mixed", "python:none:none", {}, model, InputSpec(size=(3, 8, 8)))
    return source, trace(model, torch.zeros(2, 3, 8, 8))


def ready(mixed, **changes):
    plan = resolve(SHORT.with_(**changes), *mixed, 2, n_train=8)
    return plan, upper_network(plan, *mixed, starting_head(plan, mixed[1], None))


def pictures(n: int = 8) -> ArrayRows:
    return ArrayRows(np.random.default_rng(0).integers(0, 255, (n, 3, 8, 8), np.uint8), np.arange(n) % 2)


def trained(mixed, **changes):
    plan, network = ready(mixed, **changes)
    before = copy.deepcopy(network.state_dict())
    train(plan, network, pictures(), None, seed=0)
    return plan, network, before


@pytest.mark.parametrize("batch_norm", ["frozen", "train", "reestimate"])
@pytest.mark.parametrize("frozen", ["low", "middle", "low|middle", "high"])
def test_a_frozen_block_is_byte_identical_wherever_it_lies(mixed, frozen: str, batch_norm: str) -> None:
    """A batch norm in a frozen block goes on learning (fastai, Lightning, Trainer's `model.train()`)."""
    plan, network, before = trained(mixed, freeze=frozen, batch_norm=batch_norm, dropout=True)
    state = network.state_dict()
    still = [n for n in state if n.removeprefix("body.").startswith(tuple(frozen.split("|")))]
    measured = {n for row in plan.rows if row.batch_norm == "reestimate" for n in row.names}
    assert still and all(torch.equal(state[n], before[n]) for n in still if n not in measured)
    moved = {n for n in state if "running" in n and not torch.equal(state[n], before[n])}
    follow = {n for n in state if "running" in n and n not in still} if batch_norm == "train" else measured
    assert moved == follow


def test_frozen_blocks_compute_as_in_evaluation(mixed) -> None:
    """Dropout of a frozen block drops nothing while the block above trains."""
    plan, network = ready(mixed, freeze="low|middle", dropout=True, batch_norm="train", cut="input")
    x = torch.rand(6, 3, 8, 8)
    activations: dict[bool, torch.Tensor] = {}

    class Stop(torch.fx.Interpreter):
        def run_node(self, n):
            value = super().run_node(n)
            if n.name == mixed[1].cut("middle").node:
                activations[network.training] = value
            return value

    for mode in (False, True):
        network.train(mode)
        Stop(network.body).run(x)
    assert torch.equal(activations[False], activations[True])
    assert not torch.equal(network.train(True).features(x), network.train(False).features(x))  # the top does drop
    assert plan.trained


def test_two_zero_biases_are_two_parameters(mixed) -> None:
    """Lightning compared parameters by value: equal biases looked like one."""
    plan, network = ready(mixed, train=r"high\.0\.bias|low\.0\.bias|head")
    groups = parameter_groups(plan, network)
    held = [id(p) for group in groups for p in group["params"]]
    biases = dict(network.named_parameters())
    assert held.count(id(biases["body.low.0.bias"])) == held.count(id(biases["body.high.0.bias"])) == 1
    assert id(biases["body.middle.0.bias"]) not in held


def test_the_optimizer_holds_no_frozen_parameter(mixed) -> None:
    """Weight decay moves whatever an optimizer holds, gradient or not."""
    plan, network = ready(mixed, freeze="low|middle", weight_decay=0.5)
    held = {
        id(p) for group in make_optimizer(plan, parameter_groups(plan, network)).param_groups for p in group["params"]
    }
    for name, parameter in network.named_parameters():
        assert (id(parameter) in held) == parameter.requires_grad == (not name.startswith(("body.low", "body.middle")))


def test_norms_and_biases_have_no_weight_decay(mixed) -> None:
    plan, _ = ready(mixed, weight_decay=0.5)
    decay = {name: row.weight_decay for row in plan.rows for name in row.names}
    assert {decay[n] for n in decay if n.endswith("bias") or ".1." in n or ".2." in n} == {0.0}
    assert decay["body.high.0.weight"] == decay["head.weight"] == 0.5


def test_what_thaws_has_its_own_rate_not_the_heads(mixed) -> None:
    """An unfrozen group was appended to the head's and learnt at its rate."""
    plan, network = ready(mixed, freeze="low", lr=1e-4, head_lr=1e-1, rates={"middle": 5e-5})
    top = {id(p): group["top_lr"] for group in parameter_groups(plan, network) for p in group["params"]}
    rate = {name: top[id(p)] for name, p in network.named_parameters() if id(p) in top}
    assert rate["head.weight"] == 1e-1 and rate["body.high.0.weight"] == 1e-4
    assert rate["body.middle.0.weight"] == 5e-5


def test_the_last_block_does_train(mixed) -> None:
    """Epoch counters and layer counts skipped a block; here every block that a plan trains has moved after it."""
    for pattern in ("low", "middle", "high", "low|middle|high"):
        plan, network, before = trained(mixed, train=f"({pattern}).*weight|head")
        for name in plan.trained:
            assert not torch.equal(network.state_dict()[name], before[name]), name


def test_nothing_is_dropped_without_a_word(mixed) -> None:
    """`strict=False` lets a wrong checkpoint pass in silence."""
    plan, network = ready(mixed)
    wrong = {f"module.{name}": value for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"module\.body"):
        full_network(*mixed, plan.taps, network.head, wrong)
    bent = {**network.state_dict(), "body.low.0.weight": torch.zeros(1)}
    with pytest.raises(RuntimeError, match="size mismatch"):
        full_network(*mixed, plan.taps, network.head, bent)


def test_evaluation_in_between_leaves_no_mode_behind(mixed) -> None:
    """After an evaluation training went on in evaluation mode, or evaluation ran with dropout on."""
    plan, network = ready(mixed, dropout=True, batch_norm="train", epochs=3)
    modes: list[tuple[str, bool]] = []
    forward = network.forward
    network.forward = lambda batch: (modes.append(("grad" if torch.is_grad_enabled() else "no", network.training)),
                                     forward(batch))[1]  # fmt: skip
    train(plan, network, pictures(), pictures(6), seed=0)
    assert set(modes) == {("grad", True), ("no", False)} and not network.training


def test_a_pattern_without_a_match_never_trains_everything(mixed) -> None:
    """Ludwig logs an error and trains the whole network."""
    for field in ("train", "freeze", "restore"):
        with pytest.raises(RecipeError, match="matches no tensor"):
            ready(mixed, **{field: "layer4"})


def test_a_resumed_run_does_not_freeze_again_or_thaw(mixed, tmp_path) -> None:
    plan, network = ready(mixed, freeze="middle", epochs=3, dropout=True)
    again, path = copy.deepcopy(network), tmp_path / "checkpoint.pt"
    before = copy.deepcopy(network.state_dict())
    train(plan, network, pictures(), None, seed=0, checkpoint=path)

    def stop(event) -> None:
        if event.kind == "epoch" and event.epoch == 1:
            raise KeyboardInterrupt

    path.unlink()
    with pytest.raises(KeyboardInterrupt):
        train(plan, copy.deepcopy(again), pictures(), None, seed=0, checkpoint=path, on_event=stop)
    train(plan, again, pictures(), None, seed=0, checkpoint=path)
    assert digest_state(again.state_dict()) == digest_state(network.state_dict())
    assert all(torch.equal(v, before[n]) for n, v in again.state_dict().items() if n.startswith("body.middle"))


def test_a_source_is_never_changed_by_training_on_it(mixed) -> None:
    source = mixed[0]
    before = digest_state(source.model.state_dict())
    trained(mixed, batch_norm="train", dropout=True)
    assert digest_state(source.model.state_dict()) == before == source.weights_digest


class Branching(nn.Module):
    """Branches on values, so that it cannot be exported and stays a whole layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x)) if x.sum() > -1e9 else x


@pytest.mark.parametrize("batch_norm", ["frozen", "train", "reestimate"])
def test_layers_that_cannot_be_exported_freeze_and_train_alike(batch_norm: str) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), Branching(), Branching(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3)
    )
    source = make_source("test:branching", "python:none:none", {}, model, InputSpec(size=(3, 8, 8)))
    traced = trace(source.model, torch.zeros(2, 3, 8, 8))
    assert traced.fallback_reason
    plan, network, before = trained((source, traced), cut="input", freeze="^1", batch_norm=batch_norm, dropout=True)
    moved = {n for n, v in network.state_dict().items() if not torch.equal(v, before[n])}
    low = {n for n in before if n.startswith("body.1.")}
    measured = {n for row in plan.rows if row.batch_norm == "reestimate" for n in row.names}
    assert low & moved == low & measured and {"body.2.conv.weight", "body.0.weight"} <= moved
    assert ("body.2.norm.running_mean" in moved) == (batch_norm != "frozen")
