"""Several runs side by side say whether they may be compared at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from regraft.errors import RunError
from regraft.evidence.compare import compare
from regraft.evidence.conclude import Control, against_trivial


def test_runs_stand_beside_one_another(make_run, tmp_path: Path):
    runs = [make_run(tmp_path / name) for name in ("one", "two <b>")]
    page = compare(runs, tmp_path / "page.html").read_text().replace("\u00a0", " ")
    for run in runs:
        metrics = json.loads((run / "metrics.json").read_text())
        assert f"{100 * metrics['test']['accuracy']:.1f} %" in page
    assert "two &lt;b&gt;" in page and "<b>" not in page
    assert "All runs answered the same test examples." in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_other_test_examples_are_told(make_run, tmp_path: Path):
    one, two = (make_run(tmp_path / name) for name in ("one", "two"))
    lines = (two / "predictions.csv").read_text().splitlines()
    (two / "predictions.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert "tested on different examples" in compare([one, two], tmp_path / "page.html").read_text()


def test_a_run_without_matched_controls_is_not_measured_here_either(make_run, tmp_path: Path):
    runs = [make_run(tmp_path / name) for name in ("measured", "off")]
    raw = Control("raw pixels", "a linear model on raw pixels", np.arange(360)[None] < 300, 0.1)
    (runs[1] / "evidence.json").write_text(json.dumps(against_trivial(np.arange(360) < 310, [raw])))
    page = compare(runs, tmp_path / "new" / "folder" / "page.html").read_text()
    assert "<td>not measured</td>" in page and "<td>no difference</td>" not in page


def test_a_page_whose_folder_cannot_be_made_is_refused(make_run, tmp_path: Path):
    (tmp_path / "file").write_text("")
    runs = [make_run(tmp_path / name) for name in ("one", "two")]
    with pytest.raises(RunError, match="cannot be made"):
        compare(runs, tmp_path / "file" / "page.html")


def test_one_run_is_no_comparison(make_run, tmp_path: Path):
    with pytest.raises(RunError, match="needs two runs"):
        compare([make_run(tmp_path / "one")], tmp_path / "page.html")
