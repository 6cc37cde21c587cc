"""Pairs of texts: the network hears which of the two a token belongs to, as transformers tells it.

B texts, L tokens, D features.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regraft.artifact import Delivery, load, save
from regraft.cache import Tap, frozen_pass
from regraft.cut import join, split, trace_source
from regraft.data import Dataset, load_rows, read, transform_for
from regraft.data.text import Pair, tokens_of
from regraft.head import LinearHead
from regraft.source import Source, build, front, load_source, write_source
from regraft.spec import TextSpec
from regraft.tune import feature_width, full_network

transformers = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film", "##s", "the", "and", "."]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
NUMBERED: dict[str, tuple[str, dict[str, Any]]] = {
    "BertModel": ("bert", SMALL),
    "BertForSequenceClassification": ("bert", SMALL | {"num_labels": 3}),
    "AlbertModel": ("albert", SMALL | {"embedding_size": 8}),
    "ElectraModel": ("electra", SMALL | {"embedding_size": 8}),
}
NOT_NUMBERED: dict[str, tuple[str, dict[str, Any]]] = {
    "RobertaModel": ("roberta", SMALL | {"pad_token_id": 0, "type_vocab_size": 1}),
    "DistilBertModel": ("distilbert", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}),
    "GPT2Model": ("gpt2", {"n_embd": 16, "n_layer": 2, "n_head": 2}),
}
PAIRS = [("a good film", "the film and the film ."), ("bad", "good"), ("films and films", "a"), ("unheard", "of")]
SINGLES = ["a good film and a bad film .", "films", "the", "film"]


@pytest.fixture(autouse=True)
def _silent() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def saved(folder: Path, name: str = "BertModel", **changes: Any) -> Any:
    """A folder as transformers writes it, with BERT's tokenizer; returns the network."""
    kind, settings = (NUMBERED | NOT_NUMBERED)[name]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, vocab_size=len(WORDS), **settings | changes)
    model = getattr(transformers, name)(config).eval()
    for parameter in model.parameters():  # transformers' own are so small that no number of a text shows
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    bert = transformers.BertTokenizerFast(vocab=dict(zip(WORDS, range(len(WORDS)), strict=True)))
    bert.save_pretrained(folder)
    return model


def examples(texts: list[Any]) -> Dataset:
    """Texts or pairs with one label or the other."""
    labels = [str(i % 2) for i in range(len(texts))]
    return read((texts, labels), val_fraction=0, test_fraction=0)


def ours(source: Source, texts: list[Any]) -> torch.Tensor:
    """One padded batch, from texts to the network's output."""
    rows = load_rows(examples(texts), transform_for(source.input))
    return source.model(*front(source.input)(torch.from_numpy(rows)))


def theirs(model: Any, folder: Path, texts: list[Any]) -> torch.Tensor:
    """By transformers alone, one text or pair after the other."""
    tokenizer, rows = transformers.AutoTokenizer.from_pretrained(folder), []
    for text in texts:
        found = model(**tokenizer(*([text] if isinstance(text, str) else text), return_tensors="pt"))
        rows.append(found.logits[0] if "logits" in found else found.last_hidden_state[0].mean(0))
    return torch.stack(rows)


@pytest.mark.parametrize("name", NUMBERED)
@torch.no_grad()
def test_pairs_give_transformers_outputs(name: str, tmp_path: Path) -> None:
    model = saved(tmp_path, name)
    source = load_source(str(tmp_path))
    assert source.arch_args["separator"] == WORDS.index("[SEP]")
    for texts in (PAIRS, SINGLES):
        torch.testing.assert_close(ours(source, texts), theirs(model, tmp_path, texts), rtol=1e-4, atol=1e-5)
    unnumbered, _ = build(source.arch, {k: v for k, v in source.arch_args.items() if k != "separator"})
    unnumbered.load_state_dict(source.model.state_dict())
    ids = torch.tensor([tokens_of(source.input)(Pair(*PAIRS[0]))])  # type: ignore[arg-type]
    assert (unnumbered(ids, ids > -1) - source.model(ids, ids > -1)).abs().max() > 1e-3


@pytest.mark.parametrize("name", NOT_NUMBERED)
def test_networks_that_do_not_number_texts_stay_as_they_were(name: str, tmp_path: Path) -> None:
    saved(tmp_path, name)
    assert "separator" not in load_source(str(tmp_path)).arch_args


def test_a_network_with_one_number_or_a_tokenizer_without_stays_as_it_was(tmp_path: Path) -> None:
    saved(tmp_path / "one", type_vocab_size=1)
    assert "separator" not in load_source(str(tmp_path / "one")).arch_args
    saved(tmp_path / "none")
    path = tmp_path / "none" / "tokenizer.json"
    fields = json.loads(path.read_text())
    for part in fields["post_processor"]["pair"]:
        part[next(iter(part))]["type_id"] = 0
    path.write_text(json.dumps(fields))
    assert "separator" not in load_source(str(tmp_path / "none")).arch_args
    words = load_source(str(tmp_path / "none"), input=TextSpec("a\nfilm", kind="words", length=8))
    assert "separator" not in words.arch_args


@torch.no_grad()
def test_cut_and_joined_pairs_are_bit_identical(tmp_path: Path) -> None:
    saved(tmp_path)
    source = load_source(str(tmp_path))
    data = examples(PAIRS)
    ids, mask = front(source.input)(torch.from_numpy(load_rows(data, transform_for(source.input))))
    traced, wanted = trace_source(source), source.model(ids, mask)
    assert not traced.fallback_reason
    assert [cut.name for cut in traced.stages] == ["embeddings", "encoder.layer.0", "encoder.layer.1", "output"]
    assert not any(cut.needs_input for cut in traced.stages)
    for cut in traced.cuts:
        assert torch.equal(join(*split(traced, cut))(ids, mask), wanted), cut


@torch.no_grad()
def test_cached_pairs_equal_the_live_ones_and_have_a_key_of_their_own(tmp_path: Path) -> None:
    saved(tmp_path / "numbered")
    source = load_source(str(tmp_path / "numbered"))
    traced, tap = trace_source(source), Tap("encoder.layer.0")
    data = examples(PAIRS)
    caches, report = frozen_pass(data, source, traced, [tap], root=tmp_path / "cache")
    assert report.computed == len(PAIRS)
    prefix, _ = split(traced, "encoder.layer.0")
    for key, pair in zip(data.keys, PAIRS, strict=True):
        ids = torch.tensor([tokens_of(source.input)(Pair(*pair))])  # type: ignore[arg-type]
        live = prefix(ids, torch.ones_like(ids))
        np.testing.assert_allclose(caches[tap].rows([key]), live.numpy(), rtol=1e-3, atol=1e-4)
    saved(tmp_path / "one", type_vocab_size=1)
    other = load_source(str(tmp_path / "one"))
    _, report = frozen_pass(data, other, trace_source(other), [tap], root=tmp_path / "cache")
    assert report.computed == len(PAIRS)


@torch.no_grad()
def test_folders_of_our_own_and_bundles_bring_the_numbers_back(tmp_path: Path) -> None:
    saved(tmp_path / "theirs")
    source = load_source(str(tmp_path / "theirs"))
    write_source(tmp_path / "ours", source)
    assert torch.equal(ours(load_source(str(tmp_path / "ours")), PAIRS), ours(source, PAIRS))
    traced, taps = trace_source(source), (Tap("output"),)
    head = LinearHead.zeros(feature_width(traced, taps), 2)
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))
    network = full_network(source, traced, taps, head)
    rows = load_rows(examples(PAIRS), transform_for(source.input))
    save(tmp_path / "model", Delivery(network, source, taps, ["no", "yes"], rows))
    said = load(tmp_path / "model").predict_proba(PAIRS)
    np.testing.assert_allclose(said, network(torch.from_numpy(rows)).softmax(1).numpy(), rtol=1e-4, atol=1e-5)
    swapped = load(tmp_path / "model").predict_proba([(second, first) for first, second in PAIRS])
    assert np.abs(said - swapped).max() > 1e-4
