"""TensorFlow Lite: float networks agree with its interpreter, 8-bit ones as far as rounding lets them."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import check_laws

from damage import mutations
from regraft.data import Transform, load_pixels, read
from regraft.errors import RegraftError, SourceError
from regraft.source import Source, load_source
from regraft.source.tflite import read_model
from regraft.spec import InputSpec

FIXTURES = Path(__file__).parent / "fixtures" / "tflite.zip"
SPEC = InputSpec((3, 15, 13), (0.0,) * 3, (1.0,) * 3)
# Of the probabilities. The 8-bit interpreter rounds every activation to one of 256 numbers, which we do not.
TOLERANCE = {"float": 1e-5, "half": 1e-5, "int8": 0.02, "uint8": 0.02}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tflite")
    with zipfile.ZipFile(FIXTURES) as archive:
        archive.extractall(folder)
    return folder


def pictures() -> np.ndarray:
    """As fixtures/make_tflite.py draws them."""
    return np.random.default_rng(5).integers(-64, 64, (4, 15, 13, 3)).astype(np.float32) / 64


def opened(networks: Path, kind: str, end: str = "") -> Source:
    return load_source(f"{networks / kind}.tflite" + (f"#{end}" if end else ""), input=SPEC)


def last_tensor(networks: Path, kind: str) -> str:
    model = read_model(networks / f"{kind}.tflite")
    return model.tensors[model.outputs[0]].name


def run(source: Source, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return source.model(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()


@pytest.mark.parametrize("kind", TOLERANCE)
def test_a_network_gives_the_outputs_of_the_interpreter(kind: str, networks: Path) -> None:
    wanted = np.array(json.loads((networks / "outputs.json").read_text())[kind])
    found = run(opened(networks, kind, last_tensor(networks, kind)), pictures())
    assert np.abs(found - wanted).max() <= TOLERANCE[kind]
    scores = run(opened(networks, kind), pictures())
    assert np.abs(np.exp(scores) / np.exp(scores).sum(1, keepdims=True) - found).max() < 1e-6


@pytest.mark.parametrize("kind", TOLERANCE)
def test_the_laws_of_a_graph_hold(kind: str, networks: Path) -> None:
    source = opened(networks, kind)
    assert check_laws(source).feature.name != "output"
    assert source.report is not None and len(source.report.matched) >= 9


def test_the_scaling_of_an_8_bit_input_is_its_mean_and_std(networks: Path) -> None:
    spec = load_source(str(networks / "uint8.tflite")).input
    start = read_model(networks / "uint8.tflite").tensors[0]
    pixels = np.arange(256)
    wanted = (pixels - start.zero[0]) * np.float32(start.scale[0])
    np.testing.assert_allclose((pixels / 255 - spec.mean[0]) / spec.std[0], wanted, atol=1e-5)
    with pytest.raises(SourceError, match=r"size=\(3, 15, 13\)"):
        load_source(str(networks / "float.tflite"))


def test_a_network_ends_where_it_is_told_to(networks: Path) -> None:
    model = read_model(networks / "float.tflite")
    name = model.tensors[model.operations[1].outputs[0]].name
    part = opened(networks, "float", name)
    assert [cut.shape for cut in check_laws(part).cuts[-1:]] == [(6, 8, 7)]
    assert part.n_params < opened(networks, "float").n_params
    with pytest.raises(SourceError, match="has no tensor 'nothing'"):
        opened(networks, "float", "nothing")


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_damaged_files_end_in_one_message(kind: str, networks: Path, tmp_path: Path) -> None:
    refused = 0
    for data in mutations((networks / f"{kind}.tflite").read_bytes(), 200):
        (tmp_path / f"{kind}.tflite").write_bytes(data)
        try:
            opened(tmp_path, kind)
        except RegraftError as error:
            refused += bool(str(error))
    assert refused > 50


REAL = {
    "mobilenetv2_100_imagenet": ("tf2_mobilenet_v2_1.0_224_ptq.tflite", 1001),
    "mobilenetv2_100_inat_insect": ("mobilenet_v2_1.0_224_inat_insect_quant.tflite", 1022),
}


@pytest.mark.parametrize("name", REAL)
def test_real_networks_agree_with_what_they_were_converted_to(name: str, shared_data: Path) -> None:
    file, classes = REAL[name]
    theirs = load_source(str(shared_data / "weights" / name))
    ours = load_source(str(shared_data / "weights" / file))
    np.testing.assert_allclose([ours.input.mean, ours.input.std], [theirs.input.mean, theirs.input.std], atol=1e-6)
    every = read(str(shared_data / "datasets/ants_bees")).split("test")
    photos = replace(every, examples=every.examples[::20])
    x = torch.from_numpy(load_pixels(photos, Transform(theirs.input))) / 255
    x = (x - torch.tensor(theirs.input.mean).view(-1, 1, 1)) / torch.tensor(theirs.input.std).view(-1, 1, 1)
    with torch.no_grad():
        found, wanted = ours.model(x), theirs.model(x)
    assert found.shape == wanted.shape == (len(photos), classes)
    assert torch.equal(found.argmax(1), wanted.argmax(1))
    assert float((found - wanted).abs().max()) < 1e-4
