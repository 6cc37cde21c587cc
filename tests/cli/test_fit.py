"""From a folder of pictures to a saved model, through the command line."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from conftest import CLASSES, TINY  # type: ignore[import-not-found]
from regraft.artifact import load
from regraft.source import write_source
from regraft.testing import tiny_source

QUICK = ("--arch", TINY, "--seed", 3)


@pytest.fixture
def fit(run, pictures, weights, tmp_path):
    def call(*words, out="run"):
        return run("fit", pictures, "--source", weights, *QUICK, "--out", tmp_path / out, *words)

    return call


def test_fit_writes_everything_a_run_promises(fit, tmp_path):
    answer = fit("--recipe", "probe", "--json")
    assert answer.status == 0, answer.err
    metrics = json.loads(answer.out)
    assert metrics == json.loads((tmp_path / "run/metrics.json").read_text())
    names = ("config.toml", "plan.json", "evidence.json", "curves.csv", "report.html", "report.md", "log.jsonl")
    assert all((tmp_path / "run" / name).is_file() for name in names)
    model = {"config.json", "model.safetensors", "README.md", "labels.txt", "selftest.safetensors"}
    assert model <= {path.name for path in (tmp_path / "run/model").iterdir()}
    assert metrics["test"]["n"] > 0 and 0 <= metrics["test"]["ci95"][0] <= metrics["test"]["accuracy"]
    wanted = {"source", "cut", "recipe", "seed", "n_train", "wall_s", "peak_rss_mb", "cache_hits"}
    assert wanted <= metrics.keys() and math.isfinite(metrics["val"]["accuracy"])


def test_what_was_read_and_kept_is_named_by_cuts_of_the_source(fit, run, weights):
    metrics = json.loads(fit("--recipe", "probe", "--evidence", "off", "--json").out)
    cuts = [cut["name"] for cut in json.loads(run("inspect", weights, "--arch", TINY, "--json").out)["cuts"]]
    assert metrics["taps"] == [name for name in cuts if name in metrics["taps"]]  # in the order of the flow, each once
    assert metrics["cut"] == metrics["taps"][-1]


def test_evidence_has_a_verdict_and_both_matched_controls(fit, tmp_path, monkeypatch):
    monkeypatch.setattr("regraft.evidence.controls.LEAST_SHARE", 0.0)  # on a busy machine scratch would be left out
    assert fit("--recipe", "probe").status == 0
    evidence = json.loads((tmp_path / "run/evidence.json").read_text())
    assert evidence["verdict"] in ("helps", "no difference", "hurts")
    assert [c["name"] for c in evidence["controls"] if c["matched"]] == ["fresh weights", "scratch"]


def test_a_second_run_finds_everything_in_the_cache(fit):
    first = json.loads(fit("--recipe", "probe", "--evidence", "off", "--json").out)
    second = json.loads(fit("--recipe", "probe", "--evidence", "off", "--json", out="again").out)
    assert first["cache_hits"] == 0
    assert second["cache_computed"] == 0 and second["cache_hits"] == first["cache_computed"]
    assert second["test"] == first["test"]


def test_auto_is_no_worse_than_the_probe_on_validation(fit):
    probe = json.loads(fit("--recipe", "probe", "--evidence", "off", "--json").out)
    auto = json.loads(fit("--recipe", "auto", "--evidence", "off", "--json", out="auto").out)
    assert auto["val"]["accuracy"] >= probe["val"]["accuracy"]


@pytest.mark.parametrize("recipe", ["finetune", "naive", "scratch"])
def test_every_recipe_delivers_a_model_that_loads(fit, run, pictures, tmp_path, recipe):
    assert fit("--recipe", recipe, "--evidence", "off", "--time-limit", "4s").status == 0
    answer = run("predict", tmp_path / "run/model", pictures / "disc", "--trust-code", "--json")
    assert answer.status == 0, answer.err
    found = json.loads(answer.out)
    assert len(found) == 20 and {one["label"] for one in found} <= set(CLASSES)


def test_a_limit_that_no_run_can_keep_is_told(fit):
    answer = fit("--recipe", "probe", "--evidence", "off", "--time-limit", "0.01s")
    assert answer.status == 0 and "--time-limit 0.01s was not kept, the run took" in answer.err
    assert "was not kept" not in fit("--recipe", "probe", "--evidence", "off", "--time-limit", "5m", out="b").err


def test_a_run_folder_is_never_overwritten(fit, tmp_path):
    assert fit("--recipe", "probe", "--evidence", "off").status == 0
    before = (tmp_path / "run/metrics.json").read_bytes()
    again = fit("--recipe", "probe", "--evidence", "off")
    assert again.status == 2 and "--resume" in again.err and "--out" in again.err
    other = fit("--recipe", "finetune", "--evidence", "off", "--resume")
    assert other.status == 2 and "recipe was 'probe', now 'finetune'" in other.err
    assert fit("--recipe", "probe", "--evidence", "off", "--resume").status == 0
    assert (tmp_path / "run/metrics.json").read_bytes() == before


def test_killed_at_any_time_a_resumed_run_ends_like_one_that_was_not(pictures, weights, tmp_path):
    flags = ("--source", weights, *QUICK, "--recipe", "finetune", "--evidence", "off", "--json")

    def command(out: str, *more: str) -> list[str]:
        return [sys.executable, "-m", "regraft", *map(str, ("fit", pictures, *flags, "--out", tmp_path / out, *more))]

    whole = subprocess.run(command("whole"), capture_output=True, text=True, check=True)
    process = subprocess.Popen(command("cut"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "cut/training/finetune.pt"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.01)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = subprocess.run(command("cut", "--resume"), capture_output=True, text=True, check=True)
    first, second = json.loads(whole.stdout), json.loads(resumed.stdout)
    assert first["test"] == second["test"] and first["val"] == second["val"]
    histories = [(tmp_path / name / "curves.csv").read_text().splitlines() for name in ("whole", "cut")]
    without_clock = [[line.split(",")[:2] + line.split(",")[3:] for line in history] for history in histories]
    assert without_clock[0] == without_clock[1]


def test_several_sources_are_ranked_and_the_first_is_reused(run, pictures, tmp_path):
    write_source(tmp_path / "tiny", tiny_source())
    both = ("--source", "regraft:cifar10-resnet20", "--source", tmp_path / "tiny")
    answer = run("fit", pictures, *both, "--out", tmp_path / "run", "--recipe", "probe", "--evidence", "off", "--json")
    assert answer.status == 0, answer.err
    ranking = json.loads((tmp_path / "run/ranking.json").read_text())
    assert {each["source"] for each in ranking} == {"regraft:cifar10-resnet20", str(tmp_path / "tiny")}
    assert json.loads(answer.out)["source"] == ranking[0]["source"]
    why = json.loads((tmp_path / "run/decision.json").read_text())["why"]
    assert why[0] == f"1. {ranking[0]['source']}: {ranking[0]['reason']}."
    listed = run("rank", pictures, *both, "--json")
    assert [each["source"] for each in json.loads(listed.out)] == [each["source"] for each in ranking]


def test_doubts_about_the_data_are_told_at_once(fit, pictures):
    same, other = sorted((pictures / "disc").iterdir())[0], pictures / "cross" / "copy.png"
    other.write_bytes(same.read_bytes())
    assert "conflicting labels: the same picture is" in fit("--recipe", "probe", "--evidence", "off").err


def test_a_recipe_with_random_weights_counts_the_pass_that_came_before(fit):
    metrics = json.loads(fit("--recipe", "scratch", "--set", "min_updates=2", "--evidence", "off", "--json").out)
    assert metrics["cache_computed"] > 0 and metrics["runtime"] == "torch"


def test_values_without_a_recipe_say_what_they_settle(fit):
    answer = fit("--set", "min_updates=2", "--evidence", "off", "--json")
    assert "nothing is searched: recipe finetune" in answer.err and json.loads(answer.out)["recipe"] == "finetune"


def test_a_transformer_of_timm_sees_another_size_of_pictures(run, pictures, tmp_path):
    timm = pytest.importorskip("timm")
    weights, picture = tmp_path / "vit.pt", next(pictures.rglob("*.png"))
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), weights)
    words = ("--source", weights, "--arch", "timm:vit_tiny_patch16_224", "--input-size", 48, "--recipe", "probe")
    done = run("fit", pictures, *words, "--evidence", "off", "--out", tmp_path / "run")
    assert done.status == 0, done.err
    card = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert card["input"]["size"] == [3, 48, 48]
    assert run("predict", tmp_path / "run" / "model", picture).status == 0


@pytest.mark.skipif(sys.platform != "linux", reason="file names must be UTF-8 here")
def test_names_that_are_no_utf8_are_escaped_wherever_they_are_written(fit, run, pictures, tmp_path):
    for path in [*pictures.rglob("*.png")]:
        path.rename(path.with_name(os.fsdecode(path.stem.encode() + b"\xe9.png")))
    disc = (pictures / "disc").rename(pictures / os.fsdecode(b"disc\xe9"))
    (disc / os.fsdecode(b"\xe9.doc")).touch()
    answer = fit("--recipe", "probe", "--evidence", "off")
    assert answer.status == 0, answer.err
    predictions = (tmp_path / "run/predictions.csv").read_text(encoding="utf-8")
    assert "disc\\udce9/" in predictions and "\\udce9.png" in predictions
    answered = json.loads(run("predict", tmp_path / "run/model", disc, "--json").out)
    assert "disc\\udce9" in {one["label"] for one in answered}
    inspected = json.loads(run("inspect", pictures, "--json").out)
    assert "disc\\udce9" in inspected["classes"] and "\\udce9.doc" in str(inspected["problems"][0])


def test_the_model_is_saved_before_anything_that_may_fail(fit, tmp_path):
    assert fit("--recipe", "probe", "--evidence", "off").status == 0
    for name in ("metrics.json", "evidence.json", "predictions.csv"):
        (tmp_path / "run" / name).unlink()
    shutil.rmtree(tmp_path / "run/model")
    (tmp_path / "run/predictions.csv").mkdir()  # where no file can be written
    with pytest.raises(IsADirectoryError):
        fit("--recipe", "probe", "--evidence", "off", "--resume")
    assert load(tmp_path / "run/model", trust_code=True).classes == tuple(sorted(CLASSES))
