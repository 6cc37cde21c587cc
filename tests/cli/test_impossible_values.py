"""Values that no flag may have: refused before any work, by the command line and in Python alike."""

from __future__ import annotations

import pytest
import torch

from conftest import TINY  # type: ignore[import-not-found]
from regraft.data import read
from regraft.errors import DataError, RunError
from regraft.job import Job
from regraft.tune import Recipe


@pytest.mark.parametrize(
    ("flag", "value", "works"),
    [
        ("--seed", "-1", "--seed 0"),
        ("--seed", str(2**32), "--seed 0"),
        ("--per-class", "-3", "--per-class 10"),
        ("--per-class", "0", "--per-class 10"),
        ("--train-size", "-5", "--train-size 100"),
        ("--time-limit", "0", "--time-limit 10m"),
        ("--time-limit", "0m", "--time-limit 10m"),
        ("--input-size", "3,0,32", "--input-size 224"),
        ("--input-size", "3,32.5,32", "--input-size 224"),
        ("--input-size", "nan,32,32", "--input-size 224"),
        ("--input-size", "2,32,32", "--input-size 224"),
        ("--input-size", "1,3,32,32", "--input-size 224"),
        ("--mean", "inf,0,0", "--mean 0.485,0.456,0.406"),
        ("--std", "0,1,1", "--std 0.229,0.224,0.225"),
    ],
)
def test_a_number_out_of_range_ends_in_one_that_is_not(run, pictures, weights, tmp_path, flag, value, works):
    words = ("fit", pictures, "--source", weights, "--arch", TINY, "--out", tmp_path / "run", flag, value)
    answer = run(*words)
    assert answer.status == 2 and answer.out == "" and answer.err.count("\n") == 1, answer.err
    assert answer.err.startswith(f"error: {flag} ") and answer.err.rstrip().endswith(works)
    assert not (tmp_path / "run").exists() and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("flag", "value"), [("--epochs", "0"), ("--val-fraction", "-0.1"), ("--seed", "-1")])
def test_pretraining_refuses_them_too(run, pictures, tmp_path, flag, value):
    answer = run("pretrain", pictures, "--arch", "regraft:cifar10-resnet20", "--out", tmp_path / "new", flag, value)
    assert answer.status == 2 and answer.err.startswith(f"error: {flag} {value} is not"), answer.err
    assert not (tmp_path / "new").exists()


def test_colours_for_other_channels_than_the_network_has_are_refused(run, pictures, weights, tmp_path):
    source = ("--source", weights, "--arch", TINY)
    for words in (("fit", pictures, *source), ("pretrain", pictures, "--arch", "regraft:cifar10-resnet20")):
        for size in ((), ("--input-size", "3,32,32")):
            answer = run(*words, *size, "--mean", "0.5", "--std", "0.5,0.5,0.5", "--out", tmp_path / "run")
            assert answer.status == 2 and "one number per channel (3)" in answer.err, answer.err
            assert answer.err.rstrip().endswith("0.5,0.5,0.5") and not (tmp_path / "run").exists()


def test_in_python_the_same_all_at_once():
    with pytest.raises(RunError, match=r"--per-class -3 .* --seed -1 .* --device gpu: expected one of auto, cpu, cuda"):
        Job(data="digits", per_class=-3, seed=-1, device="gpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [0, -3])
def test_a_dataset_keeps_one_of_each_class_at_least(k):
    digits = read("digits")
    with pytest.raises(DataError, match=r"data\.per_class\(10, seed=0\)"):
        digits.per_class(k, seed=0)
    with pytest.raises(DataError, match=r"data\.train_size\(100, seed=0\)"):
        digits.train_size(k, seed=0)


@pytest.mark.parametrize("verb", ["fit", "probe", "rank", "plan", "pretrain", "predict"])
def test_every_verb_refuses_a_device_that_there_is_none_of(run, pictures, verb):
    assert "'auto', 'cpu', 'cuda'" in run(verb, pictures, pictures, "--device", "foo").err
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    words = (pictures,) if verb == "predict" else ("--arch", TINY) if verb == "pretrain" else ()
    answer = run(verb, pictures, *words, "--device", "cuda")
    assert answer.status == 2 and "Use --device cpu" in answer.err and answer.out == "", answer.err


def test_in_python_a_job_takes_what_one_would_give_it(tmp_path):
    job = Job(data=tmp_path, source="timm:resnet18", recipe=Recipe("mine", lr=1e-4), set=("epochs=2",))
    assert job.data == str(tmp_path) and job.sources == ("timm:resnet18",) and job.recipe_name == "mine"
    assert job.chosen_recipe == Recipe("mine", lr=1e-4, epochs=2)
    assert job.config()["recipe"] == "mine" and job.config()["resolved_recipe"]["epochs"] == 2
    assert Job(recipe=tmp_path / "mine.toml").recipe == str(tmp_path / "mine.toml")


@pytest.mark.parametrize(("name", "value"), [("data", ["shapes"]), ("set", {"lr": 1e-3}), ("source", 3)])
def test_in_python_another_type_is_refused_with_one_that_works(name, value):
    with pytest.raises(RunError, match=rf"{name}=.* is no .*text.*For example: {name}="):
        Job(**{name: value})
