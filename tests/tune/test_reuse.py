"""The language of reuse: what a recipe says is what the plan holds and what training does."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from regraft.cut import trace
from regraft.errors import CutError, RecipeError
from regraft.source import make_source
from regraft.spec import InputSpec
from regraft.tune import (
    ArrayRows,
    Plan,
    Recipe,
    frozen_prefix,
    full_network,
    resolve,
    starting_head,
    train,
    upper_network,
)
from regraft.tune.edit import edited

SHORT = Recipe("short", head="fresh", epochs=2, batch_size=8, lr=1e-2, head_lr=1e-2, keep="last")


def plan_for(tiny, **changes) -> Plan:
    return resolve(SHORT.with_(**changes), tiny.source, tiny.traced, 3, n_train=24)


def started(tiny, plan: Plan):
    return upper_network(plan, tiny.source, tiny.traced, starting_head(plan, tiny.traced, None))


def rows_at(tiny, plan: Plan) -> tuple[ArrayRows, ArrayRows]:
    """Training and validation rows at a plan's cut."""
    with torch.no_grad():
        if plan.cut == "output":
            head = starting_head(plan, tiny.traced, None)
            pixels = torch.from_numpy(tiny.pixels)
            values = full_network(tiny.source, tiny.traced, plan.taps, head).features(pixels)
        elif plan.cut == "input":
            values = torch.from_numpy(tiny.pixels)
        else:
            values = frozen_prefix(plan, tiny.source, tiny.traced)(torch.from_numpy(tiny.pixels))
    return ArrayRows(values.numpy()[:24], tiny.labels[:24]), ArrayRows(values.numpy()[24:], tiny.labels[24:])


def run(tiny, **changes):
    """Plan, trained network, its start, history."""
    plan = plan_for(tiny, **changes)
    network = started(tiny, plan)
    before = copy.deepcopy(network.state_dict())
    history = train(plan, network, *rows_at(tiny, plan), seed=0)
    return plan, network, before, history


def changed(network: nn.Module, before: dict) -> set[str]:
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


# freezing by name -----------------------------------------------------------------------------------


def test_what_matches_is_what_trains(tiny) -> None:
    plan, network, before, _ = run(tiny, train="block[13]|head", cut="auto")
    assert plan.cut == "stem"  # the highest place below block1
    trained = {n for n in network.state_dict() if n.startswith(("body.block1", "body.block3", "head."))}
    statistics_and_scaling = {n for n in trained if "running" in n or n in ("head.mean", "head.scale")}
    assert changed(network, before) == trained - statistics_and_scaling == plan.trained


def test_a_pattern_for_the_head_alone_reads_pooled_features_from_the_cache(tiny) -> None:
    plan, network, before, _ = run(tiny, train="^head")
    assert plan.cut == "output" and changed(network, before) == {"head.weight", "head.bias"}


def test_freezing_by_name_moves_the_cut_up(tiny) -> None:
    assert plan_for(tiny, freeze="stem|block1|block2").cut == "block2"
    assert plan_for(tiny, freeze="block3").cut == "input"


def test_train_and_freeze_and_cut_compose(tiny) -> None:
    both = plan_for(tiny, train="block|head", freeze=r"\.bn\.")
    assert both.cut == "stem" and not [name for name in both.trained if ".bn." in name]
    above = plan_for(tiny, train="conv|head", cut="block2")
    assert above.trained == {"body.block3.conv.weight", "head.weight", "head.bias"}


@pytest.mark.parametrize("field", ["train", "freeze", "restore"])
def test_a_pattern_that_matches_nothing_shows_the_nearest(tiny, field: str) -> None:
    with pytest.raises(RecipeError, match=rf"{field} = 'blok3' matches no tensor.*Did you mean 'block3"):
        plan_for(tiny, **{field: "blok3"})


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("blok", "'block3' or 'block2' or 'block1'"),
        ("^blok[12]", "'block2' or 'block1' or 'block3'"),
        ("convv|bnn", "'conv' or 'bn'"),
        (r"block\d+\.conf", "'block3.conv' or 'block2.conv' or 'block1.conv'"),
        (r"(blok3|stam)\.", "'block3' or 'block2' or 'block1'"),
        (r".*wieght$", "'weight'"),
    ],
)
def test_the_nearest_are_found_whatever_is_special_in_a_pattern(tiny, pattern: str, near: str) -> None:
    with pytest.raises(RecipeError, match=rf"Did you mean {near}\?"):
        plan_for(tiny, train=pattern)


def test_where_nothing_is_near_some_names_are_shown(tiny) -> None:
    with pytest.raises(RecipeError, match=r"matches no tensor\. Names are such as block1\.bn\.weight, "):
        plan_for(tiny, train="hidden[123]")


def test_a_rate_for_what_is_frozen_is_refused(tiny) -> None:
    with pytest.raises(RecipeError, match=r"are not trained: stem\.bn\.bias"):
        plan_for(tiny, cut="block2", rates={"stem": 1e-3})
    with pytest.raises(RecipeError, match="matches no tensor"):
        plan_for(tiny, cut="block2", rates={"stam": 1e-3})


def test_a_pattern_for_dropped_layers_is_refused(tiny) -> None:
    with pytest.raises(RecipeError, match=r"are dropped: classifier\.bias"):
        plan_for(tiny, train="classifier")


def test_a_fresh_head_that_does_not_train_is_refused(tiny) -> None:
    with pytest.raises(RecipeError, match="starts fresh"):
        plan_for(tiny, train="block3")


@pytest.mark.parametrize(
    ("changes", "works"),
    [
        ({"freeze": "."}, {"epochs": 0}),
        ({"freeze": ".", "cut": "input", "batch_norm": "train"}, {"freeze": ""}),
        ({"freeze": ".", "cut": "input", "batch_norm": "reestimate"}, {"epochs": 0}),
        ({"freeze": "^head", "cut": "output"}, {"epochs": 0}),
        ({"train": "block3", "freeze": "block3"}, {"cut": "auto", "freeze": ""}),
        ({"train": "block3", "cut": "output"}, {"cut": "auto", "freeze": ""}),
        ({"train": "block3", "epochs": 0}, {"epochs": 20}),
    ],
)
def test_epochs_in_which_nothing_trains_are_refused(tiny, changes: dict, works: dict) -> None:
    changes = {"head": "probe", **changes}
    with pytest.raises(RecipeError) as refused:
        plan_for(tiny, **changes)
    advice = ", ".join(f"{name}={value!r}" for name, value in works.items())
    assert f"recipe.with_({advice})" in str(refused.value)
    plan_for(tiny, **(changes | works))


def test_a_body_may_train_below_the_head_of_a_source_with_the_same_name() -> None:
    """Transformers call their classifier "head"; the new head is another one."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(12, 5), nn.Linear(5, 4)

        def forward(self, x):
            return self.head(self.stem(x.flatten(1)).relu())

    source = make_source("test:m", "python:none:none", {}, Model(), InputSpec(size=(3, 2, 2)))
    traced = trace(source.model, torch.zeros(2, 3, 2, 2))
    plan = resolve(SHORT.with_(train="^head"), source, traced, 2, n_train=8)
    assert plan.trained == {"head.weight", "head.bias"} and plan.cut == "output"
    assert {row.state for row in plan.rows if "body.head.weight" in row.names} == {"dropped"}


# rates ----------------------------------------------------------------------------------------------


def test_the_first_rate_that_matches_counts(tiny) -> None:
    plan = plan_for(tiny, cut="block1", rates={r"block3\.conv": 0.5, "block3": 0.25, "head": 2}, layer_decay=0.1)
    rate = {name: row.lr for row in plan.rows for name in row.names}
    assert (rate["body.block3.conv.weight"], rate["body.block3.bn.weight"], rate["head.bias"]) == (0.5, 0.25, 2)
    assert rate["body.block2.conv.weight"] == pytest.approx(1e-3)  # by depth, as ever


# keeping and starting anew --------------------------------------------------------------------------


def test_only_what_matches_is_restored(tiny) -> None:
    plan = plan_for(tiny, restore="stem|block[12]")
    network = started(tiny, plan)
    own, source = network.state_dict(), tiny.source.model.state_dict()
    fresh = {name for row in plan.rows if row.start == "fresh" for name in row.names}
    assert {n for n in fresh if n.startswith("body.block3.bn")} == {
        f"body.block3.bn.{x}" for x in ("weight", "bias", "running_mean", "running_var")
    }
    assert not torch.equal(own["body.block3.conv.weight"], source["block3.conv.weight"])
    assert own["body.block3.bn.running_mean"].abs().max() == 0  # as newly built, not as the source's
    low = started(tiny, plan_for(tiny, restore="stem|block[12]", cut="input")).state_dict()
    assert torch.equal(low["body.block2.conv.weight"], source["block2.conv.weight"])


def test_fresh_layers_lie_above_the_cut_and_their_batch_norms_learn(tiny) -> None:
    plan, network, before, _ = run(tiny, restore="stem", cut="auto")
    assert plan.cut == "stem"
    assert {"body.block1.bn.running_mean", "body.block3.bn.running_var"} <= changed(network, before)
    for stuck in ({"cut": "block2"}, {"freeze": "block3"}):
        with pytest.raises(RecipeError, match=r"would stay random.*with_\(cut='auto', train='', freeze=''\)"):
            plan_for(tiny, restore="stem", **stuck)
    assert plan_for(tiny, restore="stem", cut="auto", train="", freeze="").cut == "stem"


def test_layers_above_a_cut_are_dropped_and_the_head_reads_there(tiny) -> None:
    plan = plan_for(tiny, drop_above="block2", cut="block1")
    assert [(tap.cut, tap.grid) for tap in plan.taps] == [("block2", 1)]
    dropped = {name for row in plan.rows if row.state == "dropped" for name in row.names}
    assert "body.block3.conv.weight" in dropped and "body.classifier.weight" in dropped
    _, network, before, _ = run(tiny, drop_above="block2", cut="block1")
    assert "body.block2.conv.weight" in changed(network, before)


@pytest.mark.parametrize("what", ["linear:20", "conv:20"])
def test_a_block_is_replaced_and_what_fits_above_stays(tiny, what: str) -> None:
    top, network, before, _ = run(tiny, replace={"block3": what})
    assert top.cut == "block2" and network.head.weight.shape == (3, 20)
    trained, below = sum(p.numel() for p in network.body.parameters()), tiny.traced.cut("block2").params_below
    assert edited(tiny.traced, top.recipe).cuts[-1].params_below == trained + below
    new = {name for row in top.rows if row.start == "fresh" for name in row.names if name.startswith("body.")}
    assert new and new <= changed(network, before) and all(name.startswith("body.block3.") for name in new)
    inner = plan_for(tiny, replace={"block2": what.replace("20", "16")})
    assert {"body.block3.conv.weight"} <= inner.trained and inner.cut == "block1"
    whole = full_network(tiny.source, tiny.traced, top.taps, network.head, network.state_dict(), recipe=top.recipe)
    pixels = torch.from_numpy(tiny.pixels)
    prefix = frozen_prefix(top, tiny.source, tiny.traced)
    torch.testing.assert_close(whole(pixels), network(prefix(pixels)))


def test_a_block_is_left_out(tiny) -> None:
    plan = plan_for(tiny, replace={"block2": "drop"}, cut="input")
    assert not [name for name in plan.trained if "block2" in name]
    network, pixels = started(tiny, plan), torch.from_numpy(tiny.pixels)
    model, spec = tiny.source.model, tiny.source.input
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (spec.mean, spec.std))
    with torch.no_grad():
        expected = model.block3(model.block1(model.stem((pixels / 255 - mean) / std))).mean((2, 3))
        torch.testing.assert_close(network.features(pixels), expected)


def test_what_does_not_fit_is_refused(tiny) -> None:
    with pytest.raises(RecipeError, match="does not fit"):
        plan_for(tiny, replace={"block1": "conv:7", "block3": "conv:8"})
    with pytest.raises(CutError, match="block3"):
        plan_for(tiny, replace={"blok3": "conv:7"})
    assert tiny.traced.cut("block3").shape == (32, 8, 8)  # the source's own graph is as it was


def test_the_sources_head_stays_beside_the_new_one(tiny) -> None:
    plan, network, _, _ = run(tiny, keep_source_head=True, train="^head")
    state = {name: row.state for row in plan.rows for name in row.names}
    assert state["body.classifier.weight"] == "frozen" and state["head.weight"] == "trained"
    whole = full_network(tiny.source, tiny.traced, plan.taps, network.head, network.state_dict(), recipe=plan.recipe)
    pixels, spec = torch.from_numpy(tiny.pixels), tiny.source.input
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (spec.mean, spec.std))
    torch.testing.assert_close(whole.source_logits(pixels), tiny.source.model((pixels / 255 - mean) / std))
    assert whole(pixels).shape == (36, 3)
    with pytest.raises(RecipeError, match="keep_source_head=True"):
        network.source_logits(pixels)


# heads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", ["linear", "mlp:16", "conv:8", "lstm:8", "attention"])
@pytest.mark.parametrize("cut", ["block2", "output"])
def test_heads_learn_from_whole_activations_and_from_rows(tiny, layers: str, cut: str) -> None:
    plan, network, _, history = run(tiny, head_layers=layers, cut=cut, epochs=15, head_lr=0.05)
    assert (plan.taps[0].cut == "block3") == (layers in ("conv:8", "lstm:8", "attention"))
    assert history.rows[-1].train_loss < 0.95 * history.rows[1].train_loss
    assert sorted(n for row in plan.rows for n in row.names if n.startswith("head.")) == sorted(
        n for n in network.state_dict() if n.startswith("head.")
    )


def test_tokens_and_channels_last_maps_have_places_too(tiny) -> None:
    from regraft.head import make_head

    x = torch.randn(2, 4, 5, 6)  # N, C, H, W
    last = x.permute(0, 2, 3, 1)
    for layers in ("attention", "conv:3", "lstm:3"):
        first = make_head(layers, (4, 5, 6), "NCHW", 2, seed=1)
        again = make_head(layers, (5, 6, 4), "NHWC", 2, seed=1)
        torch.nn.init.ones_(first.weight), torch.nn.init.ones_(again.weight)
        torch.testing.assert_close(first(x.flatten(1)), again(last.flatten(1)))
        assert make_head(layers, (7, 4), "NLC", 2)(torch.ones(2, 28)).shape == (2, 2)
    torch.testing.assert_close(
        make_head("attention", (4, 5, 6), "NCHW", 2).layers(x.flatten(1)), x.mean((2, 3))
    )  # at the start, the plain mean


def test_heads_that_need_places_say_so(tiny) -> None:
    with pytest.raises(RecipeError, match=r"taps='block3'"):
        plan_for(tiny, head_layers="attention", taps="mean+block3")
    with pytest.raises(RecipeError, match="a probe is linear"):
        SHORT.with_(head="probe", head_layers="mlp:8")


# batch norm -----------------------------------------------------------------------------------------


def test_statistics_are_measured_once_and_then_kept(tiny) -> None:
    plan, network, before, _ = run(tiny, cut="input", batch_norm="reestimate")
    stats = {n for n in before if "running" in n}
    assert stats <= changed(network, before)
    assert {row.state for row in plan.rows if set(row.names) & stats} == {"fitted"}
    spec, x = tiny.source.input, torch.from_numpy(tiny.pixels[:24]).float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (spec.mean, spec.std))
    first = tiny.source.model.stem.conv((x - mean) / std)
    torch.testing.assert_close(network.state_dict()["body.stem.bn.running_mean"], first.mean((0, 2, 3)))
    torch.testing.assert_close(network.state_dict()["body.stem.bn.running_var"], first.var((0, 2, 3)))


@pytest.mark.parametrize("changes", [{"train": "^head"}, {"cut": "block3"}])
def test_without_batch_norms_above_the_cut_a_lower_one_is_named(tiny, changes: dict) -> None:
    with pytest.raises(RecipeError, match=r"above the cut.*recipe\.with_\(cut='input'\)"):
        plan_for(tiny, batch_norm="reestimate", **changes)
    assert plan_for(tiny, batch_norm="reestimate", **(changes | {"cut": "input"})).n_params("trained")


@pytest.mark.parametrize("changes", [{}, {"cut": "input"}, {"train": "^head"}])
def test_without_any_batch_norm_none_is_measured(changes: dict) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2))
    source = make_source("test:mlp", "python:none:none", {}, model, InputSpec(size=(3, 2, 2)))
    traced, recipe = trace(model, torch.zeros(2, 3, 2, 2)), SHORT.with_(batch_norm="reestimate", **changes)
    with pytest.raises(RecipeError, match=r"has none below the head.*recipe\.with_\(batch_norm='frozen'\)"):
        resolve(recipe, source, traced, 2, n_train=8)
    assert resolve(recipe.with_(batch_norm="frozen"), source, traced, 2, n_train=8).updates


def test_batch_norms_that_all_start_anew_are_not_measured(tiny) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.with_\(batch_norm='frozen'\)"):
        plan_for(tiny, restore=r"\.conv\.", batch_norm="reestimate", cut="input")


def test_a_plan_starts_from_the_best_single_probe(tiny) -> None:
    from regraft.cache import TapModel
    from regraft.probe import depth_profile

    def features(tap, split):
        part = slice(0, 24) if split == "train" else slice(24, 36)
        with torch.no_grad():
            model = TapModel(tiny.traced, [tap], tiny.source.input)
            return model(torch.from_numpy(tiny.pixels[part]))[0].flatten(1).numpy()

    profile = depth_profile(features, tiny.labels[:24], tiny.labels[24:], tiny.traced, 3)
    recipe = Recipe("r", epochs=1)
    plan = resolve(recipe, tiny.source, tiny.traced, 3, probe=profile.single, n_train=24)
    head = starting_head(plan, tiny.traced, profile.single)
    assert plan.taps == tuple(profile.single.candidate.taps)
    assert np.abs(head.weight.detach().numpy()).max() > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"train": "block[13]|head"},
        {"freeze": r"\.bn\.", "batch_norm": "train"},
        {"restore": "stem|block1", "l2_sp": 0.1},
        {"drop_above": "block2"},
        {"replace": {"block2": "conv:9"}},
        {"replace": {"block2": "linear:16"}, "rates": {"head": 1.0}},
        {"keep_source_head": True, "cut": "block2"},
        {"head_layers": "lstm:4", "cut": "input", "batch_norm": "reestimate"},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_every_tensor_is_in_exactly_one_row(tiny, changes: dict) -> None:
    plan = plan_for(tiny, **changes)
    names = [name for row in plan.rows for name in row.names]
    network = started(tiny, plan)
    replaced = {f"body.{name}" for name in tiny.source.model.state_dict()}
    assert len(names) == len(set(names)) and set(names) >= replaced | set(network.state_dict())
    assert {n for n, p in network.named_parameters()} >= {n for n in plan.trained if "running" not in n}


def test_a_measured_row_is_shown_as_such(tiny) -> None:
    plan = plan_for(tiny, cut="block2", batch_norm="reestimate", l2_sp=0.1)
    by_group = {row.group: row for row in plan.rows}
    assert by_group["block3 · statistics"].batch_norm == "reestimate"
    table = plan.table()
    cells = {column.header: list(column.cells) for column in table.columns}
    assert {"source", "fresh"} <= set(cells["start"]) and "0.1 to the source" in cells["decay"]
