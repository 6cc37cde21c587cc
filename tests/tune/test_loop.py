"""The loop's laws: what is frozen stays, what is resumed ends alike, what is asked for is reached."""

from __future__ import annotations

import copy
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from regraft.cache import Tap, frozen_pass
from regraft.cut import trace
from regraft.data import Transform, read
from regraft.digest import digest_state
from regraft.errors import RecipeError, RunError
from regraft.head import LinearHead
from regraft.source import make_source
from regraft.spec import InputSpec
from regraft.tune import (
    RECIPES,
    ArrayRows,
    CacheRows,
    LiveRows,
    Recipe,
    frozen_prefix,
    full_network,
    plan_whole,
    resolve,
    starting_head,
    train,
    upper_network,
)

QUICK = Recipe("quick", cut="block2", head="fresh", epochs=3, batch_size=8, lr=1e-2, head_lr=1e-2)


def rows(tiny, *, augment="none") -> tuple[ArrayRows, ArrayRows]:
    return (
        ArrayRows(tiny.pixels[:24], tiny.labels[:24], augment=augment),
        ArrayRows(tiny.pixels[24:], tiny.labels[24:]),
    )


def ready(tiny, recipe: Recipe):
    plan = resolve(recipe, tiny.source, tiny.traced, 3, n_train=24)
    return plan, upper_network(plan, tiny.source, tiny.traced, starting_head(plan, tiny.traced, None))


def activations(tiny, cut: str) -> torch.Tensor:
    plan = resolve(QUICK.with_(cut=cut), tiny.source, tiny.traced, 3, n_train=24)
    with torch.no_grad():
        return frozen_prefix(plan, tiny.source, tiny.traced)(torch.from_numpy(tiny.pixels))


# frozen ---------------------------------------------------------------------------------------------


class Mixed(nn.Module):
    """Batch norm, group norm and dropout, each below and above a cut."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.ReLU())
        self.high = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5))
        self.linear = nn.Linear(8, 4)

    def forward(self, x):
        return self.linear(self.high(self.middle(self.low(x))).mean((2, 3)))


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_frozen_tensors_are_byte_identical(batch_norm: str) -> None:
    model = Mixed().eval()
    source = make_source("test:mixed", "python:none:none", {}, model, InputSpec(size=(3, 12, 12)))
    traced = trace(model, torch.zeros(2, 3, 12, 12))
    before = copy.deepcopy(model.state_dict())
    recipe = QUICK.with_(cut="middle", batch_norm=batch_norm, dropout=True)
    plan = resolve(recipe, source, traced, 2, n_train=8)
    network = upper_network(plan, source, traced, starting_head(plan, traced, None))
    start = copy.deepcopy(network.state_dict())
    pixels, labels = np.random.default_rng(0).integers(0, 255, (8, 3, 12, 12), np.uint8), np.arange(8) % 2
    live = PrefixedRows(ArrayRows(pixels, labels), frozen_prefix(plan, source, traced))
    train(plan, network, live, None, seed=0)
    assert digest_state(model.state_dict()) == digest_state(before)
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, start[k])}
    statistics = {"body.high.1.running_mean", "body.high.1.running_var"}
    assert changed & statistics == (statistics if batch_norm == "train" else set())
    assert "body.high.0.weight" in changed and "head.weight" in changed and "head.mean" not in changed


class PrefixedRows:
    """Pixels through frozen layers, batch by batch."""

    def __init__(self, inner: ArrayRows, prefix: nn.Module) -> None:
        self.inner, self.prefix, self.labels, self.lengths = inner, prefix, inner.labels, inner.lengths

    def __len__(self) -> int:
        return len(self.labels)

    @torch.no_grad()
    def batch(self, indices: np.ndarray, epoch: int) -> torch.Tensor:
        assert self.prefix is not None and not any(m.training for m in self.prefix.modules())
        return self.prefix(self.inner.batch(indices, epoch))


def test_a_frozen_tensor_that_changes_is_noticed(tiny) -> None:
    plan, network = ready(tiny, QUICK.with_(cut="input"))

    def meddle(event) -> None:
        network.head.mean += 1

    with pytest.raises(RecipeError, match="frozen tensor changed in epoch 1"):
        train(plan, network, *rows(tiny), seed=0, on_event=meddle)


def test_freezing_everything_and_replacing_nothing_changes_no_prediction(tiny) -> None:
    """The classifier itself as the head: the same numbers, bit for bit."""
    classifier = tiny.source.model.classifier
    head = LinearHead.zeros(32, 10)
    head.load_state_dict({**head.state_dict(), "weight": classifier.weight, "bias": classifier.bias})
    recipe = Recipe("keep", cut="input", epochs=2, lr=0.0, head_lr=0.0, weight_decay=0.0)
    plan = resolve(recipe, tiny.source, tiny.traced, 10, n_train=24)
    network = upper_network(plan, tiny.source, tiny.traced, head)
    x = torch.from_numpy(tiny.pixels).float()
    before = network(x)
    train(plan, network, *rows(tiny), seed=0)
    assert torch.equal(network(x), before)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (tiny.source.input.mean, tiny.source.input.std))
    torch.testing.assert_close(before, tiny.source.model((x / 255 - mean) / std))


def test_nothing_to_train_runs_through(tiny) -> None:
    plan, network = ready(tiny, RECIPES["probe"].with_(head="fresh", epochs=1))
    plan = replace(plan, n_epochs=0, updates=0)
    features = activations(tiny, "mean").numpy()
    history = train(plan, network, ArrayRows(features, tiny.labels), ArrayRows(features, tiny.labels), seed=0)
    assert [row.epoch for row in history.rows] == [0] and history.kept_epoch == 0


class Reshaped(nn.Module):
    """`view` on a filter's output forbids the channels-last layout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 2)

    def forward(self, x):
        y = self.conv(x)
        return self.linear(y.view(len(y), -1))


def test_networks_that_forbid_channels_last_train_without_it() -> None:
    network = Reshaped()
    data = ArrayRows(np.ones((4, 3, 8, 8), np.float32), np.array([0, 1, 0, 1]))
    plan = plan_whole(QUICK, network, source="test", n_classes=2, n_train=4)
    assert len(train(plan, network, data, data, seed=0).rows) == 4


# reached --------------------------------------------------------------------------------------------


class Detour(nn.Module):
    """`lost` is a parameter that the loss never sees."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.lost = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        return self.used(x)


def test_parameters_out_of_reach_are_named() -> None:
    network = Detour()
    plan = plan_whole(QUICK, network, source="test", n_classes=2, n_train=4)
    data = ArrayRows(np.ones((4, 4), np.float32), np.array([0, 1, 0, 1]))
    with pytest.raises(RecipeError, match=r"lost\.weight, lost\.bias"):
        train(plan, network, data, None, seed=0)


class Named(nn.Module):
    """A layer called as PEFT calls what its adapters adapt; some networks of timm have one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"base_layer": nn.Linear(4, 2)})

    def forward(self, x):
        return self.body["base_layer"](x)


def test_a_layer_called_base_layer_keeps_its_name(tiny) -> None:
    network, data = Named(), ArrayRows(np.ones((4, 4), np.float32), np.array([0, 1, 0, 1]))
    plan = plan_whole(QUICK, network, source="test", n_classes=2, n_train=4)
    assert len(train(plan, network, data, data, seed=0).rows) == 4


def test_a_plan_for_another_network_is_refused(tiny) -> None:
    plan, _ = ready(tiny, QUICK)
    with pytest.raises(RecipeError, match=r"used\.weight"):
        train(plan, Detour(), *rows(tiny), seed=0)


# cache and pictures ---------------------------------------------------------------------------------


def test_training_on_the_cache_and_on_pictures_gives_the_same_history(tiny, tmp_path) -> None:
    data = read((tiny.pixels.transpose(0, 2, 3, 1), tiny.labels), test_fraction=0.0)
    training, val = data.split("train"), data.split("val")
    plan, cached = ready(tiny, QUICK)
    caches, _ = frozen_pass(data, tiny.source, tiny.traced, [Tap(plan.cut)], root=tmp_path, runtime="torch")
    live = copy.deepcopy(cached)
    on_cache = [CacheRows(caches[Tap(plan.cut)], part.keys, part.labels) for part in (training, val)]
    prefix, transform = frozen_prefix(plan, tiny.source, tiny.traced), Transform(tiny.source.input)
    on_pictures = [LiveRows(part, transform, prefix) for part in (training, val)]
    first = train(plan, cached, *on_cache, seed=1)
    second = train(plan, live, *on_pictures, seed=1)
    np.testing.assert_allclose(np.array(first.metrics()[1:], float), np.array(second.metrics()[1:], float), atol=1e-4)


def test_the_trained_part_grafts_into_the_whole_network(tiny) -> None:
    plan, network = ready(tiny, QUICK)
    values = activations(tiny, plan.cut)
    train(plan, network, ArrayRows(values.numpy(), tiny.labels), None, seed=0)
    whole = full_network(tiny.source, tiny.traced, plan.taps, network.head, network.state_dict())
    torch.testing.assert_close(whole(torch.from_numpy(tiny.pixels)), network(values))


# resume ---------------------------------------------------------------------------------------------


class StopError(Exception):
    """Stands for anything that ends a run."""


@pytest.mark.parametrize("moment", [("epoch", 1), ("step", 2), ("epoch", 3)])
def test_resumed_equals_uninterrupted(tiny, tmp_path, moment: tuple[str, int]) -> None:
    recipe = RECIPES["scratch"].with_(epochs=4, min_updates=0, batch_size=8, augment="flip-crop")
    plan, whole = ready(tiny, recipe)
    broken, again = copy.deepcopy(whole), copy.deepcopy(whole)
    data = rows(tiny, augment="flip-crop")
    expected = train(plan, whole, *data, seed=3)

    def stop(event) -> None:
        if (event.kind, event.epoch) == moment:
            raise StopError

    path = tmp_path / "run" / "checkpoint.pt"
    with pytest.raises(StopError):
        train(plan, broken, *data, seed=3, checkpoint=path, on_event=stop)
    assert not broken.training
    resumed = train(plan, again, *data, seed=3, checkpoint=path)
    assert resumed.metrics() == expected.metrics() and resumed.kept_epoch == expected.kept_epoch
    assert digest_state(again.state_dict()) == digest_state(whole.state_dict())
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


TOY = """
import os, signal
import numpy as np, torch
from pathlib import Path
from torch import nn
from regraft.tune import ArrayRows, Recipe, plan_whole, train

def toy(checkpoint, killed):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.5), nn.BatchNorm1d(16), nn.Linear(16, 2))
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    data = ArrayRows(x, (x[:, 0] > 0).astype(int))
    recipe = Recipe("toy", epochs=5, batch_size=8, batch_norm="train")
    plan = plan_whole(recipe, network, source="test", n_classes=2, n_train=40)

    def kill(event):
        if killed and event.kind == "step" and event.updates == 13:
            os.kill(os.getpid(), signal.SIGKILL)

    history = train(plan, network, data, data, seed=0, checkpoint=Path(checkpoint), on_event=kill)
    return history.metrics(), {k: v.tolist() for k, v in network.state_dict().items()}
"""


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    broken, whole = tmp_path / "broken.pt", tmp_path / "whole.pt"
    command = [sys.executable, "-c", f"{TOY}\ntoy({str(broken)!r}, killed=True)"]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    namespace: dict = {}
    exec(TOY, namespace)
    assert namespace["toy"](broken, killed=False) == namespace["toy"](whole, killed=False)


def test_another_runs_checkpoint_is_refused(tiny, tmp_path) -> None:
    plan, network = ready(tiny, QUICK.with_(cut="input"))
    path = tmp_path / "checkpoint.pt"
    train(plan, network, *rows(tiny), seed=0, checkpoint=path)
    with pytest.raises(RunError, match="another run"):
        train(plan, network, *rows(tiny), seed=1, checkpoint=path)


# what is kept ---------------------------------------------------------------------------------------


def test_the_best_epoch_is_kept_and_epoch_0_counts(tiny) -> None:
    ruin = QUICK.with_(cut="input", lr=50.0, head_lr=50.0, clip=0.0, batch_norm="train")
    plan, network = ready(tiny, ruin)
    torch.manual_seed(1)
    nn.init.normal_(network.head.weight)
    before = digest_state(network.state_dict())
    training, _ = rows(tiny)
    with torch.no_grad():  # labels that the start gets right: nothing can be better
        right = network(torch.from_numpy(tiny.pixels[24:]).float()).argmax(1).numpy()
    history = train(plan, network, training, ArrayRows(tiny.pixels[24:], right), seed=0)
    assert history.kept_epoch == 0 and history.kept.val_accuracy == 1.0
    assert digest_state(network.state_dict()) == before


@pytest.mark.parametrize("keep", ["best", "last"])
def test_patience_ends_a_run_that_no_longer_improves(tiny, keep: str) -> None:
    plan, network = ready(tiny, QUICK.with_(cut="input", lr=0.0, head_lr=0.0, epochs=50, patience=3, keep=keep))
    history = train(plan, network, *rows(tiny), seed=0)
    assert [row.epoch for row in history.rows] == [0, 1, 2, 3]


@pytest.mark.parametrize("changes", [{}, {"keep": "last"}, {"average": "soup"}, {"average": "ema"}], ids=str)
def test_a_run_that_diverges_ends_with_the_last_weights_that_were_numbers(tiny, tmp_path, changes: dict) -> None:
    wild = QUICK.with_(cut="input", lr=1e30, head_lr=1e30, clip=0.0, optimizer="sgd", epochs=50, **changes)
    plan, network = ready(tiny, wild)
    checkpoint = tmp_path / "training.pt"
    history = train(plan, network, *rows(tiny), seed=0, checkpoint=checkpoint)
    assert 0 < history.diverged < 50 and history.rows[-1].epoch == history.diverged - 1
    assert all(values.isfinite().all() for values in network.state_dict().values())
    resumed = train(plan, ready(tiny, wild)[1], *rows(tiny), seed=0, checkpoint=checkpoint)
    assert (resumed.diverged, resumed.metrics()) == (history.diverged, history.metrics())


def test_a_last_batch_of_one_row_leaves_batch_norms_their_statistics(tiny) -> None:
    plan, network = ready(tiny, QUICK.with_(cut="input", batch_norm="train", batch_size=23))
    history = train(plan, network, *rows(tiny), seed=0)
    assert history.rows[-1].updates == plan.updates == plan.n_epochs
    assert not history.diverged


def test_a_time_limit_stops_before_the_first_epoch(tiny) -> None:
    plan, network = ready(tiny, QUICK.with_(cut="input", epochs=50))
    assert len(train(plan, network, *rows(tiny), seed=0, time_limit=0.0).rows) == 1


def test_a_time_limit_holds_the_evaluation_after_the_last_update(tiny) -> None:
    class Slow(ArrayRows):
        def batch(self, indices: np.ndarray, epoch: int) -> torch.Tensor:
            time.sleep(0.6)
            return super().batch(indices, epoch)

    plan, network = ready(tiny, QUICK.with_(cut="input", epochs=50))
    validation = Slow(tiny.pixels[24:], tiny.labels[24:])
    assert train(plan, network, rows(tiny)[0], validation, seed=0, time_limit=1.0).rows[-1].updates == 0


def test_a_time_limit_stops_within_an_epoch(tiny, monkeypatch) -> None:
    plan, network = ready(tiny, QUICK.with_(cut="input", batch_size=4, epochs=3))
    clock = iter(range(10_000))
    monkeypatch.setattr(
        "regraft.tune.loop.time.perf_counter", lambda: float(next(clock))
    )  # each look at the clock is a second
    history = train(plan, network, *rows(tiny), seed=0, time_limit=6.0)
    assert 0 < history.rows[-1].updates < plan.updates // 3
    assert history.rows[-1].train_loss is not None


def test_it_learns(tiny) -> None:
    plan, network = ready(tiny, RECIPES["scratch"].with_(min_updates=120, batch_size=8, precision="bfloat16"))
    history = train(plan, network, *rows(tiny), seed=0)
    assert history.rows[-1].train_loss < 0.5 * history.rows[1].train_loss
    assert history.kept.val_accuracy >= 0.7


def test_one_seed_is_one_history_and_events_tell_it(tiny) -> None:
    told: list[str] = []
    plan, first = ready(tiny, QUICK.with_(cut="input"))
    second, other = copy.deepcopy(first), copy.deepcopy(first)
    data = rows(tiny)
    a = train(plan, first, *data, seed=0, on_event=lambda e: told.append(e.kind))
    assert a.metrics() == train(plan, second, *data, seed=0).metrics()
    assert a.metrics() != train(plan, other, *data, seed=1).metrics()
    assert told == ["start", *(["step"] * 3 + ["epoch"]) * 3, "finish"]
