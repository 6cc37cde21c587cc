"""What was written for transformers gives the model's answers there, without regraft."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from conftest import CLASSES, Delivered  # type: ignore[import-not-found]
from regraft.artifact import Classifier, export_hf, hugging_face, load
from regraft.data import Task
from regraft.errors import BundleError
from regraft.source import front

pytest.importorskip("transformers")

NUMBERS = Task("regression", (10.0, 20.0, 30.0), (1.0, 2.0, 3.0))
TEXTS = ["a good film", "bad", "a bad bad film a good film"]
ELSEWHERE = """
import json, sys
sys.modules["regraft"] = None  # not installed there
import torch, transformers
from PIL import Image
folder, *inputs = sys.argv[1:]
trusted = {"trust_remote_code": True}
if inputs[0].endswith(".png"):
    model = transformers.AutoModelForImageClassification.from_pretrained(folder, **trusted)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    given = processor([Image.open(i) for i in inputs], return_tensors="pt")
else:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, **trusted)
    given = transformers.AutoTokenizer.from_pretrained(folder, **trusted)(inputs, padding=True, return_tensors="pt")
with torch.no_grad():
    print(json.dumps([model(**given).logits.softmax(1).tolist(), model.config.id2label]))
"""


def elsewhere(folder: Path, inputs: list[str], home: Path) -> tuple[np.ndarray, list[str]]:
    """Probabilities and class names in a process that has transformers alone."""
    told = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-c", ELSEWHERE, str(folder), *inputs]
    done = subprocess.run(words, env=os.environ | told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers, names = json.loads(done.stdout.splitlines()[-1])
    return np.array(answers), list(names.values())


def written(folder: Path, *inputs: torch.Tensor) -> np.ndarray:
    """What the file's class says, opened by hand."""
    where = spec_from_file_location("written", folder / hugging_face.MODELING)
    assert where is not None and where.loader is not None
    module = module_from_spec(where)
    where.loader.exec_module(module)
    (name,) = json.loads((folder / "config.json").read_text())["architectures"]
    model = getattr(module, name)(module.RegraftConfig()).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    with torch.no_grad():
        return model(*inputs).logits.numpy()


def pixel_values(model: Classifier, pixels: np.ndarray) -> torch.Tensor:
    """Pixels (N, C, H, W), red first, as the preprocessor's file says."""
    settings = json.loads(hugging_face._preparation(model.bundle.input)["preprocessor_config.json"])
    mean, std = (torch.tensor(settings[name]).view(1, -1, 1, 1) for name in ("image_mean", "image_std"))
    return (torch.from_numpy(pixels) / 255 - mean) / std


def test_transformers_opens_pictures_without_regraft(saved: Path, delivered: Delivered, tmp_path: Path):
    files = [tmp_path / f"{i}.png" for i in range(5)]
    for file, pixels in zip(files, delivered.pixels, strict=False):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(file)
    folder = export_hf(load(saved), tmp_path / "exported")
    answers, names = elsewhere(folder, [str(file) for file in files], tmp_path / "home")
    np.testing.assert_allclose(answers, load(saved).predict_proba(files), atol=1e-5)
    assert names == list(CLASSES) and (folder / "README.md").is_file()


def test_transformers_opens_texts_without_regraft(of_texts: Classifier, tmp_path: Path):
    answers, names = elsewhere(export_hf(of_texts, tmp_path / "exported"), TEXTS, tmp_path / "home")
    np.testing.assert_allclose(answers, of_texts.predict_proba(TEXTS), atol=1e-5)
    assert names == ["no", "yes"]


def test_numbers_come_in_their_own_units_and_labels_one_by_one(delivered: Delivered, tmp_path: Path):
    for task, kind in ((NUMBERS, "regression"), (Task("multilabel"), "multi_label_classification")):
        model = load(delivered.save(tmp_path / task.kind, task=task))
        folder = export_hf(model, tmp_path / f"{task.kind}-hf")
        found = written(folder, pixel_values(model, delivered.pixels))
        expected = model.predict_values(delivered.pixels) if task.numeric else model.predict_proba(delivered.pixels)
        np.testing.assert_allclose(found if task.numeric else 1 / (1 + np.exp(-found)), expected, rtol=1e-4)
        assert json.loads((folder / "config.json").read_text())["problem_type"] == kind


def test_a_network_that_wants_blue_first_is_given_red_first(delivered: Delivered, tmp_path: Path):
    uneven = replace(delivered.source.input, channel_order="BGR", mean=(0.2, 0.5, 0.7), std=(0.3, 0.2, 0.1))
    network = copy.deepcopy(delivered.network)
    network.front = front(uneven)
    changed = replace(delivered, network=network, source=replace(delivered.source, input=uneven))
    model = load(changed.save(tmp_path / "model"))
    found = written(export_hf(model, tmp_path / "exported"), pixel_values(model, delivered.pixels))
    expected = np.log(model.predict_proba(delivered.pixels))
    np.testing.assert_allclose(
        found - found.mean(1, keepdims=True), expected - expected.mean(1, keepdims=True), atol=1e-3
    )


def test_what_transformers_does_not_prepare_is_told(of_tiny_texts: Classifier, delivered: Delivered, tmp_path: Path):
    with pytest.raises(BundleError, match=r"list of words.*--to onnx"):
        export_hf(of_tiny_texts, tmp_path / "words")
    grey = load(delivered.save(tmp_path / "model"))
    narrow = replace(grey.bundle.input, size=(1, 32, 32), mean=(0.5,), std=(0.5,))
    grey.bundle = replace(grey.bundle, input=narrow)
    with pytest.raises(BundleError, match=r"grey pictures.*--to onnx"):
        export_hf(grey, tmp_path / "grey")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_nothing_is_overwritten_and_nothing_wrong_is_written(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "there").mkdir()
    with pytest.raises(BundleError, match="--out OTHER"):
        export_hf(load(saved), tmp_path / "there")
    right = hugging_face._tensors
    monkeypatch.setattr(hugging_face, "_tensors", lambda graph: right(graph) | {"head.bias": torch.tensor([5.0, 0, 0])})
    with pytest.raises(BundleError, match="other answers"):
        export_hf(load(saved), tmp_path / "wrong")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
