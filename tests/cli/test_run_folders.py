"""What goes wrong with folders and files of a run: one message, nothing lost, and the mended call works."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from conftest import TINY  # type: ignore[import-not-found]
from regraft.errors import RunError
from regraft.search.study import STUDY, Study
from regraft.tune.checkpoint import read_checkpoint, write_checkpoint


@pytest.fixture
def fit(run, pictures, weights, tmp_path):
    def call(*words, recipe="probe"):
        named = ("--recipe", recipe, "--evidence", "off", "--runtime", "torch", "--seed", 0)
        return run("fit", pictures, "--source", weights, "--arch", TINY, "--out", tmp_path / "run", *named, *words)

    return call


def refused(answer, *words):
    assert answer.status == 2 and answer.out == "" and "Traceback" not in answer.err, answer.err
    for word in words:
        assert word in answer.err, answer.err


@pytest.mark.parametrize("flag", ["--out", "--cache"])
def test_a_folder_that_cannot_be_made_is_named(fit, tmp_path, flag):
    (tmp_path / "file").write_text("no folder")
    refused(fit(flag, tmp_path / "file/x"), str(tmp_path / "file/x"), f"{flag} ")
    assert not (tmp_path / "run").exists()
    assert fit().status == 0


def test_pretraining_into_a_folder_that_cannot_be_made(run, pictures, tmp_path):
    (tmp_path / "file").write_text("no folder")
    words = ("--arch", TINY, "--epochs", 1, "--input-size", "3,32,32", "--out", tmp_path / "file/x")
    refused(run("pretrain", pictures, *words), str(tmp_path / "file/x"), "--out NEW_FOLDER")


@pytest.mark.parametrize("content", [b'name = "caf\xe9"\n', b"lr = \n"])
def test_a_recipe_file_that_is_no_text_or_no_toml(fit, tmp_path, content):
    (tmp_path / "mine.toml").write_bytes(content)
    refused(fit(recipe=tmp_path / "mine.toml"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", [("--cut", "block22"), ("--set", "taps=block22@2"), ("--set", "train=blok")])
def test_a_misspelt_start_does_not_block_the_mended_one(fit, tmp_path, wrong):
    refused(fit(*wrong, recipe="finetune"))
    assert not (tmp_path / "run").exists()
    assert fit().status == 0


def test_nor_does_one_of_several_sources(fit, tmp_path, weights):
    other = tmp_path / "other.pt"
    other.write_bytes(weights.read_bytes())
    refused(fit("--source", other, "--set", "train=blok", recipe="finetune"))
    assert not (tmp_path / "run").exists()


def test_a_misspelt_cut_is_found_before_any_features_are_computed(fit, run, tmp_path, pictures, weights):
    refused(fit("--cut", "block22", "--cache", tmp_path / "features", recipe="finetune"), "'block2'")
    planned = ("plan", pictures, "--source", weights, "--arch", TINY, "--recipe", "finetune", "--cut", "block22")
    refused(run(*planned, "--cache", tmp_path / "features"), "'block2'")
    assert not list(tmp_path.glob("features/*/cache.json"))


def test_what_a_folder_held_before_is_left_alone(fit, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/mine.txt").write_text("notes")
    refused(fit("--cut", "block22"), "not empty")
    assert (tmp_path / "run/mine.txt").read_text() == "notes"


@pytest.mark.parametrize("name", ["evidence.json", "metrics.json"])
def test_a_damaged_file_of_a_run_is_named_and_made_again_once_deleted(fit, tmp_path, name):
    whole = json.loads(fit("--json").out)
    for damage in ("{", "[]", "caf\xe9".encode("latin-1")):
        (tmp_path / "run" / name).write_bytes(damage if isinstance(damage, bytes) else damage.encode())
        refused(fit("--resume"), str(tmp_path / "run" / name), "damaged", "--resume")
    (tmp_path / "run" / name).unlink()
    assert json.loads(fit("--resume", "--json").out)["test"] == whole["test"]


@contextmanager
def no_file_above(n_bytes: int) -> Iterator[None]:
    """A disk that takes no more; it says so where a full one would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("recipe", "n_bytes", "lacks"),
    [
        ("finetune", 30_000, "training/finetune.pt"),
        ("probe", 2_000, "model"),
        ("probe", 30_000, "model"),
        ("probe", 99_000, "report.html"),
    ],
)
def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(
    fit, run, pictures, weights, tmp_path, recipe, n_bytes, lacks
):
    assert (
        run("probe", pictures, "--source", weights, "--arch", TINY, "--runtime", "torch").status == 0
    )  # into the cache
    words = ("--set", "min_updates=4") if recipe == "finetune" else ()
    with no_file_above(n_bytes):
        refused(fit(*words, recipe=recipe), "What was finished is kept", "--resume")
    assert not (tmp_path / "run" / lacks).exists() and not list(tmp_path.glob("run/.*"))
    assert fit(*words, "--resume", recipe=recipe).status == 0
    assert (tmp_path / "run/report.html").stat().st_size > 99_000 and (tmp_path / "run/model/config.json").is_file()


def test_damaged_settings_are_named(fit, tmp_path):
    assert fit().status == 0
    (tmp_path / "run/config.toml").write_bytes(b"seed = \xff")
    refused(fit("--resume"), str(tmp_path / "run/config.toml"), "--out NEW_FOLDER")


def test_damaged_checkpoints_and_studies_are_named(tmp_path):
    write_checkpoint(tmp_path / "a.pt", {"made_for": "x", "rows": torch.zeros(9)})
    whole = (tmp_path / "a.pt").read_bytes()
    for damage in (b"", b"{", whole[: len(whole) // 2]):
        (tmp_path / "a.pt").write_bytes(damage)
        with pytest.raises(RunError, match=r"a\.pt is damaged .*--resume"):
            read_checkpoint(tmp_path / "a.pt", made_for="x")
    Study(tmp_path / STUDY).add("probe", {"cut": "output"}, 0.5, {})
    for damage in ("{\n", "[]\n", "7\n"):
        (tmp_path / STUDY).write_text(damage)
        with pytest.raises(RunError, match=r"study\.log is damaged .*--resume"):
            Study(tmp_path / STUDY)


def test_a_recipe_file_that_changed_is_noticed(fit, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text("epochs = 0\n")
    assert fit(recipe=recipe).status == 0
    assert fit("--resume", recipe=recipe).status == 0
    recipe.write_text("epochs = 1\nlr = 1e-5\n")
    answer = fit("--resume", recipe=recipe)
    refused(answer, "resolved_recipe.epochs was 0, now 1", "resolved_recipe.lr was", "--out NEW_FOLDER")
    assert "seed" not in answer.err
