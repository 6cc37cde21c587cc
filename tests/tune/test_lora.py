"""Adapters on linear layers: only they are trained, they change nothing at first, and they are merged at the end."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from regraft.artifact import Delivery, load, save
from regraft.cut import trace, trace_source
from regraft.errors import MissingExtra, RecipeError
from regraft.source import build, load_source, make_source
from regraft.spec import InputSpec
from regraft.testing import tiny_images
from regraft.tune import (
    ArrayRows,
    Network,
    Plan,
    Recipe,
    Rows,
    frozen_prefix,
    full_network,
    resolve,
    starting_head,
    train,
    upper_network,
)

pytest.importorskip("peft")
pytest.importorskip("timm")

ARCH = "timm:vit_tiny_patch16_224"
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
ADAPT = Recipe("adapt", head="fresh", lora=4, epochs=3, batch_size=8, lr=1e-2, head_lr=1e-2, keep="last")


@pytest.fixture(scope="module")
def vit() -> SimpleNamespace:
    model, _ = build(ARCH, SMALL, seed=3)
    source = make_source("test:vit", ARCH, SMALL, model, InputSpec(size=(3, 32, 32)))
    pixels, labels = tiny_images(12)
    traced = trace(source.model, torch.zeros(2, *source.input.size))
    return SimpleNamespace(source=source, traced=traced, pixels=pixels.transpose(0, 3, 1, 2).copy(), labels=labels)


def plan_for(vit, **changes) -> Plan:
    return resolve(ADAPT.with_(**changes), vit.source, vit.traced, 3, n_train=24)


def started(vit, plan: Plan) -> Network:
    return upper_network(plan, vit.source, vit.traced, starting_head(plan, vit.traced, None))


def rows_at(vit, plan: Plan) -> tuple[Rows, Rows]:
    values = torch.from_numpy(vit.pixels)
    if plan.cut != "input":
        with torch.no_grad():
            values = frozen_prefix(plan, vit.source, vit.traced)(values)
    return ArrayRows(values.numpy()[:24], vit.labels[:24]), ArrayRows(values.numpy()[24:], vit.labels[24:])


def names(plan: Plan, state: str) -> set[str]:
    return {name for row in plan.rows if row.state == state for name in row.names}


def test_the_plan_names_adapters_as_trained_and_what_they_adapt_as_frozen(vit) -> None:
    plan = plan_for(vit, cut="blocks.1")
    layers = [f"body.blocks.2.{layer}" for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]
    adapters = {f"{layer}.lora_{one}.default.weight" for layer in layers for one in "AB"}
    assert names(plan, "trained") == adapters | {"head.weight", "head.bias"}
    assert {f"{layer}.weight" for layer in layers} | {"body.blocks.0.attn.qkv.weight"} <= names(plan, "frozen")
    assert {f"body.{name}" for name in vit.source.model.state_dict()} <= {n for row in plan.rows for n in row.names}
    [row] = [row for row in plan.rows if row.group == "blocks.2 · adapters"]
    assert row.n_params == 4 * (24 + 72 + 24 + 24 + 24 + 96 + 96 + 24) and row.start == "fresh"


def test_a_pattern_chooses_layers_and_the_highest_cut_below_them(vit) -> None:
    plan = plan_for(vit, lora_targets=r"blocks\.[12]\.attn\.qkv")
    trained = {name for name in names(plan, "trained") if name.startswith("body.")}
    assert {name.partition(".lora")[0] for name in trained} == {f"body.blocks.{i}.attn.qkv" for i in (1, 2)}
    assert plan.cut == "blocks.0"
    rate = {name: row.lr for row in plan.rows for name in row.names}
    low, high = (rate[f"body.blocks.{i}.attn.qkv.lora_A.default.weight"] for i in (1, 2))
    assert low < high == 1e-2


@pytest.mark.parametrize("cut", ["blocks.0", "input"])
def test_untouched_adapters_change_no_prediction(vit, cut: str) -> None:
    adapted, plain = (started(vit, plan_for(vit, cut=cut, lora=rank)) for rank in (4, 0))
    rows, _ = rows_at(vit, plan_for(vit, cut=cut))
    torch.testing.assert_close(
        adapted.features(rows.batch(np.arange(6), 0)), plain.features(rows.batch(np.arange(6), 0)), rtol=0, atol=0
    )


@pytest.mark.parametrize("cut", ["blocks.0", "input"])
def test_only_adapters_and_head_move_and_merged_they_answer_alike(vit, cut: str) -> None:
    plan = plan_for(vit, cut=cut)
    network = started(vit, plan)
    before = copy.deepcopy(network.state_dict())
    history = train(plan, network, *rows_at(vit, plan), seed=0)
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == names(plan, "trained") and history.rows[-1].train_loss < history.rows[1].train_loss
    whole = full_network(vit.source, vit.traced, plan.taps, network.head, network.state_dict(), recipe=plan.recipe)
    own = {name.removeprefix("body.") for name in whole.state_dict() if name.startswith("body.")}
    assert own <= set(vit.source.model.state_dict())  # the source's names, and nothing of PEFT's
    train_rows, val = rows_at(vit, plan)
    with torch.no_grad():
        apart = torch.cat([rows.batch(np.arange(len(rows)), 0) for rows in (train_rows, val)])
        torch.testing.assert_close(whole(torch.from_numpy(vit.pixels)), network(apart), atol=1e-5, rtol=1e-5)
    weight = "blocks.2.mlp.fc1.weight"
    assert not torch.equal(whole.state_dict()[f"body.{weight}"], vit.source.model.state_dict()[weight])


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A decoder whose layers are transformers' Conv1D: their weights lie as (in, out)."""
    transformers = pytest.importorskip("transformers")
    folder, words = tmp_path_factory.mktemp("gpt"), ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    config = transformers.GPT2Config(
        vocab_size=len(words), n_embd=24, n_layer=2, n_head=2, n_positions=16, bos_token_id=2, eos_token_id=3
    )
    torch.manual_seed(0)
    transformers.GPT2Model(config).save_pretrained(folder)
    transformers.BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    source = load_source(f"hf:{folder}")
    random = np.random.default_rng(0)
    rows = random.integers(5, len(words), (24, 6)).astype(np.int32)
    rows[:, 5][::3] = -1
    return SimpleNamespace(source=source, traced=trace_source(source), rows=rows, labels=rows[:, 0] % 3)


@pytest.mark.parametrize("cut", ["h.0", "input"])
def test_layers_whose_weights_lie_transposed_are_adapted_and_merged(gpt, cut: str) -> None:
    plan = resolve(ADAPT.with_(cut=cut, lora_targets=r"h\.1\.mlp"), gpt.source, gpt.traced, 3, n_train=24)
    adapters = {f"body.h.1.mlp.{one}.lora_{side}.default.weight" for one in ("c_fc", "c_proj") for side in "AB"}
    assert names(plan, "trained") == adapters | {"head.weight", "head.bias"}
    [row] = [row for row in plan.rows if row.group.endswith("adapters")]
    assert row.n_params == 2 * 4 * (24 + 96)
    network = started(gpt, plan)
    values = torch.from_numpy(gpt.rows)
    if cut != "input":
        with torch.no_grad():
            values = frozen_prefix(plan, gpt.source, gpt.traced)(values)
    history = train(plan, network, ArrayRows(values.numpy(), gpt.labels), None, seed=0)
    assert history.rows[-1].train_loss < history.rows[1].train_loss
    whole = full_network(gpt.source, gpt.traced, plan.taps, network.head, network.state_dict(), recipe=plan.recipe)
    own, source = whole.state_dict(), gpt.source.model.state_dict()
    assert {name.removeprefix("body.") for name in own if name.startswith("body.")} <= set(source)
    assert not torch.equal(own["body.h.1.mlp.c_fc.weight"], source["h.1.mlp.c_fc.weight"])
    with torch.no_grad():
        torch.testing.assert_close(whole(torch.from_numpy(gpt.rows)), network(values), atol=1e-5, rtol=1e-5)


def test_a_bundle_of_merged_adapters_is_an_ordinary_network(vit, tmp_path: Path, monkeypatch) -> None:
    plan = plan_for(vit, cut="blocks.1")
    network = started(vit, plan)
    train(plan, network, *rows_at(vit, plan), seed=0)
    whole = full_network(vit.source, vit.traced, plan.taps, network.head, network.state_dict(), recipe=plan.recipe)
    classes, recipe = ("disc", "square", "cross"), plan.recipe.to_dict()
    folder = save(tmp_path / "model", Delivery(whole, vit.source, plan.taps, classes, vit.pixels, recipe))
    monkeypatch.setitem(sys.modules, "peft", None)  # which only training needs
    with torch.no_grad():
        expected = whole(torch.from_numpy(vit.pixels)).softmax(1).numpy()
    given = load(folder).predict_proba(vit.pixels.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(given, expected, atol=1e-5)


def test_killed_and_resumed_is_uninterrupted_bit_for_bit(vit, tmp_path: Path) -> None:
    plan = plan_for(vit, cut="blocks.1")
    whole = started(vit, plan)
    history = train(plan, whole, *rows_at(vit, plan), seed=0)

    def kill(event) -> None:
        if event.kind == "epoch" and event.epoch == 2:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "lora.pt"
    with pytest.raises(KeyboardInterrupt):
        train(plan, started(vit, plan), *rows_at(vit, plan), seed=0, checkpoint=checkpoint, on_event=kill)
    again = started(vit, plan)
    resumed = train(plan, again, *rows_at(vit, plan), seed=0, checkpoint=checkpoint)
    assert resumed.metrics() == history.metrics()
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in again.state_dict().items())


def test_a_network_without_linear_layers_is_refused(vit, tiny) -> None:
    with pytest.raises(RecipeError, match=r"none below the head.*recipe.with_\(lora=0\)"):
        resolve(ADAPT, tiny.source, tiny.traced, 3, n_train=24)
    with pytest.raises(RecipeError, match=r"lies above 'norm'.*lora_targets='blocks\.2\.mlp\.fc2'"):
        plan_for(vit, cut="norm")
    with pytest.raises(RecipeError, match=r"lora_targets = 'qvk' matches no"):
        plan_for(vit, lora_targets="qvk")


def test_what_the_refusal_names_works(vit) -> None:
    assert plan_for(vit, cut="auto", lora_targets="blocks.2.mlp.fc2").n_params("trained") > 0


@pytest.mark.parametrize("works", [{"lora": 0, "lora_targets": ""}, {"restore": "", "replace": {}}])
@pytest.mark.parametrize(
    "changes",
    [{"restore": "blocks.[01]"}, {"restore": "qkv", "lora_targets": "qkv"}, {"replace": {"norm": "linear:8"}}],
)
def test_adapters_do_not_train_what_starts_anew(vit, changes: dict, works: dict) -> None:
    with pytest.raises(RecipeError, match="would stay random") as refused:
        plan_for(vit, **changes)
    advice = ", ".join(f"{name}={value!r}" for name, value in works.items())
    assert f"recipe.with_({advice})" in str(refused.value)
    assert plan_for(vit, **(changes | works)).n_params("trained")


@pytest.mark.parametrize(
    "changes", [{"train": "head"}, {"unfreeze": 2}, {"lora": 0, "lora_targets": "qkv"}, {"lora": -1}]
)
def test_contradictions_are_refused(changes: dict) -> None:
    with pytest.raises(RecipeError, match="lora"):
        ADAPT.with_(**changes)


def test_without_peft_the_extra_is_named(vit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"regraft\[lora\]"):
        plan_for(vit)
