"""What people read is what the files say: every figure of the page, of report.md and of the card is looked up."""

from __future__ import annotations

import csv
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from regraft.artifact.card import model_card
from regraft.evidence import render
from regraft.job import Job
from regraft.testing import tiny_source
from regraft.transfer import transfer
from regraft.tune import RECIPES

WORDS = {
    "transfer": "pretrained weights",
    "fresh weights": "same procedure, random weights",
    "scratch": "from scratch",
}


class _Tables(HTMLParser):
    """The cells of every table, by the beginning of its caption."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self._into = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")
        if tag in ("caption", "th", "td"):
            self._into = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._into:
            self._into = ""
        if tag == "table":
            self.found[_plain(self._caption)] = [[_plain(cell) for cell in row] for row in self._rows[1:]]

    def handle_data(self, data: str) -> None:
        if self._into == "caption":
            self._caption += data
        elif self._into:
            self._rows[-1][-1] += data

    def __getitem__(self, beginning: str) -> list[list[str]]:
        (rows,) = (rows for caption, rows in self.found.items() if caption.startswith(beginning))
        return rows


def _plain(text: str) -> str:
    return " ".join(text.replace("\u00a0", " ").split())


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.1f}".replace("-", "−")


def _between(ends: list[float], show: Any = _percent, word: str = "–") -> str:
    return f"{show(ends[0])} {word} {show(ends[1])}"


def _of(run: Path, name: str) -> Any:
    return json.loads((run / name).read_text())


@pytest.fixture
def page(proven: Path) -> str:
    return render(proven).read_text(encoding="utf-8")


def test_the_first_screen_is_metrics_json_and_evidence_json(proven: Path, page: str):
    test, found = _of(proven, "metrics.json")["test"], _of(proven, "evidence.json")
    big = [_plain(text) for text in re.findall(r'<div class="big">(.*?)</div>', page)]
    assert big[:2] == [_percent(test["accuracy"]), _points(found["difference"])]
    small = [_plain(text) for text in re.findall(r'<div class="small">(.*?)</div>', page)]
    assert f"{_between(test['ci95'], word='to')}, N = {test['n']}" in small[0]
    assert _between(found["ci95"], _points, "to") in small[1]
    headline = _plain(re.findall(r"<h1>(.*?)</h1>", page)[0])
    assert f"{_percent(test['accuracy'])} of {test['n']} test pictures" in headline
    assert f"{abs(100 * found['difference']):.1f} points" in headline
    lead = _plain(html.unescape(page)).split("The difference to")[1][:300]
    assert f"p = {found['p']:.3g}; test split, N = {found['n']}" in lead


def test_controls_and_benefits_are_evidence_json(proven: Path, page: str):
    tables, found, metrics = _Tables(page), _of(proven, "evidence.json"), _of(proven, "metrics.json")
    rows = {row[0]: row for row in tables["The delivered model and its controls"]}
    assert rows.keys() == {"regraft", *(control["name"] for control in found["controls"])}
    for one in [{"name": "regraft", **metrics["test"]}, *found["controls"]]:
        shown = [_percent(one["accuracy"]), _between(one["ci95"]), str(one["n"])]
        assert rows[one["name"]][1:4] == shown
    for row, benefit in zip(tables["The three benefits"], found["benefits"].values(), strict=True):
        figures = [_percent(benefit["transfer"]), _percent(benefit["reached"]), _points(benefit["difference"])]
        assert row[0].startswith(benefit["name"])
        assert row[1:] == [
            benefit["finding"],
            *figures,
            _between(benefit["ci95"], _points, "to"),
            WORDS[benefit["control"]],
        ]
    share = {name: _points(value) for name, value in found["parts"].items()}
    assert (
        f"Of {share['over_scratch']} points over training from scratch, {share['procedure']} belong to the procedure, "
        f"which random weights have too, and {share['weights']} to the pretrained weights."
    ) in _plain(page)


def test_speed_labels_and_depth_are_evidence_json(proven: Path, page: str):
    tables, found = _Tables(page), _of(proven, "evidence.json")
    level = found["speed"]["level"]
    for row, (name, when) in zip(tables[f"How soon {_percent(level)}"], found["speed"]["reached"].items(), strict=True):
        never = when["updates"] is None
        assert row[0] == WORDS[name] and row[2] == ("never" if never else f"{round(when['updates']):,}")
    for row, (name, law) in zip(tables["Extrapolated"], found["power_laws"].items(), strict=True):
        ahead = [f"{_percent(a[0])} ({_between(a[1:])})" for a in law["at"].values()]
        assert row == [WORDS[name], *ahead, f"{law['exponent']:.3g}"]
    for row, made in zip(tables["Test split, one run each"], found["depth"], strict=True):
        assert row == [made["cut"], made["variant"], _percent(made["accuracy"]), _between(made["ci95"]), str(made["n"])]
    for name, answer in found["labels_to_match"].items():
        if name != "n_train":
            many = f"{answer['n']:,}" if answer["n"] else f"more than the {answer['more_than']:,} measured"
            assert f"the {_percent(answer['target'])} that pretrained weights reach" in _plain(page)
            assert f"labels take {many}" in _plain(page)


def test_classes_and_mistakes_are_predictions_csv(proven: Path, page: str):
    tables = _Tables(page)
    with (proven / "predictions.csv").open(newline="") as file:
        answers = list(csv.DictReader(file))
    matrix = tables["Confusion matrix"]
    for row in matrix:
        of_class = [a["predicted"] for a in answers if a["truth"] == row[0]]
        assert [int(cell) for cell in row[1:]] == [of_class.count(other[0]) for other in matrix]
    for name, n, precision, recall, _ in tables["Per class"]:
        said, given = ([a for a in answers if a[side] == name] for side in ("predicted", "truth"))
        right = sum(a["truth"] == name for a in said)
        assert (int(n), precision, recall) == (
            len(given),
            _percent(right / len(said)),
            _percent(right / len(given)),
        )
    wrong = [a for a in answers if a["truth"] != a["predicted"]]
    assert f"{len(wrong)} of {len(answers)} are wrong" in _plain(page)
    surest = max(wrong, key=lambda a: float(a["probability"]))
    first = _plain(re.sub(r"<[^>]+>", " ", page.split('<ul class="tiles">')[1].split("</li>")[0]))
    said = f"said {surest['predicted']} {_percent(float(surest['probability']))} labelled {surest['truth']}"
    assert f"{said} {surest['name']}" in first


def test_report_md_has_the_same_figures(proven: Path, page: str):
    text, found, test = (proven / "report.md").read_text(), _of(proven, "evidence.json"), _of(proven, "metrics.json")
    plain, test = _plain(text), test["test"]
    assert f"| right on the test split | {_percent(test['accuracy'])} (95 % interval" in plain
    for control in found["controls"]:
        assert f"| {control['name']} | {_percent(control['accuracy'])} | {_between(control['ci95'])} |" in plain
    for benefit in found["benefits"].values():
        gain = f"{_points(benefit['difference'])} | {_between(benefit['ci95'], _points, 'to')}"
        figures = f"{_percent(benefit['transfer'])} | {_percent(benefit['reached'])} | {gain}"
        assert f"| {benefit['name']} | {benefit['finding']} | {figures} |" in plain


def test_the_card_of_a_run_has_the_same_figures(shapes, tmp_path: Path, monkeypatch):
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the hub's client")
    monkeypatch.setitem(RECIPES._entries, "scratch", RECIPES["scratch"].with_(epochs=1, min_updates=4))
    torch.save(tiny_source().model.state_dict(), tmp_path / "tiny.pt")
    sources = {"source": (str(tmp_path / "tiny.pt"),), "arch": ("regraft.testing.sources:tiny_net",)}
    places = {"cache": tmp_path / "cache", "out": tmp_path / "run"}
    run = transfer(Job(data=str(tmp_path / "shapes"), recipe="probe", runtime="torch", **sources, **places)).folder
    card, metrics, found = (run / "model/README.md").read_text(), _of(run, "metrics.json"), _of(run, "evidence.json")
    accuracy, gain, *over_scratch = yaml.safe_load(card.split("---\n")[1])["model-index"][0]["results"][0]["metrics"]
    assert accuracy["value"] == pytest.approx(metrics["test"]["accuracy"], abs=1e-4)
    assert gain["value"] == pytest.approx(found["difference"], abs=1e-4)
    assert gain["args"]["ci95"] == pytest.approx(found["ci95"], abs=1e-4)
    assert len(over_scratch) == bool(found["parts"])
    for each in over_scratch:
        assert each["value"] == pytest.approx(found["parts"]["over_scratch"], abs=1e-4)
    assert f"N = {metrics['test']['n']}: {_percent(metrics['test']['accuracy'])} right" in card
    assert _points(found["difference"]) in card and _between(found["ci95"], _points, "to") in card
    assert model_card(_of(run, "model/config.json"), evidence=found, dataset="shapes") == card
