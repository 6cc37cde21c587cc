"""Several runs side by side say whether they may be compared at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regraft.errors import RunError
from regraft.evidence.compare import compare


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


def test_one_run_is_no_comparison(make_run, tmp_path: Path):
    with pytest.raises(RunError, match="needs two runs"):
        compare([make_run(tmp_path / "one")], tmp_path / "page.html")
