"""One page from one folder: whole, the same every time, without a network, for every reader."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from regraft.errors import RunError
from regraft.evidence import render
from regraft.evidence.conclude import Control, against_trivial, evidence
from regraft.evidence.report import percent, points
from regraft.evidence.runs import Point, RawRun

MINIMAL = {
    "test": {"accuracy": 0.9, "n": 10, "ci95": [0.6, 0.98]},
    "val": {"accuracy": 0.95},
    "source": "timm:resnet18",
    "cut": "layer3",
    "recipe": "probe",
    "seed": 0,
    "n_train": 20,
    "wall_s": 3.0,
    "peak_rss_mb": 300.0,
    "cache_hits": 0,
}
VOID = {"meta", "link", "img", "br", "hr", "input", "path", "use", "rect", "image", "circle", "line"}


class _Page(HTMLParser):
    """Ids, tags and unclosed elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: Counter[str] = Counter()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        self.ids.update([given["id"]] if given.get("id") else [])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids.update([dict(attrs)["id"]] if dict(attrs).get("id") else [])

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)


def _html(run: Path) -> str:
    return render(run).read_text(encoding="utf-8").replace("\xa0", " ")  # spaces at which no line breaks


def _change(run: Path, file: str, **values: object) -> None:
    (run / file).write_text(json.dumps(json.loads((run / file).read_text()) | values))


def test_every_section_is_there(run: Path):
    page = _html(run)
    for section in ("result", "kept", "depth", "training", "classes", "mistakes", "data", "evidence", "cost"):
        assert f'<section id="{section}"' in page
        assert f'href="#{section}"' in page
    markdown = (run / "report.md").read_text()
    for part in ("Depth profile", "Training", "Classes", "Evidence", "Times and sizes", "Transfer helps"):
        assert part in markdown


def test_the_same_files_give_the_same_bytes(run: Path):
    first = render(run).read_bytes(), (run / "report.md").read_bytes()
    assert first == (render(run).read_bytes(), (run / "report.md").read_bytes())


def test_the_page_needs_no_network(run: Path):
    page = _html(run)
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert not re.search(r"@import|url\((?!#)", page)
    assert "<script" not in page
    kept = len(list((run / "pictures").iterdir()))
    assert 0 < kept <= page.count("data:image/jpeg;base64,")


def test_the_page_is_well_formed_and_its_ids_are_unique(run: Path):
    page = _Page(_html(run))
    assert not page.wrong
    assert not page.open
    assert [name for name, n in page.ids.items() if n > 1] == []
    inside = {given["href"] for _, given in page.tags if (given.get("href") or "").startswith("#")}
    assert {name.removeprefix("#") for name in inside if name} <= page.ids.keys()


def test_the_page_can_be_read_without_seeing_it(run: Path):
    text = _html(run)
    page = _Page(text)
    for tag, given in page.tags:
        if tag == "img":
            assert given.get("alt")
        if tag == "svg":
            assert given.get("role") == "img" and given.get("aria-label")
        if tag == "th":
            assert given.get("scope")
    assert text.count("<table") == text.count("<caption")
    assert [tag for tag, _ in page.tags if tag in ("header", "nav", "main", "footer")] == [
        "header",
        "nav",
        "main",
        "footer",
    ]
    assert 'lang="en"' in text and 'class="skip" href="#main"' in text
    assert text.count("<h1>") == 1


def test_pictures_keep_text_and_take_the_pages_colours(run: Path):
    page = _html(run)
    assert ">layer2.2</text>" in page
    assert "var(--series-1)" in page
    assert "#0a0b" not in page


def test_many_stages_with_long_names_leave_room_for_the_profile(run: Path):
    """On a telephone too: the labels of the first and the last stage stand far apart."""
    stages = [f"blocks.{i}.a_module_with_a_long_name.conv_pwl" for i in range(16)]
    rows = [
        {"stage": stage, "grid": 4, "head": head, "val_accuracy": 0.8, "se": 0.02}
        for stage in stages
        for head in ("lda", "ridge", "logistic")
    ]
    (run / "profile.json").write_text(json.dumps(rows))
    narrow = re.findall(r'<div class="narrow">(.*?)</svg>', _html(run), re.DOTALL)[1]
    left = [float(x) for x in re.findall(r"rotate\(-60 ([\d.]+) ", narrow)]
    assert max(left) - min(left) > 130


def test_probes_without_validation_are_compared_by_their_score(run: Path):
    rows = json.loads((run / "profile.json").read_text())
    unjudged = [row | {"val_accuracy": float("nan"), "score": row["cv_accuracy"]} for row in rows]
    (run / "profile.json").write_text(json.dumps(unjudged))
    page = _html(run)
    assert "Training split (held out), N = 50, and validation split, N = 290, together" in page
    assert "nan" not in page.split("<main")[1].split("base64")[0]


def test_a_run_with_metrics_alone_has_a_report(tmp_path: Path):
    (tmp_path / "metrics.json").write_text(json.dumps(MINIMAL))
    page = _html(tmp_path)
    assert "90.0 % of 10 test pictures right. Not yet compared with training from scratch." in page
    assert "does not say whether transfer helped" in page
    assert not _Page(page).wrong


OPTIONAL = ["data.json", "plan.json", "profile.json", "curves.csv", "predictions.csv", "evidence.json"]


@pytest.mark.parametrize("name", [*OPTIONAL, "decision.json", "suspects.csv", "pictures"])
def test_what_is_absent_is_left_out(name: str, run: Path):
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = _Page(_html(run))
    assert not page.wrong
    anchors = {given["href"] for tag, given in page.tags if tag == "a"}
    assert {name.removeprefix("#") for name in anchors if name and name[0] == "#"} <= page.ids.keys()


@pytest.mark.parametrize(
    ("found", "difference", "sentence"),
    [
        ("helps", 0.083, "Transfer helps: 90.0 % of 10 test pictures right, 8.3 points more than scratch."),
        ("hurts", -0.1, "Transfer hurts: 90.0 % of 10 test pictures right, 10.0 points fewer than scratch."),
        ("no difference", 0.001, "+0.1 points against scratch."),
        ("no difference", None, "Transfer makes no measurable difference: 90.0 % of 10 test pictures right."),
    ],
)
def test_the_verdict_is_one_sentence(found: str, difference: float | None, sentence: str, tmp_path: Path):
    (tmp_path / "metrics.json").write_text(json.dumps(MINIMAL))
    evidence = {"verdict": found, "difference": difference, "control": "scratch"}
    evidence |= {"ci95": [-0.1, 0.1], "p": 0.5, "n": 10} if difference is not None else {}
    (tmp_path / "evidence.json").write_text(json.dumps(evidence))
    assert sentence in _html(tmp_path)
    assert f"# {sentence}"[-20:] in (tmp_path / "report.md").read_text()


def test_three_benefits_that_are_one_are_shown_once(run: Path):
    right = {"transfer": 330, "fresh weights": 300}
    runs = [RawRun(arm, 0, 50, (Point(0, 1.0, np.arange(360) < n),)) for arm, n in right.items()]
    (run / "evidence.json").write_text(json.dumps(evidence(runs, 50)))
    page = _html(run)
    assert "start, slope and asymptote</th>" in page and "slope: mean over training" not in page
    assert "slope against" not in page and "asymptote against" in page


def test_without_a_matched_control_no_gain_is_called_one_from_transfer(run: Path):
    assert "Gain from transfer" in _html(run)
    raw = Control("raw pixels", "a linear model on raw pixels", np.arange(360)[None] < 300, 0.1)
    (run / "evidence.json").write_text(json.dumps(against_trivial(np.arange(360) < 310, [raw])))
    page = _html(run)
    assert "Gain from transfer" not in page and "<dt>Above a simple model</dt>" in page


def test_the_three_benefits_are_shown_as_evidence_has_them(proven: Path):
    run, found = proven, json.loads((proven / "evidence.json").read_text())
    page = html.unescape(_html(run)).replace("\xa0", " ")
    section = page.split('<section id="evidence"')[1].split("<section")[0]
    for name, benefit in found["benefits"].items():
        assert f"{name}: " in section
        assert f">{percent(benefit['transfer'])}<" in section and f">{points(benefit['difference'])}<" in section
    assert f"{points(found['parts']['weights'])} to the pretrained weights" in section
    assert "labels take" in section and "Extrapolated by a power law" in section
    for picture in ("differences", "test-curves", "label-curves"):
        assert f'id="{picture}-' in section
    parsed = _Page(_html(run))
    assert not parsed.wrong and [name for name, n in parsed.ids.items() if n > 1] == []
    assert (run / "report.md").read_text().count("| asymptote |") == 1


def test_what_to_know_before_trusting_it_is_shown(run: Path):
    before, after = ({"log_loss": 0.4, "ece": ece, "n": 290} for ece in (0.081, 0.03))
    copy = {"split": "test", "name": "test/a.png", "train": "train/<b>.png", "cosine": 0.99}
    facts = {"n": {"train": 50, "val": 290, "test": 360}, "temperature": 0.71, "before": before, "after": after}
    facts |= {"duplicates": [copy], "unlike": [{"name": "far.png", "distance": 0.8}], "n_unlike": 4}
    (run / "trust.json").write_text(json.dumps(facts | {"right_unlike": 0.5}))
    page = html.unescape(_html(run)).replace("\xa0", " ")
    assert "A temperature of 0.71, fitted on the validation split (N = 290)" in page
    assert "from 8.1 to 3.0 points" in page
    assert "train/&lt;b&gt;.png" in _html(run)
    assert "4 of 360 test pictures lie farther" in page and "of these 50.0 % are right" in page
    assert 'id="reliability-' in page
    (run / "trust.json").write_text(json.dumps(facts | {"duplicates": [], "right_unlike": None, "n_unlike": 0}))
    assert "None found among 290 validation and 360 test pictures." in _html(run).replace("\xa0", " ")


def test_names_are_text(run: Path):
    """Class names, file names and details come from strangers."""
    evil = "<script>alert(1)</script>|$x_1$`*[a](b)"
    data = json.loads((run / "data.json").read_text())
    classes = [evil, *data["classes"][1:]]
    counts = {split: dict.fromkeys(classes, 3) for split in data["counts"]}
    problems = [{"kind": evil, "name": evil, "detail": evil}]
    _change(run, "data.json", name=evil, classes=classes, counts=counts, problems=problems)
    for name in ("predictions.csv", "suspects.csv"):
        text = (run / name).read_text()
        (run / name).write_text(re.sub(r",0,", f',"{evil}",', text))
    _change(run, "evidence.json", controls=[{"name": evil, "accuracy": 0.5, "n": 360, "what": evil}])
    profile = json.loads((run / "profile.json").read_text())
    (run / "profile.json").write_text(json.dumps([row | {"stage": evil} for row in profile[:3]]))
    page = _html(run)
    assert "<script" not in page
    assert html.escape(evil, quote=False) in page.replace("&#39;", "'")
    lines = (run / "report.md").read_text().splitlines()
    rows = [line for line in lines if "script" in line and line[0] == "|"]
    assert rows
    assert all("<script" not in line.replace("\\<", "") for line in rows)
    header = re.compile(r"(?<!\\)\|")
    assert {len(header.findall(line)) for line in rows if "alert" in line} <= {4, 5, 6, 7, 8}


def test_letters_of_any_script_are_drawn_without_a_warning(run: Path):
    _change(run, "evidence.json", controls=[{"name": "从头训练", "accuracy": 0.5, "n": 360}])
    assert "从头训练" in _html(run)


def test_a_key_is_never_a_path(run: Path):
    (run / "secret.jpg").write_bytes(b"not for the report")
    row = "../secret,a.png,1,2,0.999\n"
    (run / "predictions.csv").write_text((run / "predictions.csv").read_text() + row)
    page = _html(run)
    assert "bm90IGZvciB0aGUgcmVwb3J0" not in page
    assert "no picture" in page


def test_many_classes_are_listed_as_pairs(run: Path):
    classes = [f"class {i}" for i in range(30)]
    lines = [f"{i:02x},{i}.jpg,class {i % 30},class {(i + (i % 7 == 0)) % 30},0.5" for i in range(90)]
    header = "key,name,truth,predicted,probability"
    (run / "predictions.csv").write_text("\n".join([header, *lines]) + "\n")
    counts = {"test": dict.fromkeys(classes, 3)}
    _change(run, "data.json", classes=classes, counts=counts)
    page = _html(run)
    assert "Confusion matrix" not in page
    assert "Most frequent confusions" in page


def test_a_run_without_mistakes_says_so(run: Path):
    (run / "predictions.csv").write_text("key,name,truth,predicted,probability\n9f,a.png,1,1,0.9\n")
    assert "Not one of the 360 test pictures is wrong." in _html(run).replace("\xa0", " ")


def test_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(RunError, match=r"no finished run.*regraft fit DATA --out"):
        render(tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(RunError, match="not JSON"):
        render(tmp_path)
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(RunError, match="JSON object"):
        render(tmp_path)


def test_a_curve_that_is_no_number_is_named(run: Path):
    (run / "curves.csv").write_text("epoch,updates,val_accuracy,run\n1,2,good,a\n")
    with pytest.raises(RunError, match="'good' in column val_accuracy"):
        render(run)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_have_the_contrast_that_wcag_asks_for(theme: int):
    css = (files("regraft.evidence") / "templates" / "report.css").read_text()
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", re.findall(r":root \{(.*?)\}", css, re.DOTALL)[theme]))
    for text in ("ink", "muted", "accent", "good", "bad"):
        for ground in ("page", "surface"):
            assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for series in (name for name in colours if name.startswith("series")):
        assert _contrast(colours[series], colours["surface"]) >= 3, series  # graphics need 3
    for ground in ("heat", "miss"):
        assert _contrast(colours["on-heat"], colours[ground]) >= 4.3, ground  # bold
