"""Every way in gives the same kind of Dataset."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regraft.data import Dataset, Example, read, read_unlabelled
from regraft.data.parquet import BlockCache, PictureColumn


def _contents(dataset: Dataset) -> set[tuple[str, str]]:
    return {(e.key, dataset.classes[e.label]) for e in dataset.examples}


def _records(root: Path) -> list[tuple[Path, str]]:
    return [(path, path.parent.name) for path in sorted(root.glob("*/*.*"))]


def test_class_folders(photos: Path):
    data = read(photos)
    assert (data.name, data.classes, len(data)) == ("photos", ("cat", "dog"), 60)
    assert data.examples[0].name == "cat/00.png"
    assert set(data.counts()) == {"train", "val", "test"}
    assert data.open(0).size == (24, 20)
    assert read(str(photos)) == data


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_split_folders_keep_their_split(photos: Path, tmp_path: Path, name: str):
    root = tmp_path / "split"
    for split, start in (("train", 0), (name, 10), ("test", 20)):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for path in sorted((photos / label).iterdir())[start : start + 10]:
                shutil.copy(path, root / split / label)
    split_sizes = {"train": 10, "val": 10, "test": 10}
    assert read(root).counts() == {s: {"cat": n, "dog": n} for s, n in split_sizes.items()}


def test_a_class_may_be_called_train(photos: Path):
    (photos / "cat").rename(photos / "train")
    assert read(photos).classes == ("dog", "train")


def test_what_is_not_a_picture_is_left_out_and_said(photos: Path):
    (photos / "cat" / "notes.txt").write_text("seen in May")
    (photos / "cat" / ".hidden.jpg").write_text("")
    (photos / ".git").mkdir()
    (photos / "cow").mkdir()
    data = read(photos)
    assert len(data) == 60
    assert [(p.kind, p.name) for p in data.problems] == [("ignored", "cat"), ("empty class", "cow")]


def test_what_macos_adds_and_hidden_folders_are_passed_over(photos: Path):
    whole = read(photos)
    for folder in (photos / "__MACOSX" / "cat", photos / "cat" / "__MACOSX", photos / ".thumbs"):
        folder.mkdir(parents=True)
        (folder / "._00.jpg").write_text("")
        (folder / "00.jpg").write_text("")
    assert read(photos) == whole


@pytest.mark.parametrize("where", ["runs/photos-1", "runs/photos/first", "newrun", "cat/newrun"])
def test_a_run_folder_inside_the_data_is_no_data(photos: Path, where: str):
    before = read(photos)
    run = photos / where
    (run / "model").mkdir(parents=True)
    shutil.copy(photos / "dog" / "00.png", run / "filters.png")
    shutil.copy(photos / "dog" / "02.png", run / "model" / "sample.png")
    (run / "config.toml").write_text("seed = 0\n")
    (run / "log.jsonl").write_text("")
    for data in (read(photos), read_unlabelled(photos)):
        assert sorted(example.name for example in data.examples) == sorted(e.name for e in before.examples)
        (note,) = (problem for problem in data.problems if problem.kind == "ignored")
        assert note.name in (where, "runs") and "regraft wrote" in note.detail
    assert read(photos).classes == ("cat", "dog")


def test_a_model_inside_the_data_is_no_data(photos: Path):
    (photos / "model").mkdir()
    for name in ("config.json", "model.safetensors"):
        (photos / "model" / name).write_text("{}")
    shutil.copy(photos / "dog" / "00.png", photos / "model")
    assert read(photos).classes == ("cat", "dog")


@pytest.mark.parametrize("where", [".", "cat/..", "../photos/"])
def test_a_folder_has_its_own_name_however_it_is_written(photos: Path, monkeypatch: pytest.MonkeyPatch, where: str):
    monkeypatch.chdir(photos)
    assert read(where).name == "photos"


def test_pictures_beside_the_class_folders_are_left_out_and_said(photos: Path, paint):
    paint(900).save(photos / "loose.png")
    (photos / "labels.csv").write_text("")
    data = read(photos)
    assert len(data) == 60
    assert [(p.kind, p.name, "loose.png" in p.detail) for p in data.problems] == [("ignored", "photos", True)]


@pytest.mark.parametrize("there", [True, False])
def test_a_given_split_that_lacks_a_class_is_reported(photos: Path, tmp_path: Path, there: bool):
    root = tmp_path / "split"
    shutil.copytree(photos, root / "train")
    (root / "test").mkdir()
    (root / "train" / "cat").joinpath("00.png").rename(root / "test" / "00.png")
    (root / "test" / "cat").mkdir()
    (root / "test" / "00.png").rename(root / "test" / "cat" / "00.png")
    if there:
        (root / "test" / "dog").mkdir()
    found = {p.kind: p for p in read(root).problems}
    assert set(found) == {"class missing in split"} | ({"empty class"} if there else set())
    assert found["class missing in split"].name == "test"
    assert "no picture of 'dog'" in found["class missing in split"].detail


def test_a_split_without_class_folders_is_said(photos: Path, tmp_path: Path):
    root = tmp_path / "split"
    shutil.copytree(photos, root / "train")
    (root / "test").mkdir()
    shutil.copy(photos / "cat" / "00.png", root / "test")
    assert [(p.kind, p.name, p.detail) for p in read(root).problems] == [("ignored", "test", "it has no class folders")]


@pytest.mark.parametrize(
    "names", [("training", "dev", "holdout"), ("Train", "valid", "eval"), ("train", "val", "testing")]
)
def test_splits_have_several_names_in_tables_and_folders(photos: Path, tmp_path: Path, names: tuple[str, str, str]):
    rows = ["image,label,split"]
    for i, (path, label) in enumerate(_records(photos)):
        split = names[i % 3]
        rows.append(f"{path.relative_to(photos)},{label},{split}")
        (tmp_path / "root" / split / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "root" / split / label)
    (photos / "t.csv").write_text("\n".join(rows))
    expected = {split: {"cat": 10, "dog": 10} for split in ("train", "val", "test")}
    assert read(photos / "t.csv").counts() == expected == read(tmp_path / "root").counts()


def test_blanks_around_paths_do_not_count(photos: Path):
    rows = [f" {path.relative_to(photos)}\t, {label} " for path, label in _records(photos)]
    (photos / "t.csv").write_text("\n".join(["image,label", *rows]))
    data = read(photos / "t.csv")
    assert _contents(data) == _contents(read(photos)) and data.examples[0].name == "cat/00.png"


@pytest.mark.parametrize("columns", [("image", "label"), ("path", "target"), ("file_name", "class")])
def test_csv(photos: Path, columns: tuple[str, str]):
    table = photos / "labels.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows((path.relative_to(photos), label) for path, label in _records(photos))
    assert _contents(read(table)) == _contents(read(photos))


def test_jsonl_with_splits_and_numbers(photos: Path):
    rows = [
        {"image": {"path": str(path.relative_to(photos))}, "label": 10 - (label == "cat") * 8, "split": split}
        for i, (path, label) in enumerate(_records(photos))
        for split in [("train", "validation", "test")[i % 3]]
    ]
    (photos / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    data = read(photos / "rows.jsonl")
    assert data.classes == ("2", "10")  # numbers by value
    assert data.counts() == {s: {"2": 10, "10": 10} for s in ("train", "val", "test")}


def _hf_table(records: list[tuple[Path, str]], kind: str) -> pa.Table:
    """A table as Hugging Face datasets writes it: label 1 is "cat", against the alphabet."""
    names = ["dog", "cat"]
    pictures = {
        "bytes": lambda path: path.read_bytes(),
        "struct": lambda path: {"bytes": path.read_bytes(), "path": path.name},
        "paths in struct": lambda path: {"bytes": None, "path": str(path)},
        "path": str,
    }[kind]
    table = pa.table(
        {
            "image": [pictures(path) for path, _ in records],
            "label": [names.index(label) for _, label in records],
        }
    )
    features = {"label": {"_type": "ClassLabel", "names": names}, "image": {"_type": "Image"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


@pytest.mark.parametrize("kind", ["bytes", "struct", "paths in struct", "path"])
def test_parquet(photos: Path, tmp_path: Path, kind: str):
    pq.write_table(_hf_table(_records(photos), kind), tmp_path / "all.parquet", row_group_size=7)
    data = read(tmp_path / "all.parquet")
    assert data.classes == ("dog", "cat")
    assert _contents(data) == _contents(read(photos))
    assert data.examples[17].name == "all.parquet#17"
    assert np.array_equal(np.asarray(data.open(17)), np.asarray(read(photos).open(17)))


@pytest.mark.parametrize("folder", ["", "data"])
def test_folder_of_parquet_takes_splits_from_names(photos: Path, tmp_path: Path, folder: str):
    root = tmp_path / "hub" / folder
    root.mkdir(parents=True)
    records = _records(photos)
    names = ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001", "test")
    for start, name in enumerate(names):
        pq.write_table(_hf_table(records[start::4], "struct"), root / f"{name}.parquet")
    counts = read(tmp_path / "hub").counts()
    assert {split: sum(n.values()) for split, n in counts.items()} == {"train": 30, "val": 15, "test": 15}


def test_what_macos_adds_to_a_folder_of_parquet_is_passed_over(photos: Path, tmp_path: Path):
    pq.write_table(_hf_table(_records(photos), "struct"), tmp_path / "train.parquet")
    (tmp_path / "._train.parquet").write_text("")
    assert len(read(tmp_path)) == 60
    (tmp_path / "data").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "train.parquet").rename(tmp_path / "data" / "train.parquet")
    (tmp_path / "__MACOSX" / "train.parquet").write_text("")
    assert len(read(tmp_path)) == 60


def test_parquet_can_be_sent_to_another_process(photos: Path, tmp_path: Path):
    """As an engine does it; a column holds a lock and an open file."""
    pq.write_table(_hf_table(_records(photos), "struct"), tmp_path / "all.parquet")
    data = read(tmp_path / "all.parquet")
    sent = pickle.loads(pickle.dumps(data))
    assert [sent.open(i).tobytes() for i in range(3)] == [data.open(i).tobytes() for i in range(3)]


@pytest.mark.parametrize("where", ["meta", "data", "train"])
def test_parquet_below_class_folders_is_left_out_and_said(photos: Path, where: str):
    before = _contents(read(photos))
    (photos / where).mkdir()
    pq.write_table(pa.table({"file": ["00.png"], "score": [0.5]}), photos / where / "scores.parquet")
    data = read(photos)
    assert _contents(data) == before
    assert any(problem.name == where and "scores.parquet" in problem.detail for problem in data.problems)


def test_parquet_below_split_folders_of_classes_is_left_out(photos: Path, tmp_path: Path):
    photos.rename(tmp_path / "train")
    pq.write_table(pa.table({"file": ["00.png"]}), tmp_path / "train" / "scores.parquet")
    assert read(tmp_path).classes == ("cat", "dog")


def test_folders_beside_parquet_are_left_out_and_said(photos: Path):
    pq.write_table(_hf_table(_records(photos), "struct"), photos / "all.parquet")
    data = read(photos)
    assert len(data) == 60
    assert [p.name for p in data.problems if p.kind == "ignored"] == ["cat", "dog"]
    pq.write_table(_hf_table(_records(photos), "path"), photos / "all.parquet")
    assert not [p for p in read(photos).problems if p.kind == "ignored"]


def test_parquet_holds_few_blocks_in_any_order(tmp_path: Path):
    """One row group read forward, backward and at random gives its rows, and the cache keeps to its size."""
    rng = np.random.default_rng(0)
    values = [rng.bytes(40_000) for _ in range(200)]
    pq.write_table(pa.table({"image": values, "label": [0] * 200}), tmp_path / "one.parquet")
    cache = BlockCache(capacity=2_500_000)
    column = PictureColumn(tmp_path / "one.parquet", "image", cache)
    for row in [*range(200), *range(199, 150, -24), *rng.permutation(200)[:20]]:
        assert column.content(0, row) == values[row]
        assert cache.held <= 2_500_000


def test_digits():
    data = read("digits")
    assert (len(data), data.classes, data.examples[17].name) == (1797, tuple("0123456789"), "digits#17")
    pixels = np.asarray(data.open(0))
    assert (pixels.shape, pixels.dtype, pixels.max()) == ((8, 8), np.uint8, 239)  # 15 * 255 / 16, rounded


@pytest.mark.parametrize("layout", ["NHW", "NHWC", "NCHW"])
@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_arrays(layout: str, kind: str):
    X = np.random.default_rng(0).integers(0, 256, (40, 12, 10, 3), np.uint8)
    X = {"NHW": X[..., 0], "NHWC": X, "NCHW": X.transpose(0, 3, 1, 2)}[layout]
    data = read((X / 255 if kind == "float" else X, np.arange(40) % 2))
    assert (data.classes, len(data)) == (("0", "1"), 40)
    shown = np.asarray(data.open(3))
    assert np.array_equal(shown, X[3].transpose(1, 2, 0) if layout == "NCHW" else X[3])


def test_sizes(photos: Path, paint):
    paint(1, (100, 50), "L").save(photos / "cat" / "wide.png")
    sizes = read(photos).sizes()
    assert (sizes.n, sizes.width, sizes.height) == (61, (24, 24, 100), (20, 20, 50))
    assert sizes.modes == {"RGB": 60, "L": 1}


def test_the_same_picture_under_two_names_is_reported(photos: Path):
    shutil.copy(photos / "cat" / "00.png", photos / "dog" / "again.png")
    kinds = {p.kind: p.detail for p in read(photos).problems}
    assert "cat/00.png (cat), dog/again.png (dog)" in kinds["conflicting labels"]


def test_the_same_picture_in_two_splits_is_reported(photos: Path, tmp_path: Path):
    root = tmp_path / "split"
    shutil.copytree(photos, root / "train")
    shutil.copytree(photos, root / "test", ignore=lambda _, names: [n for n in names if n[0] in "12"])
    problems = [p for p in read(root).problems if p.kind == "duplicate across splits"]
    assert len(problems) == 20


def test_labels_that_differ_in_case_or_blanks_are_reported(photos: Path):
    for name in ("Cat", "dog "):
        shutil.copytree(photos / name.strip().lower(), photos / name)
    found = {p.name: p.detail for p in read(photos).problems if p.kind == "labels alike"}
    assert "'Cat', 'cat'" in found["Cat"] and "'dog', 'dog '" in found["dog"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_blanks_around_labels_of_tables_do_not_count(tmp_path: Path, ending: str):
    rows = [{"text": f"a film of {i} hours", "label": ("good", "bad", "good ", "Bad")[i % 4]} for i in range(40)]
    path = tmp_path / f"t.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        path.write_text("\n".join(["text,label", *(f"{row['text']},{row['label']}" for row in rows)]))
    data = read(path)
    assert data.classes == ("Bad", "bad", "good")
    assert [p.name for p in data.problems if p.kind == "labels alike"] == ["Bad"]


def test_small_and_uneven_classes_are_reported(photos: Path):
    for path in sorted((photos / "dog").iterdir())[3:]:
        path.unlink()
    assert [(p.kind, p.name) for p in read(photos).problems] == [
        ("small class", "dog"),
        ("imbalanced classes", "dog"),
    ]


def test_examples_are_light(photos: Path):
    example = read(photos).examples[0]
    assert isinstance(example, Example) and not hasattr(example, "__dict__")
    size = sum(sys.getsizeof(x) for x in (example, example.key, example.name, example.locator))
    assert size < 500


def test_real_parquet_in_one_row_group(shared_data: Path):
    data = read(shared_data / "datasets" / "cifar10" / "test.parquet")
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    assert (len(data), data.sizes().width) == (10_000, (32, 32, 32))
