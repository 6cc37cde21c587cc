"""What becomes of a saved model: one file for other programs, answers over HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import TINY  # type: ignore[import-not-found]


@pytest.fixture
def model(run, pictures, weights, tmp_path) -> Path:
    flags = ("--arch", TINY, "--recipe", "probe", "--evidence", "off", "--runtime", "torch")
    answer = run("fit", pictures, "--source", weights, *flags, "--out", tmp_path / "run")
    assert answer.status == 0, answer.err
    return tmp_path / "run" / "model"


def test_export_writes_a_file_beside_the_model_and_never_over_another(run, model, tmp_path):
    answer = run("export", model, "--to", "onnx", "--trust-code", "--json")
    assert answer.status == 0, answer.err
    facts = json.loads(answer.out)
    assert Path(facts["file"]) == model.with_name("model.onnx")
    assert facts["bytes"] == Path(facts["file"]).stat().st_size > 1000
    again = run("export", model, "--to", "onnx", "--trust-code")
    assert again.status == 2 and again.err.strip().endswith("--out OTHER.onnx")
    other = run("export", model, "--to", "onnx", "--trust-code", "--out", tmp_path / "new" / "other.onnx")
    assert other.status == 0 and str(tmp_path / "new" / "other.onnx") in other.out
