"""Losses, disturbances, optimizers and averages: each acts, as its paper says, and survives a resume."""

from __future__ import annotations

import copy
import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from regraft.digest import digest_state
from regraft.errors import RecipeError
from regraft.spec import AudioSpec
from regraft.testing import tiny_source
from regraft.tune import ArrayRows, Recipe, check_views, plan_whole, resolve, starting_head, train, upper_network
from regraft.tune.averaging import MovingAverage, best_share, between, greedy_soup
from regraft.tune.objective import TEMPERATURE, Objective, Pull, balanced, clip_gradients, contrast, mixed, noisy
from regraft.tune.optim import rate_factor

STEPS = Recipe("steps", cut="input", head="fresh", epochs=3, batch_size=8, lr=1e-2, head_lr=1e-2, dropout=True)


def rows(tiny) -> tuple[ArrayRows, ArrayRows]:
    return ArrayRows(tiny.pixels[:24], tiny.labels[:24]), ArrayRows(tiny.pixels[24:], tiny.labels[24:])


def ready(tiny, recipe: Recipe):
    plan = resolve(recipe, tiny.source, tiny.traced, 3, n_train=24)
    return plan, upper_network(plan, tiny.source, tiny.traced, starting_head(plan, tiny.traced, None))


def result(tiny, **changes):
    plan, network = ready(tiny, STEPS.with_(**changes))
    history = train(plan, network, *rows(tiny), seed=0)
    return history, network.state_dict()


OPTIONS = [
    {"mixup": 0.4, "noise": 0.2},
    {"class_weights": "balanced", "label_smoothing": 0.1},
    {"l2_sp": 0.5, "clip_value": 1e-3},
    {"optimizer": "adam", "schedule": "linear"},
    {"optimizer": "sgd", "momentum": 0.0, "schedule": "onecycle"},
    {"average": "ema", "batch_norm": "train"},
    {"average": "soup"},
    {"interpolate": "auto", "batch_norm": "reestimate"},
    {"interpolate": 0.5, "keep": "last"},
    {"restore": "stem|block1", "rates": {"head": 0.1}},
]


class StopError(Exception):
    """Stands for anything that ends a run."""


@pytest.mark.parametrize("changes", OPTIONS, ids=lambda changes: " ".join(changes))
def test_each_option_survives_a_resume_bit_for_bit(tiny, tmp_path, changes: dict) -> None:
    plan, whole = ready(tiny, STEPS.with_(**changes))
    broken, again = copy.deepcopy(whole), copy.deepcopy(whole)
    expected = train(plan, whole, *rows(tiny), seed=3)

    def stop(event) -> None:
        if (event.kind, event.updates) == ("step", 5):
            raise StopError

    path = tmp_path / "checkpoint.pt"
    with pytest.raises(StopError):
        train(plan, broken, *rows(tiny), seed=3, checkpoint=path, on_event=stop)
    resumed = train(plan, again, *rows(tiny), seed=3, checkpoint=path)
    assert resumed.metrics() == expected.metrics() and resumed.made_of == expected.made_of
    assert digest_state(again.state_dict()) == digest_state(whole.state_dict())


@pytest.mark.parametrize("changes", OPTIONS[:5], ids=lambda changes: " ".join(changes))
def test_each_option_makes_a_difference(tiny, changes: dict) -> None:
    uneven = ArrayRows(tiny.pixels[:20], np.where(tiny.labels[:20] == 2, 1, tiny.labels[:20]))
    plain, other = ready(tiny, STEPS)[1], ready(tiny, STEPS.with_(**changes))[1]
    for recipe, network in ((STEPS, plain), (STEPS.with_(**changes), other)):
        train(resolve(recipe, tiny.source, tiny.traced, 3, n_train=20), network, uneven, None, seed=0)
    assert digest_state(plain.state_dict()) != digest_state(other.state_dict())


# loss and rows --------------------------------------------------------------------------------------


def test_the_plain_loss_is_cross_entropy_with_smoothing() -> None:
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    objective = Objective(Recipe("r", label_smoothing=0.2), labels.tolist(), 4)
    _, shares = objective.prepared(torch.zeros(6, 2), labels)
    torch.testing.assert_close(objective(logits, shares), F.cross_entropy(logits, labels, label_smoothing=0.2))


def test_balanced_classes_count_alike() -> None:
    labels = np.array([0] * 6 + [1] * 2 + [2] * 4)
    weights = balanced(labels, 3)
    totals = [weights[c] * n for c, n in sorted(Counter(labels.tolist()).items())]
    np.testing.assert_allclose(totals, [4, 4, 4], rtol=1e-6)
    assert float(balanced([0, 0, 2], 3)[[0, 0, 2]].mean()) == 1.0  # classes without rows take no part


def test_mixed_rows_and_labels_have_one_weight() -> None:
    rows, shares = torch.eye(5), torch.eye(5)
    torch.manual_seed(3)
    x, y = mixed(rows, shares, 0.5)
    torch.testing.assert_close(x, y)  # rows were their labels, and are
    torch.testing.assert_close(y.sum(1), torch.ones(5))
    assert 0 < float(y.diagonal().min()) < 1


def test_mixed_texts_are_as_long_as_the_shorter_of_the_two() -> None:
    lengths = torch.tensor([2, 4, 6, 3, 5])
    tokens = torch.ones(5, 6, 3).masked_fill(torch.arange(6)[:, None] >= lengths[:, None, None], torch.nan)
    torch.manual_seed(3)
    x, y = mixed(tokens, torch.eye(5), 0.5)
    shorter = torch.stack([lengths[row > 0].min() for row in y])  # of each text and the one that it is mixed with
    assert (shorter < lengths).any() and torch.equal((~x[..., 0].isnan()).sum(1), shorter)


def test_noise_is_measured_in_each_channels_own_spread() -> None:
    rows = torch.randn(400, 2, 5, 5) * torch.tensor([1.0, 100.0]).view(1, 2, 1, 1)
    spread = (noisy(rows, 0.3) - rows).std((0, 2, 3))
    torch.testing.assert_close(spread, torch.tensor([0.3, 30.0]), rtol=0.05, atol=0)
    assert torch.equal(noisy(torch.ones(4, 3), 0.3), torch.ones(4, 3))


def test_the_pull_is_the_gradient_of_the_distance_to_the_start() -> None:
    layer = nn.Linear(3, 2)
    start = layer.weight.detach().clone()
    pull = Pull({"weight": layer.weight}, {"weight": 0.3}, {"weight": start})
    with torch.no_grad():
        layer.weight += torch.randn(2, 3)
    x = torch.randn(5, 3)
    layer(x).square().sum().backward()
    pull()
    by_hand, layer.weight.grad = layer.weight.grad, None
    (layer(x).square().sum() + 0.3 / 2 * (layer.weight - start).square().sum()).backward()
    torch.testing.assert_close(by_hand, layer.weight.grad)


def test_pulled_layers_end_nearer_to_the_source_and_new_ones_decay(tiny) -> None:
    plan, network = ready(tiny, STEPS.with_(l2_sp=10.0, optimizer="sgd", clip=0.0))
    rows_by_name = {name: row for row in plan.rows for name in row.names}
    assert rows_by_name["body.block3.conv.weight"].pull == 10 and rows_by_name["head.weight"].pull == 0
    assert rows_by_name["body.block3.conv.weight"].weight_decay == 0 < rows_by_name["head.weight"].weight_decay
    start = copy.deepcopy(network.state_dict())
    train(plan, network, rows(tiny)[0], None, seed=0)
    plain_plan, plain = ready(tiny, STEPS.with_(optimizer="sgd", clip=0.0))
    train(plain_plan, plain, rows(tiny)[0], None, seed=0)
    name = "body.block3.conv.weight"
    moved = [(net.state_dict()[name] - start[name]).norm() for net in (network, plain)]
    assert 0 < moved[0] < moved[1]


def test_gradients_are_clipped_by_value_and_by_norm() -> None:
    parameter = nn.Parameter(torch.zeros(4))
    parameter.grad = torch.tensor([5.0, -5.0, 0.1, 0.0])
    clip_gradients([parameter], Recipe("r", clip_value=1.0, clip=0.0))
    assert parameter.grad.tolist() == pytest.approx([1.0, -1.0, 0.1, 0.0])
    clip_gradients([parameter], Recipe("r", clip=0.5))
    assert float(parameter.grad.norm()) == pytest.approx(0.5, rel=1e-4)


def test_schedules_end_where_they_should() -> None:
    linear = [rate_factor("linear", 0.2, step, 10) for step in range(10)]
    assert linear[:3] == [0.5, 1.0, 1.0] and linear[-1] == pytest.approx(1 / 8)
    assert all(a - b == pytest.approx(1 / 8) for a, b in pairwise(linear[2:]))


# averages -------------------------------------------------------------------------------------------


def test_the_moving_average_follows_its_formula_and_leaves_training_alone() -> None:
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.0)
    average, by_hand = MovingAverage(layer, {"weight"}), 0.0
    for update in range(1, 40):
        with torch.no_grad():
            layer.weight.fill_(float(update))
        average.update(update)
        decay = min(0.99, (1 + update) / (10 + update))
        by_hand = decay * by_hand + (1 - decay) * update
    assert float(average.state["weight"]) == pytest.approx(by_hand, rel=1e-5)
    with average.applied(layer):
        assert float(layer.weight.detach()) == pytest.approx(by_hand, rel=1e-5)
    assert float(layer.weight.detach()) == 39.0


def test_an_average_changes_what_is_kept_not_what_is_trained(tiny) -> None:
    plain, averaged = result(tiny, keep="last"), result(tiny, keep="last", average="ema")
    assert [row.train_loss for row in plain[0].rows] == [row.train_loss for row in averaged[0].rows]
    assert digest_state(plain[1]) != digest_state(averaged[1])


def test_a_soup_takes_what_does_not_make_it_worse() -> None:
    states = [{"w": torch.tensor([value])} for value in (1.0, 9.0, 3.0)]
    soup, chosen = greedy_soup(states, lambda state: (-abs(float(state["w"]) - 2.0), 0.0))
    assert chosen == [0, 2] and float(soup["w"]) == 2.0


def test_the_way_back_is_chosen_on_validation_and_ties_stay() -> None:
    end, start = {"w": torch.tensor([4.0]), "n": torch.tensor([7])}, {"w": torch.tensor([0.0]), "n": torch.tensor([0])}
    assert best_share(end, start, lambda s: (-abs(float(s["w"]) - 1.1), 0.0)) == 0.75
    assert best_share(end, start, lambda s: (0.0, 0.0)) == 0.0
    assert between(end, start, 0.5)["n"].item() == 7  # counters are not averaged


def test_a_blend_is_what_is_delivered_and_what_is_reported(tiny) -> None:
    plan, network = ready(tiny, STEPS.with_(interpolate=0.25, keep="last"))
    start = copy.deepcopy(network.state_dict())
    whole_plan, whole = ready(tiny, STEPS.with_(keep="last"))
    train(whole_plan, whole, *rows(tiny), seed=0)
    history = train(plan, network, *rows(tiny), seed=0)
    name = "body.block3.conv.weight"
    expected = 0.75 * whole.state_dict()[name] + 0.25 * start[name]
    torch.testing.assert_close(network.state_dict()[name], expected)
    with torch.no_grad():
        right = network(torch.from_numpy(tiny.pixels[24:])).argmax(1).numpy() == tiny.labels[24:]
    assert history.kept.val_accuracy == pytest.approx(right.mean()) and "25 % of the way" in history.made_of


def test_soup_is_never_worse_than_the_best_epoch_on_validation(tiny) -> None:
    history, _ = result(tiny, average="soup", interpolate="auto", epochs=8)
    best = next(row for row in history.rows if row.epoch == history.kept_epoch)
    assert (history.kept.val_accuracy, -history.kept.val_loss) >= (best.val_accuracy, -best.val_loss)


def test_what_speaks_of_a_sources_layers_is_refused_for_a_plain_network() -> None:
    with pytest.raises(RecipeError, match="trained whole"):
        plan_whole(Recipe("r", freeze="0"), nn.Linear(2, 2), source="s", n_classes=2, n_train=4)


def test_contrast_is_supervised_contrastive_learning_written_naively() -> None:
    features, labels = torch.randn(9, 4), [0, 0, 0, 1, 1, 1, 1, 2, 0]
    unit = features / features.norm(dim=1, keepdim=True)

    def loss_of(i: int) -> float:
        likeness = {j: math.exp(float(unit[i] @ unit[j]) / TEMPERATURE) for j in range(9) if j != i}
        chances = [likeness[j] / sum(likeness.values()) for j in likeness if labels[j] == labels[i]]
        return -sum(map(math.log, chances)) / len(chances)

    paired = [i for i in range(9) if labels.count(labels[i]) > 1]
    expected = sum(map(loss_of, paired)) / len(paired)
    assert float(contrast(features, torch.tensor(labels))) == pytest.approx(expected, rel=1e-5)


def test_contrast_of_strangers_is_nothing() -> None:
    features = torch.randn(3, 4, requires_grad=True)
    loss = contrast(features, torch.tensor([0, 1, 2]))
    loss.backward()
    assert loss.item() == 0
    assert features.grad is not None and not features.grad.any()


def test_recordings_are_not_flipped_as_pictures_are() -> None:
    hearing = replace(tiny_source(), input=AudioSpec(rate=8000, samples=800))
    with pytest.raises(RecipeError, match=r"hears recordings.*recipe\.with_\(augment='none', views=4\)\.$"):
        check_views(Recipe("r", cut="input", augment="flip-crop"), hearing)
    check_views(Recipe("r", views=4), hearing)
