"""Texts: every way in gives the same dataset, and whatever is no text is named, all at once."""

from __future__ import annotations

import csv
import json
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regraft.data import Dataset, load_rows, read, transform_for
from regraft.data.text import Pair
from regraft.digest import digest_bytes
from regraft.errors import DataError
from regraft.spec import InputSpec, TextSpec

TEXTS = [(f"a {'fine' if i % 2 else 'dull'} film, number {i} – naïve", "good" if i % 2 else "bad") for i in range(40)]
WORDS = TextSpec("a\nfilm\nfine\ndull\nnumber", kind="words", length=8)


def _message(*args, **kwargs) -> str:
    with pytest.raises(DataError) as error:
        read(*args, **kwargs)
    return str(error.value)


def _csv(path: Path, rows: Iterable[tuple], header: tuple[str, ...] = ("text", "label"), encoding="utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([header, *rows])
    return path


def _folder(root: Path, texts: Iterable[tuple[str, str]], encoding="utf-8", end="") -> Path:
    for i, (text, label) in enumerate(texts):
        (root / label).mkdir(parents=True, exist_ok=True)
        (root / label / f"{i:03}.txt").write_bytes((text + end).encode(encoding))
    return root


def _contents(data: Dataset) -> set[tuple[str, str, str]]:
    return {(e.key, data.classes[e.label], e.split) for e in data.examples}


def test_every_way_in_gives_the_same_dataset(tmp_path: Path):
    """Keys are of the text alone, so splits and cached features are the same wherever it came from."""
    ways = {
        "csv": _csv(tmp_path / "a.csv", TEXTS),
        "tsv": _csv(tmp_path / "a.tsv", TEXTS),
        "semicolons": tmp_path / "semicolons.csv",
        "case of columns": _csv(tmp_path / "case.csv", TEXTS, ("Sentence", "Label")),
        "utf-16": _csv(tmp_path / "b.csv", TEXTS, encoding="utf-16"),
        "utf-8 with mark": _csv(tmp_path / "c.csv", TEXTS, encoding="utf-8-sig"),
        "cp1252": _csv(tmp_path / "d.csv", TEXTS, encoding="cp1252"),
        "jsonl": tmp_path / "a.jsonl",
        "parquet": tmp_path / "a.parquet",
        "folder": _folder(tmp_path / "plain", TEXTS),
        "folder, utf-16": _folder(tmp_path / "wide", TEXTS, "utf-16", "\n"),
        "folder, cp1252": _folder(tmp_path / "old", TEXTS, "cp1252", "\r\n"),
        "lists": tuple(zip(*TEXTS, strict=True)),
    }
    with ways["semicolons"].open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=";").writerows([("text", "label"), *TEXTS])
    ways["jsonl"].write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in TEXTS))
    pq.write_table(pa.table({"text": [t for t, _ in TEXTS], "label": [c for _, c in TEXTS]}), ways["parquet"])
    datasets = {name: read(where) for name, where in ways.items()}
    for name, data in datasets.items():
        assert data.modality == "text" and _contents(data) == _contents(datasets["csv"]), name
        opened = {data.open(i) for i in range(len(data))}
        assert opened == {text for text, _ in TEXTS}, name
    first = datasets["csv"].examples[0]
    assert (first.key, first.width, first.mode) == (digest_bytes(TEXTS[0][0].encode()), len(TEXTS[0][0]), "utf-8")
    assert [p.kind for p in datasets["cp1252"].problems] == ["encoding"]
    assert "40 of 40 are read as Windows-1252" in datasets["folder, cp1252"].problems[0].detail
    assert datasets["folder"].problems == datasets["utf-16"].problems == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_the_encoding_is_the_tables_own(tmp_path: Path, encoding: str):
    assert read(_csv(tmp_path / "a.csv", TEXTS, encoding=encoding)).sizes().modes == {encoding: 40}


def test_files_that_a_table_names_have_encodings_of_their_own(tmp_path: Path):
    root = _folder(tmp_path / "texts", TEXTS)
    rows = [(str(path.relative_to(tmp_path)), path.parent.name) for path in root.glob("*/*.txt")]
    data = read(_csv(tmp_path / "a.csv", rows, ("path", "label"), encoding="utf-16"))
    assert data.sizes().modes == {"utf-8": 40}


def test_split_column_and_split_folders(tmp_path: Path):
    splits = ("train", "valid", "test", "train")
    table = _csv(
        tmp_path / "a.csv", [(*row, splits[i // 2 % 4]) for i, row in enumerate(TEXTS)], ("text", "label", "split")
    )
    for i, row in enumerate(TEXTS):
        folder = tmp_path / "root" / splits[i // 2 % 4] / row[1]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.txt").write_text(row[0], "utf-8")
    assert _contents(read(table)) == _contents(read(tmp_path / "root"))
    assert read(table).counts() == {s: {"bad": n, "good": n} for s, n in (("train", 10), ("val", 5), ("test", 5))}


@pytest.mark.parametrize("names", [("text", "text_pair"), ("sentence1", "sentence2"), ("premise", "hypothesis")])
def test_pairs(tmp_path: Path, names: tuple[str, str]):
    rows = [(f"premise {i}", f"hypothesis {i % 3}", i % 2) for i in range(30)]
    data = read(_csv(tmp_path / "a.csv", rows, (*names, "label")))
    assert data.open(4) == Pair("premise 4", "hypothesis 1") and str(data.open(4)) == "premise 4 | hypothesis 1"
    assert len(set(data.keys)) == 30 and data.lengths[4] == len("premise 4" + "hypothesis 1")
    assert data.keys == read(([row[:2] for row in rows], [row[2] for row in rows])).keys


def test_what_is_between_the_texts_of_a_pair_counts(tmp_path: Path):
    pairs = [("ab", "c"), ("a", "bc"), ("c", "ab"), ("abc", "ab"), ("d", "e"), ("f", "g")]
    assert len(set(read((pairs, [0, 1] * 3)).keys)) == 6


def test_bad_texts_in_one_message(tmp_path: Path):
    """Nothing else is lost when they are skipped."""
    root = _folder(tmp_path / "root", TEXTS)
    bad = {
        "bad/cut.txt": ("größe".encode()[:3] + "ä".encode(), "broken encoding"),
        "bad/undefined.txt": (b"caf\x81 \x8d", "broken encoding"),
        "bad/odd.txt": ("odd".encode("utf-16")[:-1], "broken encoding"),
        "bad/zero.txt": (b"", "empty text"),
        "good/spaces.txt": (b" \r\n\t ", "empty text"),
        "good/program.txt": (b"\x7fELF\0\0\0\0", "not a text"),
        "good/unmarked.txt": ("wide".encode("utf-16-le"), "not a text"),
    }
    for name, (content, _) in bad.items():
        (root / name).write_bytes(content)
    message = _message(root)
    assert message.startswith("7 of 47 texts cannot be used:")
    assert all(f"{name}: {kind}: " in message for name, (_, kind) in bad.items())
    rest = read(root, skip_bad=True)
    assert len(rest) == 40 and {p.name: p.kind for p in rest.problems} == {
        name: kind for name, (_, kind) in bad.items()
    }


def test_bad_rows_in_one_message(tmp_path: Path):
    table = tmp_path / "t.csv"
    good = "".join(f"text {i},{'yes' if i % 2 else 'no'}\n" for i in range(20))
    bad = (
        b","
        + b"yes\n"
        + b"no label,\n"
        + b"one, two, three,no\n"
        + b"short\n"
        + b"\xc3\xa4 and \xff,yes\n"
        + b"a\0b,no\n"
    )
    table.write_bytes(b"text,label\n" + bad + good.encode() + "café,no\n".encode("cp1252"))
    message = _message(table)
    assert message.startswith("6 of 27 texts cannot be used:")
    kinds = ("empty text", "no label", "extra cells", "no label", "broken encoding", "not a text")
    for number, kind in enumerate(kinds):
        assert f"t.csv#{number}: {kind}: " in message
    rest = read(table, skip_bad=True)
    assert rest.open(20) == "café"
    assert [p.kind for p in rest.problems].count("encoding") == 1


@pytest.mark.parametrize("cell", ['"never closed', '"closed "too early"', '"so good'])
def test_a_quotation_mark_that_swallows_rows_is_an_error(tmp_path: Path, cell: str):
    rows = "".join(f"text {i},{'yes' if i % 2 else 'no'}\n" for i in range(20))
    (tmp_path / "t.csv").write_text(f'text,label\n{rows}{cell},no\n{rows}good "indeed,no\n')
    assert "does not split into cells" in _message(tmp_path / "t.csv")


def test_what_was_skipped_is_named_if_nothing_is_left(tmp_path: Path):
    message = _message(_csv(tmp_path / "a.csv", [(" ", "yes"), ("text", "no"), ("", "yes")]), skip_bad=True)
    assert "a.csv#0: empty text" in message and "at least two" in message and "skip-bad" not in message


def test_half_a_character_and_other_values_in_jsonl(tmp_path: Path):
    rows = [{"text": f"text {i}", "label": i % 2} for i in range(60)]
    rows += [{"text": "\ud800", "label": 0}, {"text": ["a"], "label": 1}, {"text": 7, "label": 1}]
    rows += [{"text": "two labels", "label": [0, 1]}, {"label": 0}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = read(tmp_path / "a.jsonl", skip_bad=True)
    kinds = {p.name: p.kind for p in data.problems}
    assert kinds == {
        "a.jsonl#60": "broken encoding",
        "a.jsonl#61": "not a text",
        "a.jsonl#63": "no label",
        "a.jsonl#64": "empty text",
    }
    assert data.open(60) == "7"


@pytest.mark.parametrize(("strays", "said"), [(3, "is a number, and 20 other labels are words"), (30, "is a word")])
def test_numbers_among_words_are_named(tmp_path: Path, strays: int, said: str):
    rows = [*TEXTS[:20], *((f"stray {i}", i % 2) for i in range(strays))]
    message = _message(_csv(tmp_path / "a.csv", rows))
    assert f"{min(strays, 20)} of {20 + strays} texts" in message and "mixed labels" in message and said in message
    rest = read(tmp_path / "a.csv", skip_bad=True)
    assert rest.classes == (("bad", "good") if strays == 3 else ("0", "1"))


def test_a_long_word_and_a_long_text(tmp_path: Path):
    """One megabyte without a space, above the limit of Python's csv; the limit is as it was afterwards."""
    limit = csv.field_size_limit()
    word = "x" * 2**20
    data = read(_csv(tmp_path / "a.csv", [*TEXTS, (word, "good")]))
    assert csv.field_size_limit() == limit
    assert data.open(40) == word and data.lengths[40] == 2**20
    assert [(p.kind, p.name) for p in data.problems] == [("long text", "a.csv#40")]
    assert load_rows(data, transform_for(WORDS)).shape == (41, 4)


def test_the_same_text_twice_is_reported(tmp_path: Path):
    rows = [*((*row, "train") for row in TEXTS), (*TEXTS[0], "test"), (TEXTS[1][0], "bad", "train")]
    data = read(_csv(tmp_path / "a.csv", rows, ("text", "label", "split")), val_fraction=0)
    problems = {p.kind: p.detail for p in data.problems}
    assert "the same text is a.csv#0 (train), a.csv#40 (test)" in problems["duplicate across splits"]
    assert "the same text is a.csv#1 (good), a.csv#41 (bad)" in problems["conflicting labels"]


def test_messages_speak_of_texts(tmp_path: Path):
    root = _folder(tmp_path / "one", [("a", "good"), ("b", "good")])
    (root / "good" / "notes.pdf").touch()
    assert "one class, 'good'" in _message(root)
    (root / "bad").mkdir()
    (root / "bad" / "c.txt").write_text("c")
    assert "class 'bad' has only one text (the same text twice counts once)" in _message(root)
    assert "has no rows" in _message(_csv(tmp_path / "none.csv", []))
    (tmp_path / "empty" / "good").mkdir(parents=True)
    assert "has no texts" in _message(tmp_path / "empty", modality="text")


def test_modality_is_found_or_asked_for(photos: Path, tmp_path: Path):
    """Captions beside pictures are no examples, unless they are asked for; other mixtures are an error."""
    for path in sorted(photos.glob("*/*.*")):
        path.with_suffix(".txt").write_text(f"a photo called {path.stem} in {path.parent}")
    assert read(photos).modality == "image"
    captions = read(photos, modality="text")
    assert (captions.modality, len(captions)) == ("text", 60)
    for i in range(10):
        (photos / "cat" / f"more{i}.txt").write_text(f"note {i}")
    message = _message(photos)
    assert "60 pictures" in message and "70 texts" in message and "modality=" in message


def test_tables_of_paths_go_by_the_endings(photos: Path, tmp_path: Path):
    root = _folder(tmp_path / "texts", TEXTS)
    rows = [(f"texts/{p.parent.name}/{p.name}", p.parent.name) for p in sorted(root.glob("*/*.txt"))]
    data = read(_csv(tmp_path / "a.csv", rows, ("path", "label")))
    assert data.modality == "text" and _contents(data) == _contents(read(root))
    pictures = [(f"photos/{p.parent.name}/{p.name}", p.parent.name) for p in sorted(photos.glob("*/*.*"))]
    message = _message(_csv(tmp_path / "b.csv", [*rows * 2, *pictures], ("path", "label")))
    assert "60 pictures" in message and "80 texts" in message


def test_columns_of_two_kinds_are_asked_about(tmp_path: Path):
    _csv(tmp_path / "a.csv", [(*row, "x.png") for row in TEXTS], ("text", "label", "image"))
    assert "image, text" in _message(tmp_path / "a.csv") and "modality=" in _message(tmp_path / "a.csv")
    assert len(read(tmp_path / "a.csv", modality="text")) == 40


def test_a_table_of_numbers_is_refused_with_advice(tmp_path: Path):
    table = _csv(tmp_path / "a.csv", [(1.5, 2, "x")], ("height", "width", "label"))
    assert "gradient-boosted trees" in _message(table)
    pq.write_table(pa.table({"height": [1.5], "width": [2], "label": ["x"]}), tmp_path / "a.parquet")
    assert "gradient-boosted trees" in _message(tmp_path / "a.parquet")


def test_texts_are_not_prepared_as_pictures():
    data = read(tuple(zip(*TEXTS, strict=True)))
    with pytest.raises(DataError, match="holds texts and is to be prepared as pictures"):
        load_rows(data, transform_for(InputSpec((3, 8, 8))))


def test_a_changed_file_has_no_row(tmp_path: Path):
    root = _folder(tmp_path / "root", TEXTS)
    data = read(root)
    (root / data.examples[0].name).write_text("another text")
    (root / data.examples[1].name).write_bytes(data.open(1).encode("utf-16"))  # the same text, saved otherwise
    with pytest.raises(DataError, match=r"1 of 40 texts cannot be used:\n.*changed"):
        load_rows(data, transform_for(WORDS))


def test_a_long_table_takes_memory_for_its_texts_and_little_more(tmp_path: Path):
    texts = [(f"{'word ' * 40}{i}", i % 2) for i in range(5000)]
    table = _csv(tmp_path / "a.csv", texts)
    tracemalloc.start()
    data = read(table)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(data) == 5000
    assert held / 5000 < np.mean([len(text) for text, _ in texts]) + 800  # bytes


def test_real_sentences(shared_data: Path):
    data = read(shared_data / "datasets" / "rt_polarity" / "text.csv")
    assert (len(data), data.classes, data.problems) == (10_662, ("negative", "positive"), ())
    assert data.counts()["test"] == {"negative": 533, "positive": 533}
