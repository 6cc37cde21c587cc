"""A program of ATen operations, wherever it was read from, as a source: what leads to its end, filled and tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regraft.errors import SourceError, closest
from regraft.source.arch import build
from regraft.source.graph.constants import packed
from regraft.source.match import check_finite
from regraft.source.pt2.batch import mended
from regraft.source.pt2.net import RE_EXPORT, Pt2Graph, Pt2Node, Pt2Tensor, reads
from regraft.source.pt2.ops import argument_names, op_name, writes
from regraft.source.request import Request
from regraft.source.source import LoadReport, Source, make_source
from regraft.spec import Spec

_MOST_CHECKED = 8  # pictures
# PyTorch's numbers of types, and what each becomes: networks compute in float32, whatever they were saved in.
DTYPES = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float32", 6: "float32", 7: "float32", 11: "bool",
    15: "float32",
}  # fmt: skip
_FLAGS = {
    "batch_norm": "training",
    "native_batch_norm": "training",
    "instance_norm": "use_input_stats",
} | dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout"), "train")


@dataclass(frozen=True)
class Stored:
    """A tensor of the file.

    Args:
        name: its path in the original network.
        value: its name in the graph.
        is_param: whether it is learnt.
        is_hidden: whether it is no part of the state dict.
        tensor: its values.
        first: the name of the first that shares its memory, its own where none does.
    """

    name: str
    value: str
    is_param: bool
    is_hidden: bool
    tensor: torch.Tensor
    first: str


@dataclass(frozen=True)
class Program:
    """What a file says of a network that takes pictures.

    Args:
        input: the input's name.
        shape: of one picture, (C, H, W).
        channels_last: whether it takes (N, H, W, C).
        nodes: its operations, in order.
        tensors: parameters, buffers and constants.
        output: the name of the value that it gives.
        made_for: the number of pictures of the example that it was made with, None where that is not known.
        is_fixed: whether it takes that number only, as it stands.
        origin: what made it, for people.
    """

    input: str
    shape: tuple[int, int, int]
    channels_last: bool
    nodes: list[Pt2Node]
    tensors: list[Stored]
    output: str
    made_for: int | None
    is_fixed: bool
    origin: str


def program_source(path: Path, program: Program, spec: Spec, request: Request) -> Source:
    """A program as a source, up to the module or value that the URI names after a #.

    Raises:
        SourceError: it cannot be computed, holds NaN, or its answer to one picture depends on how many there are.
    """
    output = _output(path, program, request.uri.partition("#")[2])
    nodes = _needed(program.nodes, output)
    read = {value for node in nodes for value in reads(node)}
    tensors = tuple(_described(program.tensors, _roles(nodes), read))
    graph = Pt2Graph(program.input, program.shape, program.channels_last, nodes, tensors, output)
    graph = mended(graph, program.made_for) if program.is_fixed and program.made_for else graph
    arch_args = {"graph": graph.to_dict()}
    network, _ = build("pt2:graph", arch_args, seed=request.seed)
    if request.random_weights:
        return make_source(request.uri, "pt2:graph", arch_args, network, spec)
    report = _fill(network, graph, program.tensors, str(path))
    _check_answer(network, graph, program.made_for)
    return make_source(request.uri, "pt2:graph", arch_args, network, spec, origin=program.origin, report=report)


def picture_axes(sides: Sequence[int]) -> tuple[int, int, int]:
    """Where (C, H, W) lie among the three sides of a picture: channels are one or three, and come last or first.

    Example:
        >>> picture_axes((224, 224, 3)), picture_axes((3, 224, 224))
        ((2, 0, 1), (0, 1, 2))
    """
    return (2, 0, 1) if sides[0] not in (1, 3) and sides[2] in (1, 3) else (0, 1, 2)


def in_evaluation(op: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an operation as they are in evaluation, whatever mode the program was made in.

    A norm that keeps no statistics takes those of its input in either mode.

    Example:
        >>> in_evaluation("dropout_", {"input": {"value": "x"}, "p": 0.5, "train": True})
        {'input': {'value': 'x'}, 'p': 0.5, 'train': False}
    """
    flag = _FLAGS.get(op.removesuffix("_"), "")
    found = dict(arguments)
    if flag in found and ("dropout" in op or found.get("running_mean") is not None):
        found[flag] = False
    if op == "scaled_dot_product_attention" and "dropout_p" in found:
        found["dropout_p"] = 0.0
    return found


def check_written(name: str) -> None:
    """Refuse a program that changes its own tensors, except for counters.

    Raises:
        SourceError: it does.
    """
    if not name.endswith("num_batches_tracked"):
        raise SourceError(
            f"the program writes into its own tensor {name!r}, which is not done here. Export it in eval mode: "
            f"{RE_EXPORT}"
        )


def _output(path: Path, program: Program, asked: str) -> str:
    """The value at which the network ends: what the program gives, or the one that was asked for."""
    if not asked:
        return program.output
    ends = {path: node.outputs[0] for node in program.nodes if node.outputs for path in node.modules}
    ends |= {name: name for node in program.nodes for name in node.outputs if name and name not in ends}
    if asked not in ends:
        raise SourceError(
            f"{path} has no module or value {asked!r}.{closest(asked, ends)} Leave it out for the whole network"
        )
    return ends[asked]


def _needed(nodes: list[Pt2Node], output: str) -> tuple[Pt2Node, ...]:
    """What leads to the output; also all that writes before it, as it may do so through a view."""
    wanted, kept = set(), []
    for node in reversed(nodes):
        if output in node.outputs or (wanted and (wanted.intersection(node.outputs) or writes(node.target))):
            wanted.update((*node.outputs, *reads(node)))
            kept.append(node)
    return tuple(reversed(kept))


def _described(tensors: list[Stored], roles: Mapping[str, str], read: set[str]) -> Iterator[Pt2Tensor]:
    """The tensors that the operations read, and the counters beside them, each with its role."""
    used = {tensor.first for tensor in tensors if tensor.value in read}
    homes = {name.rpartition(".")[0] for name in used}
    for stored in tensors:
        home, _, leaf = stored.name.rpartition(".")
        shape, role = tuple(stored.tensor.shape), roles.get(stored.value, "")
        if stored.first not in used:
            if leaf == "num_batches_tracked" and home in homes:
                yield Pt2Tensor(stored.name, stored.value, "counter", shape)
        elif stored.is_param:
            kind = role if role in ("zeros", "ones") else "weight" if len(shape) > 1 else "zeros"
            yield Pt2Tensor(
                stored.name, stored.value, kind, shape, twin=stored.first if stored.first != stored.name else ""
            )
        elif role in ("mean", "variance") and not stored.is_hidden:
            yield Pt2Tensor(stored.name, stored.value, role, shape)
        else:
            kind = "hidden" if stored.is_hidden else "constant"
            yield Pt2Tensor(stored.name, stored.value, kind, shape, packed(_array(stored.tensor)))


def _array(values: torch.Tensor) -> np.ndarray:
    return (values.float() if values.is_floating_point() else values).numpy()


def _roles(nodes: tuple[Pt2Node, ...]) -> dict[str, str]:
    """What a tensor is to the operation that reads it, where that says how a fresh one is filled."""
    named = {"running_mean": "mean", "running_var": "variance", "bias": "zeros"}
    roles: dict[str, str] = {}
    for node in nodes:
        op = op_name(node.target)
        for name, argument in [*zip(argument_names(node.target), node.args, strict=False), *node.kwargs.items()]:
            scales = op == "mul" or ("norm" in op and name == "weight")
            role = named.get(name) or ("ones" if scales else "")
            if role and isinstance(argument, Mapping) and "value" in argument:
                roles.setdefault(argument["value"], role)
    return roles


def _fill(network: Any, graph: Pt2Graph, tensors: list[Stored], uri: str) -> LoadReport:
    used = {tensor.name for tensor in graph.tensors if tensor.kind != "hidden"}
    state = {stored.name: stored.tensor for stored in tensors if stored.name in used}
    check_finite(state, uri)
    network.load_state_dict(state)
    known = {tensor.name for tensor in graph.tensors}
    left = tuple(stored.name for stored in tensors if stored.name not in known and not stored.is_hidden)
    return LoadReport(matched=tuple(state), unexpected=left)


def _check_answer(network: Any, graph: Pt2Graph, made_for: int | None) -> None:
    """Run it; a program has to give each picture the answer that it gave in the number it was made for."""
    n = made_for if made_for and made_for <= _MOST_CHECKED else 2
    pictures = torch.rand((n + 1, *graph.shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = network(pictures[:n])
        found = network(pictures)[:n] if made_for else wanted
    if not torch.allclose(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()), equal_nan=True):
        raise SourceError(
            f"the program was made for {made_for} pictures, and the answer to one depends on how many there are. "
            f"Export it for any number: {RE_EXPORT}"
        )
