"""An exported model gives the model's answers, in an interpreter that shares no code with PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from conftest import CLASSES, Delivered, prepared  # type: ignore[import-not-found]
from regraft.artifact import Classifier, export, export_onnx, load
from regraft.data import Task
from regraft.errors import BundleError
from regraft.spec import spec_from_dict

NUMBERS = Task("regression", (10.0, 20.0, 30.0), (1.0, 2.0, 3.0))


def answers(path: Path, rows: np.ndarray) -> np.ndarray:
    (found,) = ReferenceEvaluator(str(path)).run(None, {"rows": rows})
    return np.asarray(found)


def metadata(path: Path) -> dict:
    return json.loads({each.key: each.value for each in onnx.load(path).metadata_props}["regraft"])


@pytest.fixture(scope="module")
def exported(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(load(saved), tmp_path_factory.mktemp("exported") / "model.onnx")


@pytest.mark.parametrize("n", [1, 5, 12])
def test_probabilities_are_the_models_whatever_the_batch(saved: Path, exported: Path, delivered: Delivered, n: int):
    rows = delivered.pixels[:n]
    expected = load(saved).predict_proba(rows)
    np.testing.assert_allclose(answers(exported, rows), expected, atol=1e-5)


def test_a_model_that_kept_one_example_takes_any_number(delivered: Delivered, tmp_path: Path):
    one = replace(delivered, pixels=delivered.pixels[:1]).save(tmp_path / "model")
    path = export_onnx(load(one), tmp_path / "model.onnx")
    np.testing.assert_allclose(answers(path, delivered.pixels), load(one).predict_proba(delivered.pixels), atol=1e-5)


def test_the_file_says_how_examples_are_prepared(saved: Path, exported: Path):
    told, model = metadata(exported), load(saved)
    assert spec_from_dict(told["input"]) == model.bundle.input
    assert (told["classes"], told["views"], told["digest"]) == (list(CLASSES), 1, model.bundle.digest)
    assert Task.from_dict(told["task"]) == model.bundle.task


def test_numbers_come_in_their_own_units(delivered: Delivered, tmp_path: Path):
    model = load(delivered.save(tmp_path / "model", task=NUMBERS))
    path = export_onnx(model, tmp_path / "numbers.onnx")
    assert [output.name for output in onnx.load(path).graph.output] == ["values"]
    expected = model.predict_values(delivered.pixels)
    np.testing.assert_allclose(answers(path, delivered.pixels), expected, rtol=1e-5)


def test_labels_are_told_one_by_one(delivered: Delivered, tmp_path: Path):
    model = load(delivered.save(tmp_path / "model", task=Task("multilabel")))
    path = export_onnx(model, tmp_path / "labels.onnx")
    expected = model.predict_proba(delivered.pixels)
    np.testing.assert_allclose(answers(path, delivered.pixels), expected, atol=1e-5)


def test_texts_of_any_length_in_batches_of_any_size(of_texts: Classifier, tmp_path: Path):
    path = export_onnx(of_texts, tmp_path / "texts.onnx")
    for n_words in (1, 4, 17):
        texts = ["a " * n_words, "good film " * n_words, "bad"][: 1 + n_words % 3]
        rows = prepared(texts, of_texts.bundle.input)
        np.testing.assert_allclose(answers(path, rows), of_texts.predict_proba(texts), atol=1e-5)


def test_an_operator_that_onnx_lacks_is_told(of_tiny_texts: Classifier, tmp_path: Path):
    with pytest.raises(BundleError, match=r"only 4D query.*regraft predict"):
        export_onnx(of_tiny_texts, tmp_path / "texts.onnx")


def test_what_is_there_is_not_overwritten(saved: Path, exported: Path):
    before = exported.read_bytes()
    with pytest.raises(BundleError, match=r"--out OTHER\.onnx"):
        export_onnx(load(saved), exported)
    assert exported.read_bytes() == before


def test_a_file_that_would_answer_otherwise_is_not_written(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    translated: Callable = export._translated

    def wrong(*given: object, **named: object) -> onnx.ModelProto:
        proto = translated(*given, **named)
        for tensor in proto.graph.initializer:
            if tensor.name.endswith("head.bias"):
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.array([5, 0, 0], np.float32), tensor.name))
        return proto

    monkeypatch.setattr(export, "_translated", wrong)
    with pytest.raises(BundleError, match="other answers"):
        export_onnx(load(saved), tmp_path / "wrong.onnx")
    assert not list(tmp_path.iterdir())
