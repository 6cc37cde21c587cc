"""Wrong input: exit status 2, one message without a traceback that ends with what would have worked."""

from __future__ import annotations

import pickle
import re
import shlex

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import TINY  # type: ignore[import-not-found]


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def refused(answer, *words):
    assert answer.status == 2, answer.err
    assert "Traceback" not in answer.err and answer.out == ""
    for word in words:
        assert word in answer.err, answer.err


@pytest.fixture
def fit(run, weights, tmp_path):
    def call(data, *words, source=weights):
        flags = ("--arch", TINY, "--recipe", "probe", "--evidence", "off", "--out", tmp_path / "run")
        return run("fit", data, "--source", source, *flags, *words)

    return call


def test_empty_folder(fit, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(fit(tmp_path / "empty"), "empty")


def test_data_that_does_not_exist_shows_near_names(fit, pictures):
    refused(fit(pictures.with_name("shape")), "shapes")


def test_one_class(fit, pictures):
    for name in ("disc", "cross"):
        for file in (pictures / name).iterdir():
            file.unlink()
        (pictures / name).rmdir()
    refused(fit(pictures), "class")


def test_a_class_with_one_picture(fit, pictures):
    (pictures / "dot").mkdir()
    Image.new("RGB", (32, 32)).save(pictures / "dot/only.png")
    refused(fit(pictures), "dot")


def test_so_few_examples_that_a_class_is_lost(fit, pictures):
    answer = fit(pictures, "--train-size", 2)
    refused(answer, "2 training examples hold none of '", "--per-class 2")
    enough = answer.err.split("--train-size ")[1].split(",")[0]
    assert fit(pictures, "--train-size", enough).status == 0


def test_bad_files_are_all_reported_and_can_be_skipped(fit, pictures):
    (pictures / "disc/zero.jpg").write_bytes(b"")
    (pictures / "disc/text.jpg").write_text("no picture")
    Image.new("RGB", (64, 64), (9, 9, 9)).save(pictures / "disc/cut.jpg")
    whole = (pictures / "disc/cut.jpg").read_bytes()
    (pictures / "disc/cut.jpg").write_bytes(whole[: len(whole) // 2])
    refused(fit(pictures), "zero.jpg", "text.jpg", "cut.jpg", "--skip-bad")
    assert fit(pictures, "--skip-bad").status == 0


def test_unknown_source_shows_close_matches(run, pictures, tmp_path):
    for wrong, right in (("regraft:cifar10-resnet2", "cifar10-resnet20"), ("tim:resnet18", "timm:")):
        refused(run("fit", pictures, "--source", wrong, "--out", tmp_path / "run"), right)


def test_ranking_begins_with_sources_that_can_all_be_opened(run, pictures, weights, tmp_path):
    sources = ("--source", weights, "--source", tmp_path / "nosuch.pth", "--arch", TINY)
    answer = run("rank", pictures, *sources, "--cache", tmp_path / "features")
    refused(answer, "nosuch.pth")
    assert "Looking at" not in answer.err and not (tmp_path / "features").exists()


def test_a_ranking_in_which_nothing_fits_is_refused(run, weights, tmp_path):
    (tmp_path / "texts.csv").write_text("text,label\n" + "".join(f"a film of kind {i},{i % 2}\n" for i in range(40)))
    both = ("--source", weights, "--source", "regraft:cifar10-resnet20", "--arch", f"{weights}={TINY}")
    refused(run("rank", tmp_path / "texts.csv", *both), "cifar10-resnet20 expects image", "--source")


def test_a_cut_that_does_not_exist_shows_the_nearest(fit, pictures):
    refused(fit(pictures, "--recipe", "finetune", "--cut", "block22"), "block2")


def test_a_checkpoint_of_another_architecture(fit, pictures, tmp_path):
    path = tmp_path / "other.pt"
    torch.save(torch.nn.Linear(3, 4).state_dict(), path)
    refused(fit(pictures, source=path), "other.pt")


def test_a_pickle_that_wants_to_run_code_is_refused_by_name(fit, pictures, tmp_path, capsys):
    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"state_dict": Evil()}, protocol=2))
    answer = fit(pictures, source=path)
    refused(answer, "print")
    assert "code ran" not in answer.out + answer.err


def test_unknown_recipe_and_flag(fit, pictures):
    refused(fit(pictures, "--recipe", "finetun"), "finetune")
    answer = fit(pictures, "--sed", "3")
    assert answer.status == 2 and "--seed" in answer.err


def test_no_cuda_here(fit, pictures):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    refused(fit(pictures, "--device", "cuda"), "--device cpu")


def test_a_folder_that_is_no_run_or_no_model(run, tmp_path):
    refused(run("report", tmp_path))
    refused(run("predict", tmp_path, tmp_path), str(tmp_path))


def test_predict_tells_one_bad_file_and_ends_in_a_call_that_works(fit, run, pictures, tmp_path):
    assert fit(pictures).status == 0
    (tmp_path / "new").mkdir()
    good, bad = sorted((pictures / "disc").iterdir())[0], tmp_path / "new/bad one.png"
    bad.write_bytes(b"")
    answer = run("predict", tmp_path / "run/model", "--trust-code", good, bad)
    told, call = answer.err.rstrip().split("Without: regraft ")
    assert answer.status == 2 and "1 picture cannot be read and has no answer" in told and str(bad) in told
    assert run(*shlex.split(call), "--trust-code").status == 0


def test_bytes_that_are_no_utf8_are_named_as_they_are(run, tmp_path):
    table = tmp_path / "pictures.csv"
    table.write_bytes(b"image,label\ncaf\xe9.png,a\nb.png,b\n")
    answer = run("inspect", table)
    refused(answer, "0xE9", "caf?.png", "UTF-8")
    assert "codec" not in answer.err and "surrogate" not in answer.err


def test_without_validation_examples_nothing_is_begun(fit, run, pictures, weights, tmp_path):
    for folder in pictures.iterdir():
        for picture in sorted(folder.iterdir())[2:]:
            picture.unlink()
    refused(fit(pictures), "no validation examples", "three or more")
    assert not (tmp_path / "run").exists()
    refused(run("probe", pictures, "--source", weights, "--arch", f"python:{TINY}"), "no validation examples")


def test_settings_that_would_be_ignored_are_refused(fit, run, pictures, tmp_path):
    refused(fit(pictures, "--mean", "0.5"), "one number per channel (3)", "0.5,0.5,0.5")
    refused(fit(pictures, "--recipe", "finetnue"), "auto, probe, finetune", "--recipe FILE.toml")
    refused(run("plan", pictures, "--out", tmp_path / "run"), "No such option", "--out")
    refused(run("pretrain", pictures, "--objective", "rotatoin"), "supervised, rotation, corrupted")


def test_pretraining_that_is_refused_leaves_no_folder(run, tmp_path):
    refused(
        run("pretrain", "digits", "--objective", "supervised", "--arch", "timm:nope", "--out", tmp_path / "new"), "nope"
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "words",
    [
        "--set augment=flip-crop --set cut=block2",
        "--set lora=4",
        "--set restore=block1 --set cut=block2",
        "--set head=fresh --set head_layers=lstm:8 --set taps=block2@2",
        "--set train=block2 --set freeze=block2",
        "--set freeze=.",
        "--set batch_norm=reestimate --set train=^head",
    ],
)
def test_following_what_messages_end_with_comes_to_a_plan(words, run, pictures, weights):
    plan = ["plan", pictures, "--source", weights, "--arch", TINY, "--recipe", "finetune", *words.split()]
    answer = run(*plan)
    assert answer.status == 2
    for _ in range(3):
        flags = re.search(r"(--set \S+)( --set \S+)*", answer.err)
        assert flags and "recipe.with_" not in answer.err, answer.err
        plan += shlex.split(flags[0].rstrip(".;,"))
        answer = run(*plan)
        if answer.status == 0:
            return
    raise AssertionError(answer.err)


@pytest.mark.parametrize(
    ("take", "words"),
    [
        (lambda: torch.empty(1 << 60), "you tried to allocate"),
        (lambda: np.empty(1 << 55), "Unable to allocate"),
        (lambda: _raised(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")), "--device cpu"),
    ],
    ids=["torch", "numpy", "cuda"],
)
def test_too_little_memory_says_what_takes_less(run, pictures, monkeypatch, take, words):
    """As PyTorch and NumPy say it themselves; it was a traceback."""
    monkeypatch.setattr("regraft.cli.inspect.read", lambda *_, **__: take())
    refused(run("inspect", pictures), "too little memory", words, "batch_size=8")


def test_other_faults_of_arithmetic_stay_defects(run, pictures, monkeypatch):
    fault = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    monkeypatch.setattr("regraft.cli.inspect.read", lambda *_, **__: _raised(fault))
    with pytest.raises(RuntimeError, match="multiplied"):
        run("inspect", pictures)


def _raised(error: Exception):
    raise error
