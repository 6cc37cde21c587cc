"""Training on texts: from cached token activations, from token ids, and with heads that read every token."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from regraft.cache import Tap, frozen_pass
from regraft.cut import trace_source
from regraft.data import load_rows, read, transform_for
from regraft.errors import RecipeError
from regraft.head import make_head
from regraft.source import make_source
from regraft.testing import tiny_text_source, tiny_texts
from regraft.testing.texts import TinyTextNet
from regraft.tune import (
    RECIPES,
    ArrayRows,
    CacheRows,
    LiveRows,
    Recipe,
    frozen_prefix,
    full_network,
    resolve,
    starting_head,
    train,
    upper_network,
)

QUICK = RECIPES["finetune"].with_(head="fresh", epochs=3, min_updates=0, batch_size=8, lr=1e-2, taps="feature")


@pytest.fixture(scope="module")
def texts() -> SimpleNamespace:
    source = tiny_text_source()
    data = read(tiny_texts(20), test_fraction=0.0)
    return SimpleNamespace(source=source, traced=trace_source(source), data=data)


class Mean(nn.Module):
    """As a product of matrices, which gives one row for each text, (B, 1, D), before it is flattened."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        weights = (mask / mask.sum(1, keepdim=True)).to(x.dtype)
        return (weights.unsqueeze(1) @ x).squeeze(1)


class Pooled(TinyTextNet):
    """Pooled as the encoders of transformers are."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Mean()

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        for block in self.blocks:
            x = block(x, mask)
        return self.pool(x, mask)


@pytest.fixture(scope="module")
def pooled(texts) -> SimpleNamespace:
    torch.manual_seed(0)
    source = make_source("test:pooled", "python:none:none", {}, Pooled(), texts.source.input)
    return SimpleNamespace(source=source, traced=trace_source(source), data=texts.data)


def ready(texts: SimpleNamespace, recipe: Recipe):
    plan = resolve(recipe, texts.source, texts.traced, 3, n_train=len(texts.data.split("train")))
    return plan, upper_network(plan, texts.source, texts.traced, starting_head(plan, texts.traced, None))


def test_training_on_cached_tokens_and_on_texts_gives_the_same_history(texts, tmp_path) -> None:
    splits = [texts.data.split(name) for name in ("train", "val")]
    plan, cached = ready(texts, QUICK.with_(cut="blocks.0"))
    tap = Tap("blocks.0")
    caches, _ = frozen_pass(texts.data, texts.source, texts.traced, [tap], root=tmp_path)
    live = copy.deepcopy(cached)
    prefix, transform = frozen_prefix(plan, texts.source, texts.traced), transform_for(texts.source.input)
    first = train(plan, cached, *(CacheRows(caches[tap], part.keys, part.labels) for part in splits), seed=1)
    second = train(plan, live, *(LiveRows(part, transform, prefix) for part in splits), seed=1)
    np.testing.assert_allclose(np.array(first.metrics()[1:], float), np.array(second.metrics()[1:], float), atol=1e-4)
    assert first.rows[-1].train_loss < first.rows[1].train_loss


@pytest.mark.parametrize("cut", ["blocks.0", "table", "input"])
def test_the_trained_part_grafts_into_the_whole_network(texts, cut) -> None:
    plan, network = ready(texts, QUICK.with_(cut=cut))
    part = texts.data.split("train")
    ids = load_rows(part, transform_for(texts.source.input))
    prefix = frozen_prefix(plan, texts.source, texts.traced) if cut != "input" else torch.nn.Identity()
    with torch.no_grad():
        values = prefix(torch.from_numpy(ids))
    train(plan, network, ArrayRows(values.numpy(), part.labels), None, seed=0)
    whole = full_network(texts.source, texts.traced, plan.taps, network.head, network.state_dict(), recipe=plan.recipe)
    torch.testing.assert_close(whole(torch.from_numpy(ids)), network(values))


@pytest.mark.parametrize("layers", ["lstm:8", "conv:8", "attention"])
@pytest.mark.parametrize(("encoder", "top"), [("texts", "mul"), ("pooled", "blocks.1")])
def test_heads_read_every_token_and_no_padding(encoder, top, layers, request) -> None:
    texts = request.getfixturevalue(encoder)
    plan, network = ready(texts, QUICK.with_(cut="output", head_layers=layers))
    part = texts.data.split("train")
    ids, rows = load_rows(part, transform_for(texts.source.input)), frozen_rows(texts, plan.taps[0], part)
    assert plan.taps == (Tap(top),) and rows.shape[:2] == ids.shape
    assert ((ids >= 0) == ~np.isnan(rows[..., 0])).all()
    history = train(plan, network, ArrayRows(rows, part.labels), None, seed=0)
    assert history.rows[-1].train_loss < history.rows[1].train_loss
    longer = np.concatenate([rows, np.full_like(rows[:, :5], np.nan)], axis=1)
    torch.testing.assert_close(network(torch.from_numpy(longer)), network(torch.from_numpy(rows)))


def test_heads_that_need_no_places_learn_from_the_mean(texts) -> None:
    plan, network = ready(texts, QUICK.with_(cut="output", head_layers="mlp:8"))
    part = texts.data.split("train")
    history = train(plan, network, ArrayRows(frozen_rows(texts, plan.taps[0], part), part.labels), None, seed=0)
    assert history.rows[-1].train_loss < history.rows[1].train_loss


def test_one_pooled_row_is_no_token(pooled) -> None:
    shapes = {cut.name: (cut.shape, cut.layout) for cut in pooled.traced.cuts}
    assert shapes["pool#matmul"] == ((1, 24), "NLC")  # what this is about
    with pytest.raises(RecipeError, match=r"places.*taps='blocks\.1'"):
        ready(pooled, QUICK.with_(head_layers="attention", taps="pool#matmul"))


def frozen_rows(texts: SimpleNamespace, tap: Tap, part) -> np.ndarray:
    """Rows of a tap, straight from the network."""
    from regraft.cache import TapModel

    model = TapModel(texts.traced, [tap], texts.source.input).eval()
    with torch.no_grad():
        return model(torch.from_numpy(load_rows(part, transform_for(texts.source.input))))[0].numpy()


def test_a_head_on_tokens_needs_no_shape() -> None:
    head = make_head("lstm:8", (16, 5), "ragged", 3)
    assert head(torch.ones(2, 7, 5)).shape == head(torch.ones(2, 90, 5)).shape == (2, 3)


@pytest.mark.parametrize("changes", [{"mixup": 0.2}, {"noise": 0.1}])
def test_token_ids_are_not_mixed_like_numbers(texts, changes) -> None:
    with pytest.raises(RecipeError, match=r"token ids.*recipe\.with_"):
        ready(texts, QUICK.with_(cut="input", **changes))


@pytest.mark.parametrize("cut", ["auto", "input", "output"])
@pytest.mark.parametrize(
    ("changes", "works"),
    [
        ({"views": 3}, "views=0"),
        ({"average_views": 3}, "average_views=0"),
        ({"views": 2, "average_views": "auto"}, "views=0, average_views=0"),
        ({"augment": "flip-crop"}, "augment='none'"),
    ],
)
def test_texts_have_no_other_versions(texts, cut, changes, works) -> None:
    with pytest.raises(RecipeError, match=rf"reads texts.*recipe\.with_\({works}\)\.$"):
        ready(texts, QUICK.with_(cut=cut, **changes))
    ready(texts, QUICK.with_(cut=cut, views=1, average_views=1))  # which look at the plain text alone
