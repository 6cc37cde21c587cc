"""Whatever holds a picture can be asked about; the answers do not depend on how it was handed over."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from regraft.artifact import Classifier, load
from regraft.cli import main
from regraft.data import Problem, read
from regraft.errors import DataError
from regraft.testing import tiny_images


@pytest.fixture(scope="module")
def model(saved: Path) -> Classifier:
    return load(saved)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return tiny_images(3, seed=5)[0]


@pytest.fixture
def folder(pictures: np.ndarray, tmp_path: Path) -> Path:
    """photos/0.png to photos/8.png, the last three one level down."""
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "photos" / ("sub" if i > 5 else "") / f"{i}.png")
    return tmp_path / "photos"


def test_every_way_of_asking_gives_the_same_answer(model: Classifier, pictures: np.ndarray, folder: Path):
    expected = model.predict_proba(pictures)
    images = [Image.fromarray(picture) for picture in pictures]
    dataset = read((pictures, np.arange(9) % 3))
    for inputs in (
        folder,
        str(folder),
        sorted(folder.rglob("*.png")),
        images,
        list(pictures),
        pictures / 255,
        pictures.transpose(0, 3, 1, 2),
        dataset,
    ):
        assert np.array_equal(model.predict_proba(inputs), expected)
    assert np.allclose(model.predict_proba(images[0]), expected[:1], atol=1e-6)  # another batch, another kernel


def test_rows_are_probabilities(model: Classifier, pictures: np.ndarray):
    rows = model.predict_proba(pictures)
    assert rows.dtype == np.float32
    assert rows.shape == (9, 3)
    assert np.allclose(rows.sum(1), 1, atol=1e-6)


def test_predictions_name_the_picture_and_the_best_class(model: Classifier, pictures: np.ndarray, folder: Path):
    rows = model.predict_proba(pictures)
    answers = model.predict(folder)
    assert [answer.name for answer in answers] == [str(path) for path in sorted(folder.rglob("*.png"))]
    assert [answer.label for answer in answers] == [model.classes[k] for k in rows.argmax(1)]
    assert answers[0].probability == max(answers[0].probabilities)
    assert [a.name for a in model.predict([pictures[0], Image.fromarray(pictures[1])])] == [
        "array#0",
        "image#1",
    ]


def test_batches_do_not_matter(model: Classifier, pictures: np.ndarray):
    assert np.allclose(model.predict_proba(pictures, batch_size=2), model.predict_proba(pictures), atol=1e-6)


def test_odd_pictures_are_pictures(model: Classifier, pictures: np.ndarray, tmp_path: Path):
    image = Image.fromarray(pictures[0])
    for mode in ("CMYK", "P", "L", "RGBA", "I;16"):
        shown = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
        assert model.predict_proba(shown).shape == (1, 3)
    rotated = tmp_path / "rotated.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(rotated, exif=exif, quality=100)
    with Image.open(rotated) as opened:
        assert np.array_equal(model.predict_proba(opened), model.predict_proba(rotated))


def test_bad_pictures_are_named_together(model: Classifier, pictures: np.ndarray, folder: Path):
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("not a picture")
    files = [*sorted(folder.rglob("*.*")), folder / "absent.jpg"]
    with pytest.raises(DataError) as error:
        model.predict(files)
    for part in ("3 of 12 pictures", "empty.jpg", "text.jpg", "absent.jpg", "on_bad=print"):
        assert part in str(error.value)
    bad: list[Problem] = []
    answers = model.predict(files, on_bad=bad.append)
    assert {Path(problem.name).name for problem in bad} == {"empty.jpg", "text.jpg", "absent.jpg"}
    assert np.array_equal([answer.probabilities for answer in answers], model.predict_proba(pictures))


def test_nothing_gives_nothing(model: Classifier):
    assert model.predict([]) == []
    assert model.predict_proba([]).shape == (0, 3)


def test_what_holds_no_picture_is_refused(model: Classifier, tmp_path: Path):
    with pytest.raises(DataError, match="has no pictures"):
        model.predict(tmp_path)
    with pytest.raises(DataError, match=r"cannot predict on a int \(number 0"):
        model.predict([1])  # type: ignore[list-item]
    with pytest.raises(DataError, match="cannot predict on a NoneType"):
        model.predict(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["revews/review1.txt", "nosuch.txt", "no/such"])
def test_a_misspelt_file_is_no_text(of_tiny_texts: Classifier, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setattr("regraft.cli.saved.load", lambda *_, **__: of_tiny_texts)
    with pytest.raises(SystemExit) as ended:
        main(["predict", "model", "the sea and the ship", name])
    assert ended.value.code == 2


def test_an_empty_text_is_not_the_current_folder(
    of_tiny_texts: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "mine.txt").write_text("the forest")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("regraft.cli.saved.load", lambda *_, **__: of_tiny_texts)
    with pytest.raises(SystemExit) as ended:
        main(["predict", "model", "the sea", ""])
    said = capsys.readouterr()
    assert ended.value.code == 2 and "the sea" in said.out and "mine.txt" not in said.out


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_answers_like_the_list_of_its_texts(of_tiny_texts: Classifier, tmp_path: Path, kind: str):
    texts, table = ["the sea and the ship", "city, street and tram"], tmp_path / f"new.{kind}"
    rows = [{"text": text, "label": None, "split": "nonsense"} for text in texts]  # neither is looked at
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), table)
    elif kind == "jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = "\t" if kind == "tsv" else ","
        table.write_text(f"text{mark}label\n" + "".join(f'"{text}"{mark}\n' for text in texts))
    found = of_tiny_texts.predict(table)
    assert [one.name for one in found] == [f"new.{kind}#0", f"new.{kind}#1"]
    assert [one.probabilities for one in found] == [one.probabilities for one in of_tiny_texts.predict(texts)]


def test_pairs_of_texts_are_the_rows_of_a_table(
    of_tiny_texts: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    table = tmp_path / "pairs.csv"
    table.write_text("sentence1,sentence2\nthe sea,the ship\nthe tram,the street,the city\n")
    monkeypatch.setattr("regraft.cli.saved.load", lambda *_, **__: of_tiny_texts)
    with pytest.raises(SystemExit) as ended:
        main(["predict", "model", str(table), "--json"])
    said = capsys.readouterr()
    (only,) = of_tiny_texts.predict([("the sea", "the ship")])
    assert ended.value.code == 2 and "pairs.csv#1" in said.err and "1 cells too many" in said.err
    assert "remove these rows of" in said.err and "regraft predict" not in said.err  # no command can name a row
    assert [one["probability"] for one in json.loads(said.out)] == [pytest.approx(only.probability)]


def test_a_table_names_pictures_beside_it(model: Classifier, folder: Path, of_tiny_texts: Classifier):
    names = sorted(path.name for path in folder.glob("*.png"))[:2]
    table = folder / "some.csv"
    table.write_text("file_name\n" + "\n".join(names) + "\n")
    expected = model.predict([folder / name for name in names])
    assert [one.probabilities for one in model.predict(table)] == [one.probabilities for one in expected]
    table.write_text("review\nthe sea\n")
    with pytest.raises(DataError, match=r"columns review\. Expected a text column .* a first line such as: text$"):
        of_tiny_texts.predict(table)
    table.write_text("text\nthe sea\n")
    with pytest.raises(DataError, match=r"columns text\. Expected a picture column .* such as: image$"):
        model.predict(table)


def test_a_link_to_nowhere_in_a_folder_is_told(model: Classifier, folder: Path):
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    problems: list[Problem] = []
    assert len(model.predict(folder, on_bad=problems.append)) == 9
    assert [Path(problem.name).name for problem in problems] == ["gone.png"]
