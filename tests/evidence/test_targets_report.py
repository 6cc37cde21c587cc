"""A run on numbers and on sets of labels, from the table to the page; what is written agrees with scikit-learn."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score, mean_absolute_error, r2_score, root_mean_squared_error

from regraft.artifact import load
from regraft.data import Kind
from regraft.evidence import render
from regraft.evidence.benefits import benefits
from regraft.evidence.controls import Level
from regraft.evidence.runs import Point, RawRun, RunStore
from regraft.evidence.stats import ci95, verdict
from regraft.job import Job
from regraft.testing import tiny_images
from regraft.transfer import Outcome, transfer

CELLS = {"regression": ("20.5", "40.25", "61"), "multilabel": ("round|thin", "round", "")}


def write_table(root: Path, kind: Kind, per_class: int, split_of: Callable[[int], str]) -> str:
    """A table of small pictures beside them, each with the split of its number."""
    X, y = tiny_images(per_class)
    lines = ["path,labels,split"]
    for i, (pixels, label) in enumerate(zip(X, y, strict=True)):
        Image.fromarray(pixels).save(root / f"{i}.png")
        lines.append(f"{i}.png,{CELLS[kind][label]},{split_of(i)}")
    (root / "table.csv").write_text("\n".join(lines))
    return str(root / "table.csv")


@pytest.fixture(scope="module", params=["regression", "multilabel"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Outcome]]:
    """A run of each kind on 90 small pictures, with quick controls."""
    kind, root = request.param, tmp_path_factory.mktemp(request.param)
    table = write_table(root, kind, 30, lambda i: ("train", "train", "val", "test")[i % 4])
    job = Job(data=table, task=kind, time_limit=20, cache=root / "cache", out=root / "run")
    yield kind, transfer(job)


def _answers(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_figures_are_scikit_learns_of_the_answers_written(made: tuple[str, Outcome]):
    kind, run = made
    rows, test = _answers(run.folder), run.metrics["test"]
    assert run.metrics["task"] == kind and test["n"] == len(rows) == 22
    if kind == "regression":
        truth, said = (np.array([float(row[side]) for row in rows]) for side in ("truth", "predicted"))
        assert test["r2"] == pytest.approx(r2_score(truth, said), abs=1e-4)
        assert test["mae"] == pytest.approx(mean_absolute_error(truth, said), abs=1e-3)
        assert test["rmse"] == pytest.approx(root_mean_squared_error(truth, said), abs=1e-3)
        assert set(truth) <= {20.5, 40.25, 61.0}
    else:
        truth, said = (
            np.array([[name in row[side].split("|") for name in ("round", "thin")] for row in rows])
            for side in ("truth", "predicted")
        )
        assert test["f1_micro"] == pytest.approx(f1_score(truth, said, average="micro"))
        assert test["f1_macro"] == pytest.approx(f1_score(truth, said, average="macro"))
        assert test["score"] == pytest.approx(f1_score(truth, said, average="samples", zero_division=1.0))  # pyright: ignore
        assert test["accuracy"] == pytest.approx((truth == said).all(1).mean())


@pytest.mark.parametrize("level", ["off", "quick"])
@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_a_single_test_example_makes_a_report_without_intervals(tmp_path: Path, kind: Kind, level: Level):
    table = write_table(tmp_path, kind, 8, lambda i: ("train", "train", "val")[i % 3] if i else "test")
    job = Job(data=table, task=kind, recipe="probe", evidence=level, cache=tmp_path / "cache")
    run = transfer(replace(job, out=tmp_path / "run"))
    written = [path for name in ("*.json", "model/*.json") for path in run.folder.glob(name)]
    assert [json.loads(path.read_text(), parse_constant=pytest.fail) for path in written]
    assert run.metrics["test"]["ci95"] is None and run.metrics["test"].get("r2") is None
    page = (run.folder / "report.html").read_text() + (run.folder / "model" / "README.md").read_text()
    assert not re.search(r"\b(nan|inf)\b|None[^ ]| None", page)


def test_it_learned_something_and_was_compared(made: tuple[str, Outcome]):
    kind, run = made
    controls = {row["name"]: row for row in run.evidence["controls"]}
    blind = controls["mean" if kind == "regression" else "commonest labels"]
    assert run.metrics["test"]["score"] > blind["accuracy"] + 0.1
    assert run.evidence["verdict"] in ("helps", "no difference", "hurts")
    assert "fresh weights" in run.evidence["rests_on"]
    assert run.evidence["benefits"]["asymptote"]["transfer"] == pytest.approx(run.metrics["test"]["score"])


def test_the_saved_model_gives_the_same_answers(made: tuple[str, Outcome]):
    kind, run = made
    model = load(run.folder / "model")
    data_root = run.folder.parent
    for row, found in zip(
        _answers(run.folder), model.predict([data_root / row["name"] for row in _answers(run.folder)]), strict=True
    ):
        if kind == "regression":
            assert found.values[0] == pytest.approx(float(row["predicted"]), abs=1e-2)
        else:
            assert "|".join(found.labels) == row["predicted"]
    assert model.bundle.task.kind == kind


def test_the_report_shows_its_figures_and_no_confusion(made: tuple[str, Outcome]):
    kind, run = made
    before = (run.folder / "report.html").read_bytes()
    page = render(run.folder).read_text(encoding="utf-8")
    assert page.encode() == before
    assert "Confusion matrix" not in page
    assert ("Predicted and true" in page) == (kind == "regression")
    assert ("Per label" in page) == (kind == "multilabel")
    words = {"regression": "variance explained", "multilabel": "F1 per example"}[kind]
    assert words in page and words in (run.folder / "report.md").read_text(encoding="utf-8")
    assert words in (run.folder / "model" / "README.md").read_text(encoding="utf-8")


def test_merits_that_are_numbers_are_kept_and_compared(tmp_path: Path):
    random = np.random.default_rng(0)
    theirs = random.normal(0.4, 0.3, 200)
    ours = theirs + random.normal(0.1, 0.1, 200)
    runs = [RawRun(arm, 0, 50, (Point(0, 1.0, merits),)) for arm, merits in (("transfer", ours), ("scratch", theirs))]
    kept = RunStore(tmp_path).get("transfer", 0, 50, lambda: runs[0])
    again = RunStore(tmp_path).get("transfer", 0, 50, lambda: replace(runs[1]))
    np.testing.assert_allclose(again.correct, kept.correct, atol=1e-6)
    assert json.loads(json.dumps(kept.to_dict()))["points"][0]["accuracy"] == pytest.approx(ours.mean())
    found = benefits([runs[0]], {"scratch": [runs[1]]})["asymptote"]
    assert found.finding == "helps" and found.difference == pytest.approx((ours - theirs).mean())
    assert verdict(ours, theirs).verdict == "helps" and verdict(theirs, ours).verdict == "hurts"
    assert verdict(ours, ours).verdict == "no difference"


def test_intervals_of_means_cover_as_often_as_they_say():
    random = np.random.default_rng(0)
    ends = [ci95(random.gamma(2.0, 0.2, 100)) for _ in range(1000)]
    assert 0.92 < np.mean([low < 0.4 < high for low, high in filter(None, ends)]) < 0.98
