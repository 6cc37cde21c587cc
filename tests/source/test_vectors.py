"""Word vectors: every usual form of file, damaged ones, and the network that they become.

N words, D numbers of each.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from damage import mutations
from regraft.cut import join, split, trace
from regraft.data.text import tokens_of
from regraft.errors import SourceError
from regraft.source import Source, build, load_source, with_random_weights, write_source
from regraft.source.vector_file import read_vectors
from regraft.spec import TextSpec

WORDS = ("the", "of", "film", "naïve", "New York", "wonderful")
TABLE = np.random.default_rng(0).normal(size=(6, 5)).round(4).astype("<f4")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def lines(words: tuple[str, ...] = WORDS, table: np.ndarray = TABLE, end: str = "\n") -> str:
    return "".join(f"{word} {' '.join(map(str, row))}{end}" for word, row in zip(words, table.tolist(), strict=True))


def binary(end: bytes = b"\n", words: tuple[str, ...] = WORDS) -> bytes:
    rows = (
        word.replace(" ", "_").encode() + b" " + row.tobytes() + end for word, row in zip(words, TABLE, strict=True)
    )
    return f"{len(words)} 5\n".encode() + b"".join(rows)


FORMS: dict[str, Callable[[], bytes]] = {
    "glove.txt": lambda: lines().encode(),
    "word2vec.txt": lambda: f"6 5\n{lines()}".encode(),
    "wiki.vec": lambda: f"6 5\n{lines(end=' ' + chr(10))}".encode(),
    "windows.txt": lambda: f"6 5\r\n{lines(end=chr(13) + chr(10))}".encode(),
    "tabs.txt": lambda: lines((*WORDS[:4], "New_York", "wonderful")).replace(" ", "\t").encode(),
    "open_end.txt": lambda: lines().encode().rstrip(),
    "google.bin": binary,
    "original.bin": lambda: binary(end=b""),
    "glove.txt.gz": lambda: gzip.compress(lines().encode()),
    "wiki.vec.gz": lambda: gzip.compress(f"6 5\n{lines()}".encode()),
    "google.bin.gz": lambda: gzip.compress(binary()),
}


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_table(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, name, FORMS[name]())
    found = read_vectors(path)
    assert [word.replace("_", " ") for word in found.words] == list(WORDS)
    np.testing.assert_array_equal(found.table, TABLE)
    source = load_source(str(path))
    assert source.weights_digest == load_source(f"vectors:{path}").weights_digest
    assert source.input == TextSpec("\n".join(found.words), kind="words", length=512)


def test_a_table_of_many_blocks(tmp_path: Path) -> None:
    table = np.random.default_rng(1).normal(size=(5000, 3)).astype("<f4")
    words = tuple(f"w{i}" for i in range(5000))
    text = read_vectors(written(tmp_path, "a.txt", lines(words, table).encode()))
    np.testing.assert_array_equal(text.table, table)
    wide = np.tile(table, (1, 100))
    rows = b"".join(word.encode() + b" " + row.tobytes() for word, row in zip(words, wide, strict=True))
    found = read_vectors(written(tmp_path, "b.bin", b"5000 300\n" + rows))
    assert found.words == text.words == words
    np.testing.assert_array_equal(found.table, wide)


def source_of(tmp_path: Path) -> Source:
    return load_source(f"vectors:{written(tmp_path, 'glove.txt', FORMS['glove.txt']())}")


@torch.no_grad()
def test_a_text_is_the_mean_of_its_words_frequent_ones_counting_less(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    assert source.arch_args["by_frequency"]
    ids = torch.tensor([tokens_of(source.input)("The film"), [5, 0]])  # type: ignore[arg-type]
    assert ids.tolist() == [[0, 2], [5, 0]]
    places = 1 / np.arange(1, 7)
    weights = 1e-3 / (1e-3 + places / places.sum())
    wanted = [(weights[0] * TABLE[0] + weights[2] * TABLE[2]) / 2, weights[5] * TABLE[5]]
    found = source.model(ids, torch.tensor([[1, 1], [1, 0]]))
    np.testing.assert_allclose(found.numpy(), np.stack(wanted), rtol=1e-5)
    assert not source.model(ids, torch.zeros(2, 2)).any()  # no known word


@torch.no_grad()
def test_words_in_another_order_count_alike(tmp_path: Path) -> None:
    path = written(tmp_path, "glove.txt", lines(tuple(sorted(WORDS, key=len, reverse=True))).encode())
    model = load_source(str(path)).model
    found = model(torch.tensor([[0, 3]]), torch.ones(1, 2))
    np.testing.assert_allclose(found[0].numpy(), (TABLE[0] + TABLE[3]) / 2, rtol=1e-5)


@torch.no_grad()
def test_the_cut_above_the_table_is_ragged(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    traced = trace(source.model, (torch.zeros(2, 4, dtype=torch.long), torch.ones(2, 4)), ragged=True)
    assert [(cut.name, cut.ragged, cut.shape) for cut in traced.stages] == [
        ("frequency", True, (4, 5)), ("output", False, (5,))
    ]  # fmt: skip
    assert traced.cut("table").ragged and traced.cut("table").needs_input
    for n, length in ((1, 1), (3, 7), (2, 2)):
        ids = torch.randint(6, (n, length))
        mask = (torch.arange(length) <= torch.arange(n)[:, None]).long()
        for cut in traced.cuts:
            assert torch.equal(join(*split(traced, cut))(ids, mask), source.model(ids, mask)), cut
    assert traced.cuts[1].params_below == traced.cuts[-1].params_below == 30


def test_the_table_is_read_where_it_lies_and_never_written_to(tmp_path: Path) -> None:
    first = source_of(tmp_path)
    with torch.no_grad():
        first.model.table.weight += 1  # type: ignore[union-attr, operator]
    again = source_of(tmp_path)
    np.testing.assert_array_equal(again.model.table.weight.detach().numpy(), TABLE)  # type: ignore[union-attr, operator]
    (table,) = (tmp_path / "hub").rglob("table.npy")
    np.testing.assert_array_equal(np.load(table), TABLE)


def test_it_is_built_again_without_the_file_and_with_fresh_weights(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    again, _ = build(source.arch, source.arch_args)
    again.load_state_dict(source.model.state_dict())
    ids, mask = torch.tensor([[0, 4]]), torch.ones(1, 2)
    assert torch.equal(again(ids, mask), source.model(ids, mask))
    twin = with_random_weights(source, seed=1)
    assert twin.weights_digest != source.weights_digest and twin.input == source.input
    write_source(tmp_path / "ours", source)
    ours = load_source(str(tmp_path / "ours"))
    assert (ours.weights_digest, ours.input) == (source.weights_digest, source.input)


def test_a_word_again_is_reported_and_its_first_vector_counts(tmp_path: Path) -> None:
    words = ("the", "of", "the", "film", "of", "the")
    source = load_source(str(written(tmp_path, "a.vec", f"6 5\n{lines(words)}".encode())))
    assert "2 words again, of which the first vector counts ('the', 'of')" in str(source.report)
    assert isinstance(source.input, TextSpec) and source.input.vocabulary == "the\nof\nfilm"
    np.testing.assert_array_equal(source.model.table.weight.detach().numpy(), TABLE[[0, 1, 3]])  # type: ignore[union-attr, operator]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.vec", b"", "no word vectors of a form"),
        ("a.vec", b"6 5\n", "holds no words"),
        ("a.vec", b"\xba\x16\x4f\x2f\x0c\x00\x00\x00", r"Of fastText pass the \.vec file"),
        ("a.vec", b"just some words\n", "no word vectors of a form"),
        ("a.vec", b"the 1 2\nof 3\n", r"line 2: expected a word and 2 numbers, found 'of 3"),
        ("a.vec", b"the 1 2\nof 3 4 5x\n", "line 2"),
        ("a.vec", b"2 2\nthe 1 2\nof 3 4 x\n", r"line 3: .*'of 3 4 x"),
        ("a.vec", b"the 1 2\nof nan 4\n", "NaN or infinite numbers, first for the word 'of'"),
        ("a.vec", b"3 2\nthe 1 2\nof 3 4\n", r"promises 3 words in its first line and holds 2.*'2 2'"),
        ("a.vec", b"1 2\nthe 1 2\nof 3 4\n", "promises 1 words in its first line and holds 2"),
        ("a.vec", b"2 99999999\nthe 1 2\n", "no word vectors of a form"),
        ("a.bin", binary()[:-9], "promises 6 words in its first line and holds 5"),
        ("a.bin", binary() + b"more", "promises 6 words in its first line and holds more"),
        ("a.bin", b"2 1\nab \0\0\x80\x7f\ncd \0\0\x80\x3f", "NaN or infinite numbers, first for the word 'ab'"),
        ("a.vec.gz", gzip.compress(lines().encode())[:-20], "damaged or cut short"),
        ("a.vec.gz", b"\x1f\x8bnothing", "damaged or cut short"),
    ],
)
def test_damaged_files_are_refused_with_one_message(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(SourceError, match=message):
        load_source(f"vectors:{path}")
    assert not list((tmp_path / "hub").rglob("table.npy"))


def test_any_damage_gives_one_message(tmp_path: Path) -> None:
    for whole in (FORMS["word2vec.txt"](), binary(), FORMS["wiki.vec.gz"]()):
        for data in mutations(whole, 40):
            try:
                load_source(f"vectors:{written(tmp_path, 'a.vec', data)}")
            except SourceError:
                continue


def test_other_files_are_not_taken_for_word_vectors(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "weights.bin")
    written(tmp_path, "notes.txt", b"a note of five words\n")
    written(tmp_path, "noise.bin", struct.pack("<9I", *range(9)))
    for name in ("weights.bin", "notes.txt", "noise.bin"):
        with pytest.raises(SourceError, match=r"architecture|format"):
            load_source(str(tmp_path / name))
    with pytest.raises(SourceError, match="no file of word vectors"):
        load_source("vectors:nowhere.txt")


def test_the_thousand_real_words(shared_data: Path) -> None:
    source = load_source(f"vectors:{shared_data / 'datasets' / 'word_vectors' / 'word2vec_1000x300.txt'}")
    assert source.n_params == 300_000 and source.arch_args["by_frequency"]
    length = source.model.table.weight.norm(dim=1)  # type: ignore[union-attr, operator]
    torch.testing.assert_close(length, torch.ones(1000), rtol=0, atol=1e-3)
