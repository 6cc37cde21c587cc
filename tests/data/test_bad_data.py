"""Bad input: one message with every path and reason, which ends with what would have worked."""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regraft.data import read
from regraft.errors import DataError


def _message(*args, **kwargs) -> str:
    with pytest.raises(DataError) as error:
        read(*args, **kwargs)
    return str(error.value)


def _png_bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


def _spoil(photos: Path) -> dict[str, str]:
    """Adds every kind of bad file; name -> what the message says of it."""
    jpeg, png = (photos / "cat" / "01.jpg").read_bytes(), (photos / "cat" / "00.png").read_bytes()
    files = {
        "cat/half.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "cat/almost.jpg": (jpeg[:-40], "truncated"),
        "dog/half.png": (png[: len(png) // 2], "truncated"),
        "dog/zero.jpg": (b"", "empty file"),
        "dog/text.jpg": (b"I am not a picture", "unreadable"),
        "dog/bomb.png": (_png_bomb(30_000, 30_000), "too large"),
    }
    for name, (content, _) in files.items():
        (photos / name).write_bytes(content)
    return {name: reason for name, (_, reason) in files.items()}


def test_all_bad_files_in_one_message(photos: Path):
    expected = _spoil(photos)
    message = _message(photos)
    assert message.startswith("6 of 66 pictures cannot be used:")
    for name, reason in expected.items():
        assert f"{name}: {reason}: " in message
    assert "30,000 x 30,000" in message
    assert message.endswith(f"leave them out with --skip-bad: read({str(photos)!r}, skip_bad=True)")


def test_skip_bad_leaves_them_out_and_keeps_the_rest(photos: Path):
    whole = read(photos)
    expected = _spoil(photos)
    data = read(photos, skip_bad=True)
    assert data.examples == whole.examples
    assert {p.name: p.kind for p in data.problems} == expected


def test_a_long_list_is_cut_and_counted(photos: Path):
    for i in range(30):
        (photos / "cat" / f"zero{i}.jpg").touch()
    message = _message(photos)
    assert message.count("empty file") == 20
    assert "... and 10 more" in message


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(photos: Path):
    path = photos / "cat" / "01.jpg"
    path.write_bytes(path.read_bytes() + b"camera notes")
    assert len(read(photos)) == 60


def test_empty_folder(tmp_path: Path):
    assert _message(tmp_path).endswith(f"{tmp_path}/CLASS/picture.jpg")
    (tmp_path / "cat").mkdir()
    assert "has no pictures" in _message(tmp_path)


def test_pictures_without_class_folders(tmp_path: Path, paint):
    paint(0).save(tmp_path / "a.png")
    assert f"{tmp_path} holds 1 pictures, but no folder per class. Expected one" in _message(tmp_path)
    assert _message(tmp_path).endswith(f"{tmp_path}/CLASS/picture.jpg")
    (tmp_path / "cat").mkdir()
    assert "holds 1 pictures, but none in a class folder" in _message(tmp_path)
    (tmp_path / "splits" / "train").mkdir(parents=True)
    paint(0).save(tmp_path / "splits" / "train" / "a.png")
    assert "CLASS/picture.jpg" in _message(tmp_path / "splits")


def test_one_class(photos: Path):
    for path in (photos / "dog").iterdir():
        path.unlink()
    assert "one class, 'cat'" in _message(photos)


def test_a_class_with_one_picture_is_named(photos: Path):
    first, *others = sorted((photos / "dog").iterdir())
    for path in others:
        path.unlink()
    assert "class 'dog' has only one picture" in _message(photos)
    (photos / "dog" / "copy.png").write_bytes(first.read_bytes())
    assert "class 'dog' has only one picture" in _message(photos)


def test_bad_files_and_bad_classes_are_told_together(photos: Path):
    for path in sorted((photos / "dog").iterdir())[1:]:
        path.write_bytes(b"")
    message = _message(photos)
    assert "29 of 60" in message and "class 'dog' has only one picture" in message


def test_a_class_without_training_pictures(photos: Path, tmp_path: Path, paint):
    photos.rename(tmp_path / "train")
    (tmp_path / "test" / "cow").mkdir(parents=True)
    for i in range(3):
        paint(500 + i).save(tmp_path / "test" / "cow" / f"{i}.png")
    assert "class 'cow' has no training picture" in _message(tmp_path)


def test_a_misspelt_split_folder_is_named(photos: Path, tmp_path: Path):
    shutil.copytree(photos, tmp_path / "root" / "test")
    photos.rename(tmp_path / "root" / "trian")
    message = _message(tmp_path / "root")
    assert "the classes 'cat', 'dog' have no training picture. 'trian' is ignored" in message
    assert "Did you mean 'train'?" in message


@pytest.mark.parametrize("n", [1, 3])
def test_a_misspelt_class_folder_is_named(photos: Path, tmp_path: Path, paint, n: int):
    photos.rename(tmp_path / "train")
    (tmp_path / "val" / "dgo").mkdir(parents=True)
    for i in range(n):
        paint(500 + i).save(tmp_path / "val" / "dgo" / f"{i}.png")
    message = _message(tmp_path)
    assert "class 'dgo' has" in message and "Did you mean 'dog'?" in message


def test_a_misspelt_path_shows_near_names(photos: Path):
    assert "Did you mean 'photos'?" in _message(photos.parent / "fotos")
    assert "'digits'" in _message("digit")


def test_only_what_holds_data_is_offered_for_a_misspelt_path(tmp_path: Path):
    (tmp_path / "fotos.sh").touch()
    (tmp_path / "fotos.csv").touch()
    assert "Did you mean 'fotos.csv'?" in _message(tmp_path / "fotos")
    assert "Did you mean" not in _message(tmp_path / "nosuch")


def test_a_folder_around_a_table_names_the_table(tmp_path: Path, paint):
    (tmp_path / "text.csv").write_text("text,label\n")
    assert _message(tmp_path).endswith(f"or the table in it: read({str(tmp_path / 'text.csv')!r})")
    paint(0).save(tmp_path / "a.png")
    assert _message(tmp_path).endswith(f"or the table in it: read({str(tmp_path / 'text.csv')!r})")


def test_of_several_kinds_the_commonest_is_advised(photos: Path):
    for i in range(90):
        (photos / "cat" / f"{i}.wav").touch()
    assert _message(photos).endswith("modality='audio')")


@pytest.mark.parametrize("where", ["s3:photos", "https://example.org/photos.zip"])
def test_unknown_schemes_are_explained(where: str):
    message = _message(where)
    assert "not read from" in message and "Parquet" in message and message.endswith("read('my_data')")


def test_a_file_of_another_kind(tmp_path: Path, paint):
    paint(0).save(tmp_path / "photo.png")
    assert "of kind .png" in _message(tmp_path / "photo.png")


def test_table_without_the_columns(tmp_path: Path):
    (tmp_path / "t.csv").write_text("picture;kind\na.png;cat\n")
    assert "picture column" in _message(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("text,sort\nhello,greeting\n")
    assert "a label column (label | target | class)" in _message(tmp_path / "t.csv")


def test_every_bad_row_of_a_table(photos: Path):
    table = photos / "t.csv"
    table.write_text(
        "image,label,split\ncat/00.png,cat,\ncat/99.png,cat,\ncat/02.png,,\n,cat,\ncat/04.png,cat,spare\n"
        + "".join(f"{p.parent.name}/{p.name},{p.parent.name},\n" for p in photos.glob("*/1*"))
    )
    message = _message(table)
    assert "4 of 25 pictures" in message
    assert "cat/99.png: missing" in message
    assert "t.csv#2: no label" in message
    assert "t.csv#3: no picture" in message
    assert "t.csv#4: unknown split: there is no split 'spare'" in message
    assert len(read(table, skip_bad=True)) == 21


def _table(photos: Path, cells: Iterable[tuple[str, ...]], header: str = "image,label") -> Path:
    (photos / "t.csv").write_text("".join(f"{line}\n" for line in [header, *map(",".join, cells)]))
    return photos / "t.csv"


def _paths(photos: Path) -> list[tuple[str, str]]:
    return [(f"{p.parent.name}/{p.name}", p.parent.name) for p in sorted(photos.glob("*/*.*"))]


def test_an_unknown_split_is_told_once_with_its_rows(photos: Path):
    names = ("trian", "dev", "holdout")
    rows = [(*row, names[i % 3]) for i, row in enumerate(_paths(photos))]
    message = _message(_table(photos, rows, "image,label,split"))
    assert message.startswith("20 of 60 pictures") and message.count("trian") == 1
    assert "there is no split 'trian', expected one of train, " in message and "(20 rows)" in message
    last = message.splitlines()[-1]
    assert "no training picture. Give some rows of each the split train" in last and "train/cat" not in last
    rows = [(*row, ("train", "odd")[i % 3 == 0]) for i, row in enumerate(_paths(photos))]
    data = read(_table(photos, rows, "image,label,split"), skip_bad=True)
    assert len(data) == 40
    assert [(p.name, p.kind) for p in data.problems] == [("t.csv#0", "unknown split")]


def test_nothing_but_unknown_splits(photos: Path):
    message = _message(_table(photos, [(*row, "x") for row in _paths(photos)], "image,label,split"))
    assert "60 of 60" in message and "(60 rows)" in message
    assert "Mend the names of the splits, then read(" in message.splitlines()[-1]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: f"nowhere/{path}", "/nowhere/cat/00.png"),
        (lambda path: path.replace("/", "\\"), "60 have backslashes (60 would be found without): write /"),
        (lambda path: f"https://example.org/{path}", "60 are addresses, and nothing is downloaded"),
        (lambda path: path[:-4], "60 have no ending such as .jpg, and there is 00.png: write the whole name"),
    ],
)
def test_paths_that_all_lead_nowhere(photos: Path, spoil: Callable[[str], str], said: str):
    message = _message(_table(photos, [(spoil(path), label) for path, label in _paths(photos)]))
    assert f"Paths are relative to the folder of the table: the first was looked for at {photos}/" in message
    assert said in message and "second class" not in message
    assert "Mend the paths, then read(" in message.splitlines()[-1]


def test_a_class_whose_paths_lead_nowhere_is_no_matter_of_folders(photos: Path):
    rows = [(path if label == "cat" else f"x/{path}", label) for path, label in _paths(photos)]
    message = _message(_table(photos, rows))
    assert "30 of 60 pictures" in message and "looked for at" in message and "one class, 'cat'" in message
    assert "class folder" not in message and "skip_bad" not in message


def test_one_class_that_all_pictures_share(photos: Path):
    assert "add rows with a second label" in _message(_table(photos, [(path, "x") for path, _ in _paths(photos)]))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "image,label\n", "has no rows. Expected one for each picture, below the first line: image,label"),
        (
            "a.csv",
            "image,kind\n",
            "Expected a label column (label | target | class); a first line such as: image,label",
        ),
        ("a.csv", "image,kind\na.jpg,cat\n", "Expected a label column (label | target | class); a first line"),
        ("a.csv", "photo,label\na.jpg,cat\n", "Expected a picture column (image | img) or a column of paths"),
        ("a.csv", "photo,label\na.jpg,cat\n", "such as: image,label"),
        ("a.csv", "review,class\na good film,fine\n", "such as: text,class"),
        ("a.csv", "clip,label\na.wav,cat\n", "such as: audio,label"),
        ("a.jsonl", '{"image": "a.jpg", "kind": "cat"}', '; lines such as {"image": "...", "label": "..."}'),
        ("a.jsonl", "", 'has no rows. Expected lines such as {"image": "...", "label": "..."} or {"text"'),
    ],
)
def test_the_missing_column_is_named_with_a_fitting_example(tmp_path: Path, name: str, content: str, said: str):
    (tmp_path / name).write_text(content)
    message = _message(tmp_path / name)
    assert said in message
    assert message.endswith(("label", "text,class", '"}'))


def test_a_modality_that_the_table_does_not_hold(photos: Path):
    message = _message(_table(photos, _paths(photos)), modality="text")
    assert "--modality text asks for texts" in message and "has a picture column, 'image'" in message
    assert message.endswith(f"Leave it out: read({str(photos / 't.csv')!r})")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"image,label\n\xff\xfe,cat\n", "UTF-8"),
        ("a.csv", b"", "has no rows"),
        ("a.csv", bytes(range(128, 256)) + b"\nx\n", "no text in UTF-8"),
        ("a.jsonl", b'{"image": "a.png", "label": 1}\n[1, 2]\n', "line 2"),
        ("a.jsonl", b"{broken\n", "line 1"),
        ("a.parquet", b"PAR1 but not really", "not a readable Parquet file"),
    ],
)
def test_damaged_tables(tmp_path: Path, name: str, content: bytes, said: str):
    (tmp_path / name).write_bytes(content)
    assert said in _message(tmp_path / name)


def test_damaged_rows_inside_parquet(photos: Path, tmp_path: Path):
    values = [p.read_bytes() for p in sorted(photos.glob("*/*"))]
    values[3], values[7] = None, values[7][:200]
    table = pa.table({"image": pa.array(values, pa.binary()), "label": [0, 1] * 29 + [0, None]})
    pq.write_table(table, tmp_path / "a.parquet")
    message = _message(tmp_path / "a.parquet")
    for said in ("a.parquet#3: empty file", "a.parquet#7: truncated", "a.parquet#59: no label"):
        assert said in message


def test_parquet_of_pixel_values(tmp_path: Path):
    pq.write_table(pa.table({"image": [[1, 2], [3, 4]], "label": [0, 1]}), tmp_path / "a.parquet")
    assert _message(tmp_path / "a.parquet").endswith("read((X, y))")


@pytest.mark.parametrize(
    ("X", "y", "said"),
    [
        (np.zeros((4, 8, 8)) + 7.5, np.arange(4), "floats 0 to 1"),
        (np.full((4, 8, 8), np.nan), np.arange(4), "256 of 256 values of X are NaN, in 4 of 4 pictures"),
        (np.full((4, 8, 8), np.inf), np.arange(4), "nan_to_num"),
        (np.full((4, 64), np.nan), np.arange(4), "read((X.reshape(len(X), 8, 8), y))"),
        (np.zeros((4, 8, 8), np.int16) - 1, np.arange(4), "whole numbers 0 to 255"),
        (np.zeros((4, 8, 8, 5), np.uint8), np.arange(4), "1, 3 or 4 channels"),
        (np.zeros((4, 64), np.uint8), np.arange(4), "(N, H, W)"),
        (np.zeros((4, 8, 8), np.uint8), np.arange(3), "one label for each"),
        (np.zeros((0, 8, 8), np.uint8), np.arange(0), "no pictures"),
    ],
)
def test_bad_arrays(X: np.ndarray, y: np.ndarray, said: str):
    assert said in _message((X, y))


def test_values_that_are_no_numbers_are_counted_and_their_pictures_named():
    X, y = np.random.default_rng(0).random((40, 8, 8)), np.arange(40) % 2
    X[3, 0, :2], X[7] = np.nan, np.inf
    message = _message((X, y))
    assert "66 of 2560 values of X are NaN or infinite, in 2 of 40 pictures (number 3, 7)" in message
    assert message.endswith("ok = np.isfinite(X).all(axis=(1, 2)); read((X[ok], y[ok]))")
    ok = np.isfinite(X).all(axis=(1, 2))
    assert len(read((X[ok], y[ok]))) == 38


def test_fractions_that_leave_nothing():
    assert "leave nothing to train on" in _message("digits", val_fraction=0.5, test_fraction=0.5)
