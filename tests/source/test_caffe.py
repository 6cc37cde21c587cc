"""Caffe networks against their layers' definitions written naively, and a real LeNet against its published accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from graphs import check_laws

from damage import mutations
from regraft.data import Transform, load_pixels, read
from regraft.errors import RegraftError, SourceError
from regraft.source import Source, load_source
from regraft.source.caffe_schema import net_parameter
from regraft.spec import InputSpec

GREY = InputSpec(size=(1, 28, 28), mean=(0.0,), std=(1.0,))
SMALL = """
name: "small" mystery_setting { value: 3 }
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 11 dim: 10 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 1 bias_term: true } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" batch_norm_param { eps: 0.001 } }
layer { name: "scale1" type: "Scale" bottom: "conv1" top: "conv1" scale_param { bias_term: true } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" relu_param { negative_slope: 0.1 } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
        pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1"
        lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 } }
layer { name: "conv2" type: "Convolution" bottom: "norm1" top: "conv2"
        convolution_param { num_output: 4 kernel_h: 3 kernel_w: 1 pad_h: 2 pad_w: 0 group: 2 dilation: 2 bias_term: false } }
layer { name: "prelu2" type: "PReLU" bottom: "conv2" top: "prelu2" }
layer { name: "sum" type: "Eltwise" bottom: "prelu2" bottom: "norm1" top: "sum" }
layer { name: "both" type: "Concat" bottom: "sum" bottom: "pool1" top: "both" }
layer { name: "pool2" type: "Pooling" bottom: "both" top: "pool2"
        pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "drop" type: "Dropout" bottom: "pool2" top: "pool2" }
layer { name: "fc" type: "InnerProduct" bottom: "pool2" top: "fc" inner_product_param { num_output: 5 } }
layer { name: "label" type: "Data" top: "label" include { phase: TRAIN } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" include { phase: TRAIN } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" include { phase: TEST } }
"""  # noqa: E501
SHAPES = {
    "conv1": [(4, 3, 3, 3), (4,)],
    "bn1": [(4,), (4,), (1,)],
    "scale1": [(4,), (4,)],
    "conv2": [(4, 2, 3, 1)],
    "prelu2": [(4,)],
    "fc": [(5, 8 * 9), (5,)],
}


def arrays() -> dict[str, list[np.ndarray]]:
    draw = np.random.default_rng(0)
    found = {n: [draw.normal(0, 0.5, s).astype(np.float32) for s in shapes] for n, shapes in SHAPES.items()}
    found["bn1"] = [found["bn1"][0], 1 + found["bn1"][1] ** 2, np.array([2.0], np.float32)]
    return found


def write(folder: Path, text: str, blobs: dict[str, list[np.ndarray]]) -> Path:
    """A network in its two files."""
    (folder / "deploy.prototxt").write_text(text)
    net = net_parameter()()
    for name, parts in blobs.items():
        layer = net.layer.add(name=name, type="Whatever")
        for part in parts:
            layer.blobs.add(data=part.ravel().tolist()).shape.dim.extend(part.shape)
    path = folder / "net.caffemodel"
    path.write_bytes(net.SerializeToString())
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path, SMALL, arrays())


def spec() -> InputSpec:
    return InputSpec(size=(3, 11, 10), mean=(0.0,) * 3, std=(1.0,) * 3, channel_order="BGR")


# the definitions --------------------------------------------------------------------------------------


def naive_conv(x: np.ndarray, w: np.ndarray, pad: tuple[int, int], dilation: int = 1, groups: int = 1) -> np.ndarray:
    (n, channels, _, _), (out, inside, high, wide) = x.shape, w.shape
    x = np.pad(x, ((0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
    rows, columns = x.shape[2] - (high - 1) * dilation, x.shape[3] - (wide - 1) * dilation
    y = np.zeros((n, out, rows, columns), np.float64)
    for o in range(out):
        first = o // (out // groups) * (channels // groups)
        for c in range(inside):
            for i in range(high):
                for j in range(wide):
                    part = x[:, first + c, i * dilation : i * dilation + rows, j * dilation : j * dilation + columns]
                    y[:, o] += w[o, c, i, j] * part
    return y


def naive_pool(x: np.ndarray, kernel: int, stride: int, pad: int, largest: bool) -> np.ndarray:
    """As caffe/layers/pooling_layer.cpp has it: rounded up, and the last window starts inside the picture."""
    high, wide = x.shape[2:]
    sizes = [int(np.ceil((side + 2 * pad - kernel) / stride)) + 1 for side in (high, wide)]
    if pad:
        sizes = [n - ((n - 1) * stride >= side + pad) for n, side in zip(sizes, (high, wide), strict=True)]
    y = np.zeros((*x.shape[:2], *sizes))
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            top, left = i * stride - pad, j * stride - pad
            bottom, right = min(top + kernel, high + pad), min(left + kernel, wide + pad)
            area = (bottom - top) * (right - left)
            window = x[:, :, max(top, 0) : min(bottom, high), max(left, 0) : min(right, wide)]
            y[:, :, i, j] = window.max((2, 3)) if largest else window.sum((2, 3)) / area
    return y


def naive_lrn(x: np.ndarray, size: int, alpha: float, beta: float, k: float = 1.0) -> np.ndarray:
    y, half = np.empty_like(x), size // 2
    for c in range(x.shape[1]):
        near = x[:, max(0, c - half) : c + half + 1]
        y[:, c] = x[:, c] / (k + alpha / size * (near**2).sum(1)) ** beta
    return y


def per_channel(values: np.ndarray) -> np.ndarray:
    return values[None, :, None, None]


def naive(x: np.ndarray) -> np.ndarray:
    b = arrays()
    y = naive_conv(x, b["conv1"][0], (1, 1)) + per_channel(b["conv1"][1])
    mean, variance = b["bn1"][0] / b["bn1"][2], b["bn1"][1] / b["bn1"][2]
    y = (y - per_channel(mean)) / np.sqrt(per_channel(variance) + 0.001)
    y = y * per_channel(b["scale1"][0]) + per_channel(b["scale1"][1])
    pool1 = naive_pool(np.where(y > 0, y, 0.1 * y), 3, 2, 0, largest=True)
    norm1 = naive_lrn(pool1, 3, 0.5, 0.75)
    y = naive_conv(norm1, b["conv2"][0], (2, 0), dilation=2, groups=2)
    y = np.where(y > 0, y, per_channel(b["prelu2"][0]) * y) + norm1
    pool2 = naive_pool(np.concatenate([y, pool1], 1), 3, 2, 1, largest=False)
    return pool2.reshape(len(x), -1) @ b["fc"][0].T + b["fc"][1]


def run(source: Source, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return source.model(torch.from_numpy(x)).numpy()


# tests ------------------------------------------------------------------------------------------------


def test_every_layer_agrees_with_its_definition(small: Path) -> None:
    x = np.random.default_rng(1).normal(size=(3, 3, 11, 10)).astype(np.float32)
    wanted = naive(x)
    found = run(load_source(str(small), input=spec()), x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("size", [5, 6, 7, 8, 9])
@pytest.mark.parametrize(("kernel", "stride", "pad"), [(2, 2, 0), (3, 2, 0), (3, 2, 1), (2, 3, 1), (4, 3, 2)])
@pytest.mark.parametrize("pool", ["MAX", "AVE"])
def test_pooling_rounds_up_and_its_last_window_starts_inside(
    pool: str, kernel: int, stride: int, pad: int, size: int, tmp_path: Path
) -> None:
    text = f"""input: "data" input_shape {{ dim: 1 dim: 1 dim: {size} dim: {size} }}
    layer {{ name: "pool" type: "Pooling" bottom: "data" top: "pool"
             pooling_param {{ pool: {pool} kernel_size: {kernel} stride: {stride} pad: {pad} }} }}"""
    path = write(tmp_path, text, {})
    source = load_source(str(path), input=InputSpec((1, size, size), (0.0,), (1.0,)))
    x = np.random.default_rng(size).normal(size=(2, 1, size, size)).astype(np.float32)
    np.testing.assert_allclose(run(source, x), naive_pool(x, kernel, stride, pad, pool == "MAX"), rtol=1e-5, atol=1e-6)


def test_the_laws_of_a_graph_hold(small: Path) -> None:
    source = load_source(str(small), input=spec())
    check_laws(source)
    names = [name for name, _ in source.model.named_parameters()]
    assert names[:2] == ["conv1/weight", "conv1/bias"]
    assert source.report is not None and source.report.complete


def test_the_end_is_the_layer_that_was_asked_for(small: Path) -> None:
    x = np.zeros((2, 3, 11, 10), np.float32)
    assert run(load_source(f"{small}#pool1", input=spec()), x).shape == (2, 4, 5, 5)
    assert run(load_source(str(small), input=spec()), x).shape == (2, 5)
    np.testing.assert_allclose(run(load_source(f"{small}#prob", input=spec()), x).sum(1), 1, rtol=1e-6)
    with pytest.raises(SourceError, match="pool1"):
        load_source(f"{small}#pol1", input=spec())


def test_layers_of_the_first_generation(tmp_path: Path) -> None:
    text = """input: "data" input_dim: 1 input_dim: 1 input_dim: 4 input_dim: 4
    layers { name: "ip" type: INNER_PRODUCT bottom: "data" top: "ip" inner_product_param { num_output: 2 } }
    layers { name: "relu" type: RELU bottom: "ip" top: "ip" }
    layers { name: "prob" type: SOFTMAX bottom: "ip" top: "prob" }"""
    (tmp_path / "net.prototxt").write_text(text)
    net = text_format.Parse(text, net_parameter()())
    weight, bias = np.arange(32, dtype=np.float32).reshape(2, 16) / 9 - 1, np.array([0.5, -90], np.float32)
    net.layers[0].blobs.add(num=1, channels=1, height=2, width=16, data=weight.ravel().tolist())
    net.layers[0].blobs.add(num=1, channels=1, height=1, width=2, data=bias.tolist())
    (tmp_path / "net.caffemodel").write_bytes(net.SerializeToString())
    source = load_source(str(tmp_path), input=InputSpec((1, 4, 4), (0.0,), (1.0,)))
    x = np.ones((2, 1, 4, 4), np.float32)
    np.testing.assert_allclose(run(source, x), np.maximum(x.reshape(2, 16) @ weight.T + bias, 0), rtol=1e-5)


def test_the_data_layer_says_how_pictures_are_scaled(tmp_path: Path) -> None:
    data = """layer { name: "data" type: "Data" top: "data" top: "label"
        transform_param { scale: 0.5 crop_size: 10 mean_value: 104 mean_value: 117 mean_value: 123 } }"""
    text = data + SMALL.replace("dim: 11", "dim: 10").replace('"Input"', '"Silence"', 1)
    blobs = arrays() | {"fc": [np.zeros((5, 8 * 9), np.float32), np.zeros(5, np.float32)]}
    path = write(tmp_path, text, blobs)
    net = net_parameter().FromString(path.read_bytes())
    net.layer[0].type = "Convolution"
    path.write_bytes(net.SerializeToString())
    found = load_source(str(path)).input
    assert found.size == (3, 10, 10) and found.channel_order == "BGR"
    pixels = np.array([200.0, 100.0, 50.0])
    np.testing.assert_allclose(
        (pixels / 255 - found.mean) / found.std, (pixels - [104, 117, 123]) * 0.5, rtol=1e-6, atol=1e-6
    )


def test_an_input_that_is_not_said_is_asked_for(small: Path) -> None:
    with pytest.raises(SourceError, match=r"size=\(3, 11, 10\)"):
        load_source(str(small))


def test_a_description_alone_gives_the_architecture(small: Path) -> None:
    small.unlink()
    fresh = load_source(str(small.parent / "deploy.prototxt"), input=spec(), random_weights=True)
    assert run(fresh, np.ones((2, 3, 11, 10), np.float32)).std() > 0
    with pytest.raises(SourceError, match="random_weights=True"):
        load_source(str(small.parent / "deploy.prototxt"), input=spec())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('type: "PReLU"', 'type: "Magic"'), "Magic"),
        (("num_output: 5", "num_output: 500000000"), "fc"),
        (("kernel_size: 3 pad: 1 stride: 1", "kernel_size: 3 pad: 4000000000 stride: 1"), "conv1"),
        (("group: 2", "group: 0"), "conv2"),
        (('bottom: "sum" bottom: "pool1"', 'bottom: "both" bottom: "pool1"'), "both"),
        (("layer {", "layer {{"), "description"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(change: tuple[str, str], says: str, small: Path) -> None:
    (small.parent / "deploy.prototxt").write_text(SMALL.replace(*change, 1))
    with pytest.raises(SourceError, match=says):
        load_source(str(small), input=spec())


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    blobs = arrays()
    blobs["fc"][1][0] = np.nan
    with pytest.raises(SourceError, match="NaN"):
        load_source(str(write(tmp_path, SMALL, blobs)), input=spec())


@pytest.mark.parametrize("suffix", [".caffemodel", ".prototxt"])
def test_damaged_files_end_in_one_message(suffix: str, small: Path) -> None:
    path = small if suffix == ".caffemodel" else small.parent / "deploy.prototxt"
    whole: Any = path.read_bytes()
    for data in mutations(whole, 200):
        path.write_bytes(data)
        try:
            load_source(str(small), input=spec())
        except RegraftError as error:
            assert str(error)


def test_lenet_reaches_its_accuracy(shared_data: Path) -> None:
    source = load_source(str(shared_data / "weights/lenet_mnist_caffe"))
    test = read(str(shared_data / "datasets/mnist_small")).split("test")
    pixels = torch.from_numpy(load_pixels(test, Transform(source.input)))
    spec = source.input
    with torch.no_grad():
        scores = source.model((pixels / 255 - torch.tensor(spec.mean)) / torch.tensor(spec.std))
    assert (scores.argmax(1).numpy() == test.labels).mean() == 0.9895
