"""A reloaded model gives the saved answers, or does not load; nothing in its folder runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from regraft.artifact import Classifier, load
from regraft.artifact.bundle import probabilities
from regraft.cache import Tap
from regraft.digest import digest_file
from regraft.errors import BundleError

CLASSES = ("disc", "square", "cross")
OWN_NET = """
from regraft.testing.sources import TinyNet
def small(num_classes=10, note=""):
    return TinyNet(num_classes)
"""


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A bundle to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def _change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _change_source(folder: Path, **changes: object) -> None:
    source = json.loads((folder / "config.json").read_text())["source"]
    _change_config(folder, source=source | changes)


def _with_tensors(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Other tensors, with a digest that agrees."""
    save_file(tensors, folder / "model.safetensors")
    _change_config(folder, digest=digest_file(folder / "model.safetensors"))


@pytest.mark.parametrize("taps", [[Tap("block3", 2)], [Tap("stem", 1), Tap("block3", 4)]], ids=["one", "two"])
def test_reloaded_probabilities_equal_the_models(taps: list[Tap], deliver: Any, tmp_path: Path):
    delivered = deliver(*taps)
    reloaded = load(delivered.save(tmp_path / "model"))
    expected = probabilities(delivered.network, delivered.pixels)
    assert np.array_equal(probabilities(reloaded.network, delivered.pixels), expected)
    assert reloaded.classes == CLASSES
    assert reloaded.bundle.taps == tuple(taps)


def test_a_fresh_process_gives_the_same(saved: Path, delivered: Any):
    X = delivered.pixels[:3].transpose(0, 2, 3, 1)
    code = (
        "import sys, numpy as np; from regraft.artifact import load;"
        "X = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(3, 32, 32, 3);"
        f"sys.stdout.buffer.write(load({str(saved)!r}).predict_proba(X).tobytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], input=X.tobytes(), capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    found = np.frombuffer(done.stdout, np.float32).reshape(3, 3)
    assert np.allclose(found, load(saved).predict_proba(X), atol=1e-6)


def test_only_the_needed_tensors_are_stored_under_the_sources_names(saved: Path, delivered: Any):
    names = load_file(saved / "model.safetensors").keys()
    body = {name.removeprefix("body.") for name in names if name.startswith("body.")}
    assert {name for name in names if not name.startswith("body.")} == {
        "head.mean",
        "head.scale",
        "head.weight",
        "head.bias",
    }
    assert body <= delivered.source.model.state_dict().keys()
    assert not any(name.startswith(("block3", "classifier")) for name in body)
    assert "block2.conv.weight" in body


def test_the_folder_is_text_and_safetensors(saved: Path):
    assert sorted(path.name for path in saved.iterdir()) == [
        "README.md",
        "config.json",
        "labels.txt",
        "model.safetensors",
        "selftest.safetensors",
    ]
    assert (saved / "labels.txt").read_text().split() == list(CLASSES)


def test_the_card_has_the_hubs_head(saved: Path):
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the hub's client")
    _, head, body = (saved / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(head)
    assert card["license"] == "unknown"
    assert card["pipeline_tag"] == "image-classification"
    assert card["model-index"][0]["results"][0]["metrics"][0] == {"type": "accuracy", "value": 0.9}
    gain = card["model-index"][0]["results"][0]["metrics"][1]
    assert (gain["name"], gain["value"], gain["args"]["ci95"]) == ("gain over from scratch", 0.1, [0.02, 0.18])
    assert "+10.0 points against from scratch" in body
    assert "90.0 % right (95 % interval 74.0 % to 97.0 %)" in body


def test_a_card_survives_odd_names(delivered: Any, tmp_path: Path):
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the hub's client")
    folder = delivered.save(
        tmp_path / "model",
        classes=["a|b", "<script>", "line\nbreak"],
        dataset='quotes " and: colons\n---',
        metrics={"test": {"accuracy": 1.0, "n": 2, "ci95": None}},
    )
    card = (folder / "README.md").read_text()
    assert "<script>" not in card
    assert yaml.safe_load(card.split("---\n", 2)[1])["model-index"][0]["name"].startswith('quotes "')
    assert load(folder).classes == ("a|b", "<script>", "line\nbreak")
    assert (folder / "labels.txt").read_text().splitlines() == ["a|b", "<script>", "line break"]


def test_the_card_names_the_version_of_what_builds_the_network(of_texts: Classifier):
    transformers = pytest.importorskip("transformers")
    assert f"transformers {transformers.__version__}" in (of_texts.bundle.folder / "README.md").read_text()


def test_nothing_is_overwritten_unless_asked(saved: Path, delivered: Any, tmp_path: Path):
    folder = delivered.save(tmp_path / "model")
    with pytest.raises(BundleError, match=r"already holds something.*save\("):
        delivered.save(folder)
    delivered.save(folder, replace=True, classes=["a", "b", "c"])
    assert load(folder).classes == ("a", "b", "c")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(BundleError, match="not replaced"):
        delivered.save(tmp_path / "photos", replace=True)


def test_a_save_that_fails_leaves_nothing(delivered: Any, tmp_path: Path):
    with pytest.raises(TypeError):
        delivered.save(tmp_path / "model", metrics={"bad": object()})
    assert list(tmp_path.iterdir()) == []


def test_saving_checks_classes_and_pixels(delivered: Any, tmp_path: Path):
    with pytest.raises(BundleError, match="3 outputs and there are 2 classes"):
        delivered.save(tmp_path / "model", classes=["a", "b"])
    floats = replace(delivered, pixels=delivered.pixels / 255)
    with pytest.raises(BundleError, match="must be uint8"):
        floats.save(tmp_path / "model")


def test_a_changed_preprocessing_fails_the_self_test(copy: Path):
    spec = json.loads((copy / "config.json").read_text())["input"]
    _change_config(copy, input=spec | {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]})
    with pytest.raises(BundleError, match="fails its self-test"):
        load(copy)


def test_changed_weights_are_noticed(copy: Path):
    path = copy / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="not the file that was saved"):
        load(copy)


def test_nan_weights_fail_the_self_test(copy: Path):
    tensors = load_file(copy / "model.safetensors")
    _with_tensors(copy, tensors | {"head.bias": torch.full((3,), torch.nan)})
    with pytest.raises(BundleError, match="fails its self-test"):
        load(copy)


def test_tensors_are_loaded_strictly(copy: Path):
    tensors = load_file(copy / "model.safetensors")
    del tensors["body.stem.conv.weight"]
    _with_tensors(copy, tensors | {"body.extra": torch.zeros(1), "head.bias": torch.zeros(4)})
    with pytest.raises(BundleError) as error:
        load(copy)
    for part in ("body.stem.conv.weight is missing", "body.extra is not part", "head.bias is (4,)"):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["model.safetensors", "selftest.safetensors"])
def test_a_missing_or_cut_off_file_is_named(name: str, copy: Path):
    (copy / name).write_bytes((copy / name).read_bytes()[:100])
    with pytest.raises(BundleError, match=name):
        load(copy)
    (copy / name).unlink()
    with pytest.raises(BundleError, match=name):
        load(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"format": "other"}, "load_source"),
        ({"input": {"size": [3, 8, 8], "colour": 1}}, "not complete"),
        ({"taps": [{"cut": "block9", "grid": 1}]}, "block9"),
        ({"classes": ["one"]}, "head.weight"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(changes: dict, message: str, copy: Path):
    _change_config(copy, **changes)
    with pytest.raises(BundleError, match=message):
        load(copy)


def test_what_is_no_bundle_is_refused(tmp_path: Path):
    with pytest.raises(BundleError, match=r"no saved model.*RUN_DIR/model$"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BundleError, match="not JSON"):
        load(tmp_path)


def test_a_bundle_cannot_call_what_it_likes(copy: Path, tmp_path: Path):
    proof = tmp_path / "proof"
    _change_source(copy, arch="python:os:mkdir", arch_args={"path": str(proof)})
    with pytest.raises(BundleError, match=r"wants to call os:mkdir.*trust_code=True"):
        load(copy)
    assert not proof.exists()


@pytest.mark.parametrize("place", ["", "copy."])
def test_code_inside_a_bundle_is_never_imported(
    place: str, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    proof = tmp_path / "proof"
    (copy / "evil_net.py").write_text(f"open({str(proof)!r}, 'w')\ndef net(): pass\n")
    _change_source(copy, arch=f"python:{place}evil_net:net", arch_args={})
    monkeypatch.chdir(tmp_path if place else copy)
    with pytest.raises(BundleError, match="inside the folder itself"):
        load(copy)
    assert not proof.exists()


@pytest.mark.parametrize("name", ["os:abort", "regraft.cache:clean"])
def test_functions_that_need_no_arguments_to_do_harm_are_refused(name: str, copy: Path):
    _change_source(copy, arch=f"python:{name}", arch_args={})
    with pytest.raises(BundleError, match="does not say that it returns"):
        load(copy)


def test_an_own_architecture_loads_again(delivered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that says nothing about itself: called with numbers, refused with text."""
    (tmp_path / "own_net.py").write_text(OWN_NET)
    monkeypatch.chdir(tmp_path)
    folder = delivered.save(tmp_path / "model")
    _change_source(folder, arch="python:own_net:small", arch_args={"num_classes": 10})
    assert load(folder).classes == CLASSES
    _change_source(folder, arch="python:own_net:small", arch_args={"note": "text"})
    with pytest.raises(BundleError, match="does not say that it returns"):
        load(folder)
    assert load(folder, trust_code=True).classes == CLASSES


def test_a_run_folder_points_to_the_model_in_it(delivered, tmp_path: Path) -> None:
    delivered.save(tmp_path / "run" / "model")
    with pytest.raises(BundleError, match=r"pass that: .*run/model$"):
        load(tmp_path / "run")
