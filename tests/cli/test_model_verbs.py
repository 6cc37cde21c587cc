"""What becomes of a saved model: one file for other programs, answers over HTTP."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
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
    dotted = model.rename(model.with_name("model.v2"))
    assert run("export", dotted, "--to", "onnx", "--trust-code").status == 0
    assert dotted.with_name("model.v2.onnx").is_file()


def test_export_writes_a_folder_for_transformers(run, model):
    answer = run("export", model, "--to", "hf", "--trust-code", "--json")
    assert answer.status == 0, answer.err
    folder = Path(json.loads(answer.out)["file"])
    assert folder == model.with_name("model-hf")
    assert json.loads(answer.out)["bytes"] == sum(file.stat().st_size for file in folder.iterdir())
    again = run("export", model, "--to", "hf", "--trust-code")
    assert again.status == 2 and again.err.strip().endswith("--out OTHER")


def test_predict_answers_with_the_head_of_the_source_where_it_was_kept(run, model, pictures, weights, tmp_path):
    asked = ("--source-head", "--trust-code", "--json")
    refused = run("predict", model, pictures / "disc", *asked)
    assert refused.status == 2 and refused.err.strip().endswith("--set keep_source_head=true")
    flags = ("--arch", TINY, "--recipe", "probe", "--evidence", "off", "--set", "keep_source_head=true")
    assert run("fit", pictures, "--source", weights, *flags, "--out", tmp_path / "kept").status == 0
    kept = tmp_path / "kept" / "model"
    answers = json.loads(run("predict", kept, pictures / "disc", *asked).out)
    assert {one["label"] for one in answers} <= {str(i) for i in range(10)}
    assert all(len(one["probabilities"]) == 10 for one in answers)
    own = json.loads(run("predict", kept, pictures / "disc", "--trust-code", "--json").out)
    assert [one["name"] for one in own] == [one["name"] for one in answers]
    assert set(own[0]["probabilities"]) == {"cross", "disc", "square"}


def test_serve_answers_like_predict_until_it_is_stopped(run, model, pictures):
    words = [sys.executable, "-m", "regraft", "serve", str(model), "--port", "0", "--trust-code", "--json"]
    served = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert served.stdout is not None
        url = json.loads("".join(iter(served.stdout.readline, "}\n")) + "}")["url"]
        names = sorted((pictures / "disc").iterdir())[:3]
        answers = httpx.post(f"{url}/predict", files=[("file", (str(p), p.read_bytes())) for p in names]).json()
        port = url.rpartition(":")[2]
        taken = run("serve", model, "--port", port, "--trust-code")
        served.send_signal(signal.SIGINT)
        assert served.wait(30) == 0
    finally:
        served.kill()
        told = served.communicate()[1]
    assert told == ""
    assert answers == json.loads(run("predict", model, *names, "--trust-code", "--json").out)
    assert taken.status == 2 and taken.err.strip().endswith("--port 0")
