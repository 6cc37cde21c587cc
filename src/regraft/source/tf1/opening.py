"""`model.ckpt` as a source: its graph, or its variables in a network of the user's own."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft.errors import SourceError, closest
from regraft.source.arch import build, canonical_arch
from regraft.source.graph import Builder, fragment, graph_source
from regraft.source.match import load_some, load_weights
from regraft.source.messages import parsed_text
from regraft.source.request import Request
from regraft.source.source import LoadReport, Source, make_source
from regraft.source.tf1.checkpoint import AVERAGE, Checkpoint, open_variables
from regraft.source.tf1.convert import Conversion
from regraft.source.tf1.graphdef import VARIABLES, Graph1, Op, find_end, find_input, parse_ref
from regraft.source.tf1.schema import messages
from regraft.source.tf1.table import is_table
from regraft.spec import InputSpec

_DATA = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")
_AVERAGES = "&averages"  # after the end tensor: take moving averages of the variables where there are any


@dataclass(frozen=True)
class Contents:
    """What a checkpoint holds, for people.

    Args:
        operations: (name, kind) of the graph, none where there is no `.meta`.
        variables: name and shape of the weights.
        ignored: the optimizer's slots, counters and other variables that are no weights.
        input: the operation through which examples enter, "" if unknown.
        size: (C, H, W) of an example, if the graph says it.
        end: where the network ends if nothing else is said, "" if unknown.
    """

    operations: tuple[tuple[str, str], ...]
    variables: dict[str, tuple[int, ...]]
    ignored: tuple[str, ...]
    input: str = ""
    size: tuple[int, int, int] | None = None
    end: str = ""


def is_tf1(path: Path) -> bool:
    """Whether a path is one of a checkpoint's files, their common prefix, or a folder of them."""
    if path.is_dir():
        return any(
            (path / "checkpoint").is_file() or found for found in (any(path.glob("*.index")), any(path.glob("*.meta")))
        )
    if path.suffix in (".meta", ".index") or _DATA.fullmatch(path.name) or path.name == "checkpoint":
        return True
    if not path.is_file():
        return any(path.with_name(path.name + suffix).is_file() for suffix in (".index", ".meta"))
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8))
        return is_table(file.read())


def prefix_of(path: Path) -> Path:
    """The common prefix of a checkpoint's files.

    Raises:
        SourceError: a folder that does not say which of its checkpoints is meant.
    """
    if path.is_dir():
        return _latest(path)
    if path.name == "checkpoint":
        return _latest(path.parent)
    data = _DATA.fullmatch(path.name)
    if data:
        return path.with_name(data.group(1))
    return path.with_suffix("") if path.suffix in (".meta", ".index") else path


def _latest(folder: Path) -> Path:
    """The checkpoint that the folder's `checkpoint` file names; the only one where there is no such file."""
    state = folder / "checkpoint"
    if state.is_file():
        text = state.read_bytes().decode("utf-8", "replace")
        found = parsed_text(messages()["CheckpointState"], text, str(state)).model_checkpoint_path
        # Written where the network was trained: only the name counts, and never a file of another folder.
        name = PurePosixPath(found.replace("\\", "/")).name
        if name:
            return folder / name
    prefixes = sorted({path.with_suffix("") for suffix in ("index", "meta") for path in folder.glob(f"*.{suffix}")})
    if len(prefixes) != 1:
        raise SourceError(
            f"{folder} has {len(prefixes)} checkpoints and no `checkpoint` file that names one. Pass one: "
            f"load_source('{prefixes[-1] if prefixes else folder / 'model.ckpt'}')"
        )
    return prefixes[0]


def open_tf1(path: Path, request: Request) -> Source:
    """A TensorFlow 1 checkpoint as a source.

    Args:
        path: one of its files, their prefix, or a folder with a `checkpoint` file.
        request: with `arch`, the variables go into that network; without, the `.meta` file's graph is the network, up
            to the tensor after the URI's # or, if there is none, up to the scores before softmax and loss.
            `#NAME&averages` takes the variables' moving averages.

    Raises:
        SourceError: a file is missing or damaged, or the graph has operations that are not read.
        MissingExtra: protobuf is not installed.
    """
    prefix = prefix_of(path)
    end, _, averages = fragment(request).partition("&")
    if averages and f"&{averages}" != _AVERAGES:
        raise SourceError(f"{request.uri} asks for {averages!r}; only {_AVERAGES!r} can follow the end tensor")
    if request.arch is not None:
        return _into_network(prefix, request, bool(averages))
    meta = prefix.with_name(prefix.name + ".meta")
    if not meta.is_file():
        open_variables(prefix)
        raise SourceError(
            f"there is no {meta}, so the variables do not say which network they belong to. Put it there, or "
            f"name a network of your own: load_source({request.uri!r}, arch='pkg.mod:callable')"
        )
    graph = Graph1.read(meta)
    return _graph_source(graph, prefix, request, end, averages=bool(averages))


def _graph_source(graph: Graph1, prefix: Path, request: Request, end: str, *, averages: bool) -> Source:
    reached = _end(graph, end)
    start = find_input(graph, reached[0] if reached else "")
    reached = reached or find_end(graph, start)
    spec = request.input_or(None, input_size(start, graph))
    assert isinstance(spec, InputSpec)
    checkpoint = _variables(graph, prefix, request)
    builder = Builder(start.name, spec.size, channels_last=_channels_last(start, graph))
    conversion = Conversion(graph, start, builder, checkpoint, averages=averages)
    value = conversion.value(reached)
    if not end and value.spatial and value.shape[2:] == (1, 1):  # scores as a picture of one pixel
        value = builder.add(f"{value.name}/scores", "reshape", [value], shape=[value.shape[1]])
    found = builder.graph(value)
    report = _report(checkpoint, conversion.used)
    return graph_source(request, "graph:tf1", found, builder.weights, None, report=report)


def _end(graph: Graph1, end: str) -> tuple[str, int] | None:
    if not end:
        return None
    ref = parse_ref(end)
    if ref[0] not in graph.ops:
        raise SourceError(
            f"{graph.path} has no operation {end!r}.{closest(ref[0], graph.ops)} `regraft inspect` lists all of them"
        )
    return ref


def _report(checkpoint: Mapping[str, np.ndarray], used: set[str]) -> LoadReport:
    weights = [name for name in checkpoint if not isinstance(checkpoint, Checkpoint) or checkpoint.is_weight(name)]
    return LoadReport(
        matched=tuple(name for name in checkpoint if name in used),
        unexpected=tuple(name for name in weights if name not in used),
        ignored=tuple(name for name in checkpoint if name not in used and name not in set(weights)),
    )


class _Blank(Mapping[str, np.ndarray]):
    """Variables of the shapes that a graph gives them, for networks with random weights."""

    def __init__(self, graph: Graph1) -> None:
        self._shapes = {op.name: op.shape() or [] for op in graph.ops.values() if op.op in VARIABLES}

    def __iter__(self) -> Any:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, name: str) -> np.ndarray:
        shape = self._shapes.get(name, [-1])
        if min(shape, default=0) < 0 or math.prod(shape) > 1 << 28:
            raise SourceError(
                f"the graph does not say the shape of {name!r}. Put the checkpoint's other files beside it"
            )
        return np.broadcast_to(np.float32(0), shape)


def _variables(graph: Graph1, prefix: Path, request: Request) -> Mapping[str, np.ndarray]:
    is_there = prefix.is_file() or prefix.with_name(prefix.name + ".index").is_file()
    return _Blank(graph) if request.random_weights and not is_there else open_variables(prefix)


def _channels_last(start: Op, graph: Graph1) -> bool:
    """Whether pictures enter as (H, W, C): what the placeholder's shape says, else the first layer that says it."""
    shape = start.shape() or []
    if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3, -1):
        return False
    if len(shape) == 4 and shape[3] in (1, 3):
        return True
    formats = (op.text("data_format") for op in graph.ops.values() if op.op in ("Conv2D", "MaxPool", "AvgPool"))
    return next((text for text in formats if text), "NHWC") != "NCHW"


def input_size(start: Op, graph: Graph1) -> tuple[int, int, int] | None:
    """(C, H, W) of what enters; None where the graph leaves it open.

    Rows of numbers are taken for square pictures of one or three channels where that is possible.
    """
    shape = (start.shape() or [])[1:]
    if not shape or any(not 0 < side < 1 << 20 for side in shape) or math.prod(shape) > 1 << 27:
        return None
    if len(shape) == 3:
        return tuple(shape[2:] + shape[:2] if _channels_last(start, graph) else shape)  # type: ignore[return-value]
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    for channels in (1, 3):
        side = math.isqrt(shape[0] // channels)
        if channels * side * side == shape[0]:
            return channels, side, side
    return (1, 1, shape[0]) if len(shape) == 1 else None


def contents(path: Path) -> Contents:
    """Operations and variables of a checkpoint.

    Raises:
        SourceError: a file is missing or damaged.
    """
    prefix = prefix_of(path)
    meta = prefix.with_name(prefix.name + ".meta")
    variables, ignored = {}, []
    if prefix.is_file() or prefix.with_name(prefix.name + ".index").is_file() or not meta.is_file():
        checkpoint = open_variables(prefix)
        variables = {name: checkpoint.shape(name) for name in checkpoint if checkpoint.is_weight(name)}
        ignored = [name for name in checkpoint if name not in variables]
    if not meta.is_file():
        return Contents((), variables, tuple(ignored))
    graph = Graph1.read(meta)
    operations = tuple((op.name, op.op) for op in graph.ops.values())
    try:
        start = find_input(graph)
        end, output = find_end(graph, start)
    except SourceError:  # the list is what helps then
        return Contents(operations, variables, tuple(ignored))
    return Contents(
        operations,
        variables,
        tuple(ignored),
        start.name,
        input_size(start, graph),
        end + (f":{output}" if output else ""),
    )


# variables into a network of PyTorch ------------------------------------------------------------------

_SPELLINGS = {
    "kernel": "weight",
    "weights": "weight",
    "depthwise_weights": "weight",
    "depthwise_kernel": "weight",
    "pointwise_weights": "weight",
    "bias": "bias",
    "biases": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def read_variables(uri: str, matching: str = "", *, averages: bool = False) -> dict[str, torch.Tensor]:
    """Variables of a checkpoint under PyTorch's names and in its layout, for a network of one's own.

    `scope/hidden1/kernel` becomes `scope.hidden1.weight`, its axes exchanged as `nn.Linear` and `nn.Conv2d` have them.

    Args:
        uri: one of the checkpoint's files, their prefix, or their folder.
        matching: a regular expression that the variable's name contains; "" takes all weights.
        averages: take moving averages where there are any.

    Raises:
        SourceError: a file is missing or damaged, or no variable matches.
    """
    checkpoint = open_variables(prefix_of(Path(uri).expanduser()))
    try:
        pattern = re.compile(matching)
    except re.error as error:
        raise SourceError(f"{matching!r} is no regular expression ({error}). For example: 'hidden[123]'") from error
    names = [name for name in checkpoint if checkpoint.is_weight(name) and pattern.search(name)]
    if not names:
        raise SourceError(
            f"no variable of {uri} matches {matching!r}.{closest(matching, checkpoint)} See regraft inspect"
        )
    return {_spelt(name): _laid(name, _value(checkpoint, name, averages)) for name in names}


def restore_variables(network: nn.Module, uri: str, matching: str = "", *, averages: bool = False) -> LoadReport:
    """Copy the variables of a checkpoint that match a pattern into a network of one's own; all else stays as it is.

    Scopes that the network does not have are left out: `dnn/hidden1/kernel` goes into `hidden1.weight`.

    Args:
        network: changed in place.
        uri: as for `read_variables`.
        matching: likewise.
        averages: likewise.

    Returns:
        What became of every tensor.

    Raises:
        SourceError: as `read_variables`, or a variable finds no place in the network.
    """
    return load_some(network, read_variables(uri, matching, averages=averages), uri=uri)


def _value(checkpoint: Checkpoint, name: str, averages: bool) -> np.ndarray:
    return checkpoint[name + AVERAGE if averages and name + AVERAGE in checkpoint else name]


def _spelt(name: str) -> str:
    scope, slash, last = name.rpartition("/")
    return (scope + slash + _SPELLINGS.get(last, last)).replace("/", ".")


def _laid(name: str, array: np.ndarray) -> torch.Tensor:
    last = name.rpartition("/")[2]
    if _SPELLINGS.get(last) == "weight" and array.ndim in (2, 4):
        if last.startswith("depthwise"):
            high, wide, inside, times = array.shape
            array = array.transpose(2, 3, 0, 1).reshape(inside * times, 1, high, wide)
        else:
            array = array.transpose((1, 0) if array.ndim == 2 else (3, 2, 0, 1))
    return torch.from_numpy(np.array(array, np.float32, order="C"))


def _into_network(prefix: Path, request: Request, averages: bool) -> Source:
    assert request.arch is not None
    model, spec = build(request.arch, seed=request.seed)
    report = None
    if not request.random_weights:
        checkpoint = open_variables(prefix)
        ignored = [name for name in checkpoint if not checkpoint.is_weight(name)]
        found = read_variables(str(prefix), averages=averages)
        report = load_weights(model, found, uri=request.uri, ignored=ignored)
    return make_source(request.uri, canonical_arch(request.arch), {}, model, request.input_or(spec), report=report)
