"""What exporters write into ONNX files beside plain layers: merged tensors, counted places, fused operators."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from regraft.cut import Traced, join, split, trace_source
from regraft.errors import SourceError
from regraft.source import Source, load_source
from regraft.source.onnx.ops import OPS, sizes
from regraft.spec import InputSpec

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

SPEC = InputSpec(size=(3, 8, 8))
Node = helper.make_node


def opened(tmp_path: Path, nodes: list[Any], stored: dict[str, Any], *, opset: int = 18, n: Any = "n") -> Source:
    """A file with these nodes, from pictures "x" to "y"."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (n, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    return load_source(str(tmp_path / "net.onnx"), input=SPEC)


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(math.prod(shape)).normal(size=shape).astype(np.float32) / 4


def cut_exactly(source: Source) -> Traced:
    """The graph of a source, every cut of which gives the network's own output."""
    traced = trace_source(source)
    x = torch.randn(5, 3, 8, 8)
    wanted = source.model(x)
    assert not traced.fallback_reason
    for cut in traced.cuts:
        assert torch.equal(join(*split(traced, cut))(x), wanted)
    return traced


@pytest.mark.parametrize("n", ["n", 1])
def test_places_counted_from_the_number_of_pictures_are_a_reshape(n: Any, tmp_path: Path) -> None:
    """As PyTorch's exporter writes `AdaptiveAvgPool2d(1)` of what lies channels last."""
    each = np.arange(4).reshape(1, 4, 1, 1)
    counting = [
        Node("Shape", ["x"], ["shape"], start=0, end=1), Node("Squeeze", ["shape"], ["count"]),
        Node("Range", ["zero", "count", "one"], ["rows"]), Node("Mul", ["rows", "four"], ["starts"]),
        Node("Unsqueeze", ["starts", "axes"], ["first"]), Node("Add", ["first", "each"], ["places"]),
    ] if n == "n" else []  # fmt: skip
    nodes = [
        Node("Conv", ["x", "conv.weight"], ["c"]), Node("ReduceMean", ["c", "hw"], ["m"], keepdims=1),
        Node("Reshape", ["m", "flat"], ["f"]), *counting, Node("Gather", ["f", "places"], ["g"], name="pool"),
        Node("Reshape", ["g", "rest"], ["r"]), Node("Gemm", ["r", "fc.weight"], ["y"], transB=1),
    ]  # fmt: skip
    stored = {
        "conv.weight": weights(4, 3, 3, 3), "fc.weight": weights(5, 4), "hw": np.array([2, 3]), "flat": np.array([-1]),
        "zero": np.array(0), "one": np.array(1), "four": np.array(4), "axes": np.array([1, 2, 3]), "each": each,
        "rest": np.array([-1, 4]),
    }  # fmt: skip
    source = opened(tmp_path, nodes, stored if n == "n" else {**stored, "places": each}, n=n)
    x = torch.randn(3, 3, 8, 8)
    pooled = nn.functional.conv2d(x, torch.from_numpy(stored["conv.weight"])).mean((2, 3))
    assert torch.allclose(source.model(x), pooled @ torch.from_numpy(stored["fc.weight"]).T, atol=1e-5)
    assert cut_exactly(source).cut("pool").shape == (4, 1, 1)


def test_places_in_another_order_stay_a_gather(tmp_path: Path) -> None:
    nodes = [
        Node("Reshape", ["x", "flat"], ["f"]), Node("Shape", ["x"], ["shape"], start=0, end=1),
        Node("Squeeze", ["shape"], ["count"]), Node("Range", ["zero", "count", "one"], ["rows"]),
        Node("Mul", ["rows", "size"], ["starts"]), Node("Unsqueeze", ["starts", "axes"], ["first"]),
        Node("Add", ["first", "each"], ["places"]), Node("Gather", ["f", "places"], ["y"]),
    ]  # fmt: skip
    backwards = np.arange(192)[None, ::-1].copy()
    stored = {"flat": np.array([-1]), "zero": np.array(0), "one": np.array(1), "size": np.array(192),
              "axes": np.array([1]), "each": backwards}  # fmt: skip
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(opened(tmp_path, nodes, stored).model(x), x.flatten(1).flip(1))


def test_pads_in_pytorchs_order_are_turned_by_a_transpose_of_numbers(tmp_path: Path) -> None:
    """As the older exporter writes `F.pad`: numbers, in pairs from the last axis on, turned round and regrouped."""
    nodes = [
        Node("Reshape", ["pads", "pairs"], ["p"]), Node("Slice", ["p", "last", "first", "zero", "back"], ["b"]),
        Node("Transpose", ["b"], ["t"], perm=[1, 0]), Node("Reshape", ["t", "flat"], ["all"]),
        Node("Pad", ["x", "all"], ["y"]),
    ]  # fmt: skip
    stored = {
        "pads": np.array([1, 2, 3, 0, 0, 0, 0, 0]), "pairs": np.array([-1, 2]), "last": np.array([-1]),
        "first": np.array([-(2**63) + 1]), "zero": np.array([0]), "back": np.array([-1]), "flat": np.array([-1]),
    }  # fmt: skip
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(opened(tmp_path, nodes, stored).model(x), nn.functional.pad(x, (1, 2, 3, 0)))


def test_a_class_token_of_a_network_exported_for_one_picture_goes_before_each(tmp_path: Path) -> None:
    nodes = [
        Node("Reshape", ["x", "tokens"], ["t"]), Node("Concat", ["token", "t"], ["c"], axis=1, name="all"),
        Node("Gather", ["c", "zero"], ["first"], axis=1), Node("ReduceMean", ["c", "one"], ["mean"], keepdims=0),
        Node("Add", ["first", "mean"], ["y"]),
    ]  # fmt: skip
    stored = {"tokens": np.array([1, 3, 64]), "token": weights(1, 1, 64), "zero": np.array(0), "one": np.array([1])}
    source, x = opened(tmp_path, nodes, stored, n=1), torch.randn(4, 3, 8, 8)
    tokens = torch.cat([torch.from_numpy(stored["token"]).expand(4, 1, 64), x.flatten(2)], 1)
    assert torch.allclose(source.model(x), tokens[:, 0] + tokens.mean(1), atol=1e-6)
    assert cut_exactly(source).cut("all").shape == (4, 64)


@pytest.mark.parametrize("op", ["Erf", "Relu", "Sigmoid", "Softplus", "Tanh", "ReduceMean", "Trilu", "Sign", "Round"])
def test_an_operator_takes_a_constant_that_is_kept_as_numbers(op: str) -> None:
    values = [[-1.5, 0.25], [0.75, 2.5]]
    found = OPS[op](sizes(values))
    assert np.allclose(np.asarray(found.tolist(), float), OPS[op](torch.tensor(values)))


def test_a_split_and_a_flatten_of_sizes() -> None:
    parts = OPS["Split"](sizes([1, 2, 3, 4, 5]), sizes([2, 3]), outputs=2)
    assert [part.tolist() for part in parts] == [[1, 2], [3, 4, 5]]
    assert OPS["Flatten"](sizes([[[1, 2]], [[3, 4]]])).tolist() == [[1, 2], [3, 4]]


class Merged(nn.Module):
    """Two batch norms of the same width, whose fresh biases and means are equal."""

    def __init__(self) -> None:
        super().__init__()
        self.norm0, self.norm1 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm1(self.norm0(x).relu()).relu().mean((2, 3)))


@pytest.mark.filterwarnings("ignore")
def test_tensors_that_an_exporter_merged_are_apart_again(tmp_path: Path) -> None:
    model, x = Merged().eval(), torch.randn(2, 3, 8, 8)
    path, axes = tmp_path / "net.onnx", {"x": {0: "n"}}
    torch.onnx.export(model, (x,), str(path), dynamo=False, opset_version=13, input_names=["x"], dynamic_axes=axes)
    merged = [node for node in onnx.load(path).graph.node if node.op_type == "Identity"]
    assert merged, "this exporter merges no tensors any more"
    source = load_source(str(path), input=SPEC)
    kept = {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}
    assert source.model.state_dict().keys() == kept
    assert dict(source.model.named_parameters()).keys() == dict(model.named_parameters()).keys()
    assert torch.allclose(source.model(x), model(x), atol=1e-6)
    source.model(x).square().sum().backward()
    assert all(p.grad is not None for p in source.model.parameters())
    cut_exactly(source)


def test_a_tensor_that_is_bias_and_mean_is_copied_for_each_norm(tmp_path: Path) -> None:
    """As makers write it that leave no trace of the merged names."""
    nodes = [
        Node("BatchNormalization", ["x", "ones", "zeros", "zeros", "var"], ["a"], name="first"),
        Node("BatchNormalization", ["a", "ones", "zeros", "zeros", "var"], ["y"], name="second"),
    ]
    stored = {"ones": np.ones(3, np.float32), "zeros": np.zeros(3, np.float32), "var": np.full(3, 2, np.float32)}
    source = opened(tmp_path, nodes, stored)
    assert dict(source.model.named_parameters()).keys() == {"ones", "zeros"}
    assert dict(source.model.named_buffers()).keys() == {"first.mean", "second.mean", "var", "second.variance"}
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(source.model(x), x / (2 + 1e-5), atol=1e-5)
    cut_exactly(source)


def test_a_matrix_that_two_layers_share_stays_one(tmp_path: Path) -> None:
    nodes = [
        Node("Identity", ["w"], ["v"]), Node("Flatten", ["x"], ["f"]),
        Node("MatMul", ["f", "w"], ["a"]), Node("MatMul", ["a", "v"], ["y"]),
    ]  # fmt: skip
    assert [name for name, _ in opened(tmp_path, nodes, {"w": weights(192, 192)}).model.named_parameters()] == ["w"]


@pytest.mark.parametrize(
    "head",
    [
        [Node("Gemm", ["p", "w"], ["y"])],
        [Node("Gemm", ["p", "w"], ["y"], alpha=0.5)],
        [Node("Gemm", ["p", "v"], ["y"], transB=1)],
        [Node("Gemm", ["p", "w", "b"], ["y"])],
        [Node("MatMul", ["p", "w"], ["y"])],
        [Node("MatMul", ["p", "w"], ["m"]), Node("Add", ["m", "b"], ["y"])],
    ],
)
def test_the_classifier_is_found_however_it_is_written(head: list[Any], tmp_path: Path) -> None:
    nodes = [Node("Relu", ["x"], ["r"]), Node("ReduceMean", ["r", "hw"], ["p"], keepdims=0, name="pool"), *head]
    w = weights(3, 5)
    source = opened(tmp_path, nodes, {"hw": np.array([2, 3]), "w": w, "v": w.T.copy(), "b": weights(5)})
    traced = cut_exactly(source)
    assert (traced.feature.name, traced.feature.shape) == ("pool", (3,))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("settings", [{}, {"is_causal": 1, "scale": 0.3}, {"softcap": 2.0}])
def test_attention_is_pytorchs(packed: bool, settings: dict[str, Any], tmp_path: Path) -> None:
    """Queries, keys and values are the three colours, of 2 heads with 4 features and 8 tokens."""
    axis = "c" if packed else "tall"
    tokens = [Node("Reshape", ["x", "cells"], ["t"])] if packed else [
        Node("Reshape", ["x", "parts"], ["u"]), Node("Transpose", ["u"], ["t"], perm=[0, 1, 3, 2, 4])]  # fmt: skip
    heads = {"q_num_heads": 2, "kv_num_heads": 2} if packed else {}
    nodes = [
        *tokens, *(Node("Gather", ["t", str(i)], [f"{axis}{i}"], axis=1) for i in range(3)),
        Node("Attention", [f"{axis}{i}" for i in range(3)], ["y"], **heads, **settings),
    ]  # fmt: skip
    stored = {"cells": np.array([0, 3, 8, 8]), "parts": np.array([0, 3, 8, 2, 4])} | {
        str(i): np.array(i) for i in range(3)
    }
    source = opened(tmp_path, nodes, stored, opset=23)
    x = torch.randn(5, 3, 8, 8)
    q, k, v = x.reshape(5, 3, 8, 2, 4).transpose(2, 3).unbind(1)
    scores = q @ k.mT * settings.get("scale", 0.5)
    scores = 2 * torch.tanh(scores / 2) if "softcap" in settings else scores
    scores = scores.masked_fill(torch.ones(8, 8).triu(1).bool(), -math.inf) if "is_causal" in settings else scores
    wanted = scores.softmax(-1) @ v
    assert torch.allclose(source.model(x), wanted.transpose(1, 2).flatten(2) if packed else wanted, atol=1e-5)
    cut_exactly(source)


def test_attention_with_a_cache_is_refused(tmp_path: Path) -> None:
    node = Node("Attention", ["x", "x", "x", "", "x", "x"], ["y"])
    with pytest.raises(SourceError, match="a cache of keys and values"):
        opened(tmp_path, [node], {}, opset=23)


def test_an_empty_file_and_another_size_say_so(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(SourceError, match=r"empty\.onnx is empty\. Copy or download it again"):
        load_source(str(tmp_path / "empty.onnx"), input=SPEC)
    nodes = [Node("Reshape", ["x", "shape"], ["y"])]
    with pytest.raises(SourceError, match=r"another size than \(C, H, W\) = \(3, 8, 8\)\. Export it") as refused:
        opened(tmp_path, nodes, {"shape": np.array([0, 3 * 9 * 9])})
    assert "name its size" not in str(refused.value)


def test_a_merged_vector_whose_name_is_damaged_is_refused(tmp_path: Path) -> None:
    nodes = [Node("Identity", ["w"], ["vvvv"]), Node("Mul", ["x", "vvvv"], ["y"])]
    assert set(opened(tmp_path, nodes, {"w": weights(8)}).model.state_dict()) == {"vvvv"}
    path = tmp_path / "net.onnx"
    path.write_bytes(path.read_bytes().replace(b"vvvv", b"vv\xffv"))
    with pytest.raises(SourceError, match="is damaged or no"):
        load_source(str(path), input=SPEC)
