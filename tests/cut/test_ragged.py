"""Networks on token ids: the length is free, the mask is handed to the suffix, and padding changes nothing.

N examples, L tokens, D features.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from regraft.cut import (
    Traced,
    as_modules,
    between,
    copy_graph,
    describe,
    from_plain,
    join,
    linear_layers,
    replaced,
    set_training,
    split,
    to_plain,
    trace,
    weight_shape,
)
from regraft.errors import CutError

transformers = pytest.importorskip("transformers")

LONGEST = 40
BERT = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "BERT": ("bert", BERT | {"max_position_embeddings": LONGEST}, "encoder.layer.{}"),
    "MiniLM": (
        "bert",
        BERT | {"num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": LONGEST},
        "encoder.layer.{}",
    ),
    "RoBERTa": ("roberta", BERT | {"max_position_embeddings": LONGEST + 2, "pad_token_id": 1}, "encoder.layer.{}"),
    "DistilBERT": (
        "distilbert",
        {
            "vocab_size": 50,
            "dim": 16,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 32,
            "max_position_embeddings": LONGEST,
        },
        "transformer.layer.{}",
    ),
    "GPT-2": (
        "gpt2",
        {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": LONGEST, "use_cache": False},
        "h.{}",
    ),
}
SIZES = [(1, 5), (3, 7), (4, 4), (2, 1), (2, LONGEST)]
kinds = pytest.mark.parametrize("kind", KINDS)


class MeanOfTokens(nn.Module):
    """A network of transformers and the mean of its last layer over the tokens that count."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.body(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.to(hidden.dtype) / mask.sum(1, keepdim=True)
        return (weights.unsqueeze(1) @ hidden).squeeze(1)


@functools.cache
def small(kind: str) -> tuple[nn.Module, Traced]:
    torch.manual_seed(0)
    name, settings, _ = KINDS[kind]
    model = MeanOfTokens(transformers.AutoModel.from_config(transformers.AutoConfig.for_model(name, **settings))).eval()
    return model, trace(model, batch(2, 6), ragged=True, name=kind)


def batch(n: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ids and a mask: the first example has the full length, the others end two tokens earlier each."""
    ids, mask = torch.randint(2, 50, (n, length)), torch.ones(n, length, dtype=torch.long)
    for row in range(1, n):
        mask[row, max(1, length - 2 * row) :] = 0
    return ids.where(mask > 0, 0), mask


@kinds
@torch.no_grad()
def test_every_cut_at_every_batch_and_length(kind: str) -> None:
    model, traced = small(kind)
    assert not traced.fallback_reason and len(traced.cuts) > 10
    whole = between(traced, "input", traced.cuts)
    parts = [(cut, split(traced, cut)) for cut in traced.cuts]
    for n, length in SIZES:
        ids, mask = batch(n, length)
        wanted = model(ids, mask)
        for activation, (cut, (prefix, suffix)) in zip(whole(ids, mask), parts, strict=True):
            assert torch.equal(join(prefix, suffix)(ids, mask), wanted), (cut, n, length)
            assert torch.equal(prefix(ids, mask), activation)
            assert activation.shape == (n, *((length, *cut.shape[1:]) if cut.ragged else cut.shape))


@kinds
@torch.no_grad()
def test_what_stands_at_padded_places_changes_nothing(kind: str) -> None:
    _, traced = small(kind)
    ids, mask = batch(4, 9)
    wanted = traced.graph(ids, mask)
    for cut in traced.cuts:
        if cut.ragged and cut.name != "input":
            prefix, suffix = split(traced, cut)
            cleared = prefix(ids, mask) * mask.unsqueeze(-1)
            assert torch.equal(suffix(cleared, mask=mask), wanted), cut


@kinds
@torch.no_grad()
def test_padding_further_changes_next_to_nothing(kind: str) -> None:
    """Other sizes of matrices are summed in another order, so this holds to rounding and no further."""
    _, traced = small(kind)
    ids, mask = batch(3, 7)
    longer = [nn.functional.pad(value, (0, 11)) for value in (ids, mask)]
    torch.testing.assert_close(traced.graph(*longer), traced.graph(ids, mask), rtol=1e-4, atol=1e-5)


@kinds
def test_stages_are_the_encoders_layers(kind: str) -> None:
    _, traced = small(kind)
    names = [cut.name for cut in traced.stages]
    _, settings, layer = KINDS[kind]
    n_layers = next(settings[key] for key in ("num_hidden_layers", "n_layers", "n_layer") if key in settings)
    layers = [f"body.{layer.format(i)}" for i in range(n_layers)]
    assert [name for name in names if name in layers] == layers
    assert len(names) <= n_layers + 3 and traced.stages[-1] == traced.feature == traced.cuts[-1]
    assert all(cut.ragged and cut.shape == (6, 16) and str(cut).endswith("(L, 16)") for cut in traced.stages[:-1])
    assert traced.cuts[0].ragged and traced.cuts[0].shape == (6,)
    assert describe(traced)[0]["shape"] == [6] and traced.feature.axes == "(16,)"


@kinds
def test_a_suffix_takes_the_mask_by_name_and_trains(kind: str) -> None:
    model, traced = small(kind)
    cut = traced.stages[1]
    _, suffix = split(traced, cut)
    suffix = copy_graph(suffix)
    assert [str(n.target) for n in suffix.graph.nodes if n.op == "placeholder"][1:] == ["mask"]
    x, (_, mask) = torch.randn(3, 7, 16, requires_grad=True), batch(3, 7)
    suffix(x, mask=mask).sum().backward()
    assert x.grad is not None and not x.grad[mask == 0].any() and x.grad[mask == 1].abs().sum() > 0
    parameters = dict(suffix.named_parameters())
    assert parameters and all(p.grad is not None for p in parameters.values())
    assert set(parameters) < set(dict(model.named_parameters()))


@pytest.mark.parametrize(("kind", "found"), [("BERT", "query"), ("RoBERTa", "query"), ("DistilBERT", "q_lin")])
def test_linear_layers_of_attention_are_found(kind: str, found: str) -> None:
    _, traced = small(kind)
    layers = linear_layers(split(traced, traced.stages[1])[1])
    assert [name for name in layers if name.endswith(f".{found}")] == [f"{_block(kind, 1)}.{_path(kind)}.{found}"]


@torch.no_grad()
def test_layers_whose_weights_lie_transposed_become_modules_and_compute_alike() -> None:
    model, traced = small("GPT-2")
    suffix = copy_graph(split(traced, traced.stages[1])[1])
    x, (_, mask) = torch.randn(3, 7, 16), batch(3, 7)
    wanted, tensors = suffix(x, mask=mask), list(suffix.state_dict())
    layers = [path for path in linear_layers(suffix) if path.startswith(_block("GPT-2", 1))]
    assert [path.partition("h.1.")[2] for path in layers] == ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
    assert weight_shape(suffix, layers[0]) == (48, 16) and weight_shape(suffix, layers[2]) == (64, 16)
    as_modules(suffix, layers, transformers.pytorch_utils.Conv1D)
    assert {type(suffix.get_submodule(path)) for path in layers} == {type(model.get_submodule(layers[0]))}
    assert torch.equal(suffix(x, mask=mask), wanted) and list(suffix.state_dict()) == tensors


def _block(kind: str, i: int) -> str:
    return f"body.{KINDS[kind][2].format(i)}"


def _path(kind: str) -> str:
    return "attention" if kind == "DistilBERT" else "attention.self"


@torch.no_grad()
def test_a_new_layer_in_the_place_of_a_block() -> None:
    model, traced = small("BERT")
    layer = nn.Linear(16, 16)
    changed = replaced(traced, "body.encoder.layer.1", layer)
    ids, mask = batch(3, 8)
    (hidden,) = between(traced, "input", ["body.encoder.layer.0"])(ids, mask)
    weights = mask.to(torch.float32) / mask.sum(1, keepdim=True)
    assert torch.equal(changed.graph(ids, mask), (weights.unsqueeze(1) @ layer(hidden)).squeeze(1))
    assert changed.cut("body.encoder.layer.1").ragged
    for cut in changed.cuts:
        assert torch.equal(join(*split(changed, cut))(ids, mask), changed.graph(ids, mask))
    assert torch.equal(traced.graph(ids, mask), model(ids, mask))


@torch.no_grad()
def test_a_wider_layer_ends_the_network_where_it_stands() -> None:
    _, traced = small("BERT")
    wide = replaced(traced, "body.encoder.layer.1", nn.Linear(16, 24))
    assert wide.feature.ragged and wide.feature.shape == (6, 24)
    assert wide.graph(*batch(3, 9)).shape == (3, 9, 24)


@torch.no_grad()
def test_dropout_can_be_switched_on() -> None:
    _, traced = small("BERT")
    suffix = copy_graph(split(traced, traced.stages[0])[1])
    x, (_, mask) = torch.ones(2, 5, 16), batch(2, 5)
    quiet = suffix(x, mask=mask)
    set_training(suffix, batch_norm="frozen", dropout=True)
    assert not torch.equal(suffix(x, mask=mask), quiet)
    set_training(suffix, batch_norm="frozen", dropout=False)
    assert torch.equal(suffix(x, mask=mask), quiet)


def test_plain_values_bring_everything_back() -> None:
    _, traced = small("BERT")
    again = from_plain(to_plain(traced), traced.make_graph, traced.model)
    assert again.cuts == traced.cuts and again.stages == traced.stages and again.feature == traced.feature
    assert again.cut("body.encoder.layer.0.output").name == "body.encoder.layer.0"


def test_a_place_that_is_no_cut_names_the_nearest_with_a_free_length() -> None:
    _, traced = small("BERT")
    with pytest.raises(CutError, match=r"shortcut of body\.encoder\.layer\.1.*'body\.encoder\.layer\.0' \(L, 16\)"):
        traced.cut("body.encoder.layer.1.attention.self.query")


@torch.no_grad()
@pytest.mark.parametrize("sizes", [(1, 3), (3, 3), (2, 2), (5, 3), (1, 1)])
def test_the_example_fixes_no_size(sizes: tuple[int, int]) -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.fc = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            flat = self.fc(self.table(ids).reshape(-1, 4)).reshape(*ids.shape, 2)  # whose first size is N times L
            return (flat * mask.unsqueeze(-1)).sum(1)

    model: Callable = Sum().eval()
    traced = trace(model, (torch.zeros(sizes, dtype=torch.long), torch.ones(sizes)), ragged=True)
    assert [str(cut) for cut in traced.cuts][:3] == ["'input' (L,)", "'table' (L, 4)", "'reshape_1' (L, 2)"]
    for n, length in SIZES:
        ids, mask = torch.randint(9, (n, length)), torch.ones(n, length)
        for cut in traced.cuts:
            assert torch.equal(join(*split(traced, cut))(ids, mask), model(ids, mask)), cut


def test_a_network_of_one_length_is_refused() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(5, 2)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.fc((ids * mask).float())

    with pytest.raises(CutError, match="one length only"):
        trace(Fixed(), (torch.zeros(2, 5), torch.ones(2, 5)), ragged=True)
