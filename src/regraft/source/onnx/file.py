"""`.onnx` files: the graph becomes a network that can be cut and trained, its initialisers become parameters.

ONNX: Open Neural Network Exchange, https://onnx.ai; operator sets 11 and later, in files of any maker.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from regraft.errors import MissingExtra, SourceError, closest, first_line
from regraft.source.arch import build
from regraft.source.graph.constants import packed
from regraft.source.match import check_finite
from regraft.source.onnx.net import OnnxGraph, OnnxNet, OnnxNode, OnnxTensor
from regraft.source.onnx.ops import OPS, STEERED
from regraft.source.onnx.shared import unshare
from regraft.source.onnx.strided import without_counting
from regraft.source.request import Request
from regraft.source.source import LoadReport, Source, make_source

_OLDEST = 11
_MOST_BYTES = 1 << 31  # a file's own limit; larger networks keep their weights beside it
# What an initialiser is to the operator that reads it: how a fresh one is filled, or that it only steers.
_ROLES = {
    "BatchNormalization": {1: "ones", 2: "zeros", 3: "mean", 4: "variance"},
    **{op: {1: "ones", 2: "zeros"} for op in ("LayerNormalization", "InstanceNormalization", "GroupNormalization")},
    "RMSNormalization": {1: "ones"},
    **{op: {2: "zeros"} for op in ("Conv", "ConvTranspose", "Gemm")},
    **{op: dict.fromkeys(range(1, 5), "steers") for op in STEERED},
}
_REAL = {1, 10, 11, 16}  # float, half, double, bfloat16
_WHOLE = {2, 3, 4, 5, 6, 7, 9, 12, 13}  # integers and bool


def _onnx() -> ModuleType:
    try:
        import onnx
        import onnx.inliner
        import onnx.numpy_helper
    except ImportError as error:
        raise MissingExtra("onnx", "onnx", "open .onnx files") from error
    return onnx


def open_onnx(path: Path, request: Request) -> Source:
    """An .onnx file as a source; `net.onnx#NAME` ends the network at a node or a value of that name.

    Raises:
        SourceError: the file cannot be read, uses an operator that is not read, or does not say its input.
        MissingExtra: the package onnx is not installed.
    """
    request.without_arch()
    model = _read(path)
    _check_operators(path, model)
    constants, learned = _values(path, model)
    name, shape, channels_last = _input(path, model, request)
    output = _output(path, model, request.uri.partition("#")[2])
    whole = OnnxGraph(name, shape, channels_last, tuple(_nodes(model)), (), constants, output)
    graph = _graph(without_counting(whole, single=_batch_of_one(model)), learned)
    spec = request.input_or(None, shape)
    arch_args = {"graph": graph.to_dict()}
    network, _ = build("onnx:graph", arch_args, seed=request.seed)
    if request.random_weights:
        return make_source(request.uri, "onnx:graph", arch_args, network, spec)
    report = _fill(network, graph, learned, str(path))
    origin = " ".join(part for part in (model.producer_name, model.producer_version) if part)
    return make_source(request.uri, "onnx:graph", arch_args, network, spec, origin=origin, report=report)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise SourceError(f"there is no file {path}. Pass one that ends in .onnx")
    if not path.stat().st_size:
        raise SourceError(f"{path} is empty. Copy or download it again")
    if path.stat().st_size > _MOST_BYTES:
        raise SourceError(f"{path} is larger than an .onnx file can be. Copy it again; weights may lie beside it")
    onnx = _onnx()
    try:
        model = onnx.load_model_from_string(path.read_bytes())
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        unshare(model)
    except Exception as error:  # protobuf's own classes, which differ between its versions
        raise SourceError(
            f"{path} is damaged or no .onnx file ({first_line(error)}). Copy or download it again, then pass {path}"
        ) from error
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if not model.graph.node or opset < _OLDEST:
        raise SourceError(
            f"{path} has {len(model.graph.node)} nodes of operator set {opset}, expected some of {_OLDEST} or later. "
            'Bring it up to date: python -c "import onnx, onnx.version_converter as v; onnx.save(v.convert_version('
            f"onnx.load('{path}'), 17), 'net17.onnx')\" and pass net17.onnx"
        )
    return model


def _check_operators(path: Path, model: Any) -> None:
    """All that is not read, at once."""
    found = Counter(
        node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}" for node in model.graph.node
    )
    unknown = {op: count for op, count in found.items() if op not in (*OPS, "Constant", "CastLike")}
    if unknown:
        raise SourceError(
            f"{path} uses operators that are not read here: "
            f"{', '.join(f'{op} ({count} times)' for op, count in sorted(unknown.items()))}. Quantised networks and "
            "those with branches or loops are not; others may do when exported anew with plain operators: "
            "torch.onnx.export(model, (example,), 'net.onnx')"
        )


def _values(path: Path, model: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Constants as plain JSON, and initialisers that are learned, by name."""
    if model.graph.sparse_initializer:
        raise SourceError(f"{path} holds sparse tensors, which are not read. Export it with dense ones")
    uses = _uses(model)
    constants, learned = {}, {}
    for tensor in model.graph.initializer:
        values = _array(path, tensor)
        is_learned = tensor.data_type in _REAL and values.ndim > 0 and uses.get(tensor.name) != {"steers"}
        if is_learned:
            learned[tensor.name] = values.astype(np.float32)
        else:
            constants[tensor.name] = packed(values)
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = packed(_constant(path, node))
    return constants, learned


def _uses(model: Any) -> dict[str, set[str]]:
    """What each value is to its readers."""
    uses: dict[str, set[str]] = {}
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            uses.setdefault(name, set()).add(_ROLES.get(node.op_type, {}).get(i, ""))
    return uses


def _array(path: Path, tensor: Any) -> np.ndarray:
    onnx = _onnx()
    if tensor.data_type not in _REAL | _WHOLE:
        raise SourceError(f"{path}: tensor {tensor.name!r} is of a type that is not read here. Export it in float32")
    try:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _fetch_external(path, tensor)
        return np.array(onnx.numpy_helper.to_array(tensor))
    except SourceError:
        raise
    except Exception as error:  # sizes that do not fit the bytes
        raise SourceError(
            f"{path}: tensor {tensor.name!r} is damaged ({first_line(error)}). Copy or download the file again"
        ) from error


def _fetch_external(path: Path, tensor: Any) -> None:
    """Weights that lie in a file of their own beside the graph."""
    where = {entry.key: entry.value for entry in tensor.external_data}
    name = where.get("location", "")
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise SourceError(
            f"{path} wants weights from {name!r}, expected a file beside it. Move it there, and export again"
        )
    file = path.parent / name
    if not file.is_file():
        raise SourceError(
            f"{path} keeps its weights in {name}, which is not there. Copy it too: cp {name} {path.parent}/"
        )
    offset, length = int(where.get("offset", 0)), int(where.get("length", file.stat().st_size))
    if offset < 0 or length < 0 or offset + length > file.stat().st_size:
        raise SourceError(f"{file} ends before the weights that {path.name} expects in it. Copy both files again")
    with file.open("rb") as opened:
        opened.seek(offset)
        tensor.raw_data = opened.read(length)
    tensor.data_location = 0


def _constant(path: Path, node: Any) -> np.ndarray:
    onnx = _onnx()
    value = onnx.helper.get_attribute_value(node.attribute[0]) if node.attribute else None
    if isinstance(value, onnx.TensorProto):
        return _array(path, value)
    if isinstance(value, int | float) or (isinstance(value, list) and all(isinstance(v, int | float) for v in value)):
        return np.array(value)
    raise SourceError(f"{path}: the constant {node.output[0]!r} is no number. Export the network again")


def _input(path: Path, model: Any, request: Request) -> tuple[str, tuple[int, int, int], bool]:
    """The input's name, one picture's (C, H, W), and whether the network takes channels last."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1 or not inputs[0].type.HasField("tensor_type"):
        raise SourceError(
            f"{path} takes {len(inputs)} inputs ({', '.join(value.name for value in inputs[:5])}), expected pictures "
            "alone. Export the part that takes pictures: torch.onnx.export(model.encoder, (pixels,), 'net.onnx')"
        )
    dims = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]  # 0 where it is free
    if len(dims) != 4:
        raise SourceError(f"{path} takes an input of shape {dims}, expected pictures (N, C, H, W) or (N, H, W, C)")
    channels_last = dims[1] not in (1, 3) and dims[3] in (1, 3)
    channels, height, width = (dims[3], dims[1], dims[2]) if channels_last else dims[1:]
    return inputs[0].name, request.size_or((channels, height, width)), channels_last


def _output(path: Path, model: Any, asked: str) -> str:
    if not asked:
        if not model.graph.output:
            raise SourceError(f"{path} names no output. Name a node: load_source('{path}#NODE', input=...)")
        return model.graph.output[0].name
    ends = {node.name: node.output[0] for node in model.graph.node if node.name and node.output}
    ends |= {name: name for node in model.graph.node for name in node.output if name}
    if asked not in ends:
        raise SourceError(
            f"{path} has no node or value {asked!r}.{closest(asked, ends)} Leave it out for the whole network"
        )
    return ends[asked]


def _nodes(model: Any) -> list[OnnxNode]:
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    single = _batch_of_one(model)
    taken: set[str] = set()
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Constant":
            continue
        name = _unique(node.name or next(iter(node.output), "") or node.op_type, taken)
        op, attributes = _modern(node, opset)
        inputs = list(node.input)
        while inputs and not inputs[-1]:
            inputs.pop()
        if node.op_type == "CastLike":
            inputs = inputs[:1]
        if node.op_type in ("Reshape", "Concat") and single:
            attributes["single"] = 1
        nodes.append(OnnxNode(name, op, tuple(inputs), tuple(node.output), attributes))
    return nodes


def _batch_of_one(model: Any) -> bool:
    """Whether the network was exported for a single picture: it then says 1 where it means N."""
    weights = {tensor.name for tensor in model.graph.initializer}
    pictures = next(value for value in model.graph.input if value.name not in weights)
    return pictures.type.tensor_type.shape.dim[0].dim_value == 1


def _unique(name: str, taken: set[str]) -> str:
    options = (name, *(f"{name}_{i}" for i in range(1, len(taken) + 2)))
    found = next(option for option in options if option not in taken)
    taken.add(found)
    return found


def _modern(node: Any, opset: int) -> tuple[str, dict[str, Any]]:
    """The operator and its attributes, as the operator sets from 13 on mean them."""
    attributes = {attribute.name: _plain(node, attribute) for attribute in node.attribute}
    if node.op_type in ("Softmax", "LogSoftmax", "Hardmax") and opset < 13:
        return f"{node.op_type}Flat", attributes
    if node.op_type in ("Cast", "CastLike"):
        to = attributes.get("to", 1)
        return "Cast", {"to": "float" if to in _REAL else "bool" if to == 9 else "int"}
    return node.op_type, attributes


def _plain(node: Any, attribute: Any) -> Any:
    onnx = _onnx()
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, onnx.TensorProto):  # of ConstantOfShape
        number = onnx.numpy_helper.to_array(value).reshape(-1)[:1].tolist()
        return number[0] if number else 0.0
    if isinstance(value, int | float) or (isinstance(value, list) and all(isinstance(v, int | float) for v in value)):
        return value
    raise SourceError(
        f"node {node.name!r} ({node.op_type}) has the attribute {attribute.name!r} of a kind not read here"
    )


def _needed(nodes: Sequence[OnnxNode], output: str) -> tuple[OnnxNode, ...]:
    """What leads to the output; a node that reads a later one stays, so that the cycle is reported."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    return tuple(reversed(kept))


def _graph(graph: OnnxGraph, learned: dict[str, np.ndarray]) -> OnnxGraph:
    """What leads to the output, with the tensors that the nodes read, each with its role."""
    nodes = _needed(graph.nodes, graph.output)
    read = {name for node in nodes for name in node.inputs}
    roles = dict(_roles(nodes))
    tensors = tuple(
        OnnxTensor(name, values.shape, roles.get(name) or ("weight" if values.ndim > 1 else "zeros"))
        for name, values in learned.items()
        if name in read
    )
    constants = {name: value for name, value in graph.constants.items() if name in read}
    return OnnxGraph(graph.input, graph.shape, graph.channels_last, nodes, tensors, constants, graph.output)


def _roles(nodes: Iterable[OnnxNode]) -> Iterator[tuple[str, str]]:
    for node in nodes:
        for i, name in enumerate(node.inputs):
            role = _ROLES.get(node.op, {}).get(i) or ("ones" if node.op == "Mul" else "")
            if role and role != "steers":
                yield name, role


def _fill(network: Any, graph: OnnxGraph, learned: dict[str, np.ndarray], uri: str) -> LoadReport:
    assert isinstance(network, OnnxNet)
    state = {network.paths[t.name]: torch.from_numpy(np.array(learned[t.name])) for t in graph.tensors}
    check_finite(state, uri)
    network.load_state_dict(state)
    used = {tensor.name for tensor in graph.tensors}
    return LoadReport(matched=tuple(state), unexpected=tuple(name for name in learned if name not in used))
