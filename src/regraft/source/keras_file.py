"""Keras files: `.keras` (Keras 3) and `.h5` (Keras 2 and 3), read without Keras.

A config is data and so are the weights: layers that carry code (`Lambda`) or that are a user's own are refused by
name. Chollet and others: Keras, 2015, https://keras.io
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from regraft.errors import MissingExtra, SourceError
from regraft.source.graph import Builder, Graph, Value, graph_source
from regraft.source.graph.opening import left_over
from regraft.source.keras_layers import RULES, Layer, add_layer
from regraft.source.request import Request
from regraft.source.source import LoadReport, Source
from regraft.spec import InputSpec

SUFFIXES = (".keras", ".h5", ".hdf5")
_MODELS = ("Functional", "Model", "Sequential")
_MOST_LAYERS, _DEEPEST = 5_000, 8
_GROWTH, _SLACK = 20, 64 << 20  # weights hardly shrink in a zip or in HDF5's own compression
Weights = Callable[[Sequence[tuple[str, str]]], list[np.ndarray]]


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra("h5py", "keras", "open files of Keras") from error
    return h5py


@dataclass(frozen=True)
class _File:
    """A file's architecture and its weights.

    Args:
        path: for messages.
        config: the model's.
        weights: values of the layer at a path of (name, place in the store), outermost first.
        version: of Keras, 2 or 3.
    """

    path: Path
    config: Mapping[str, Any]
    weights: Weights
    version: int


def open_keras(path: Path, request: Request) -> Source:
    """A `.keras` or `.h5` file as a source.

    Raises:
        SourceError: the file cannot be read, holds layers that are not read, or does not say its input.
        MissingExtra: h5py is not installed.
    """
    request.without_arch()
    try:
        with _opened(path) as (file, h5):
            builder, output = _network(file, request)
            weights, names = dict(builder.weights), _stored_names(h5)
    except SourceError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, RecursionError, OverflowError) as error:
        raise _damaged(path, error) from error
    graph = builder.graph(output)
    used = _used(graph)
    report = LoadReport(
        matched=used, unexpected=left_over(graph, weights), ignored=tuple(n for n in names if "optim" in n)
    )
    return graph_source(request, "graph:keras", graph, weights, _spec(file, builder), report=report)


def _used(graph: Graph) -> tuple[str, ...]:
    return tuple(tensor.name for tensor in graph.tensors)


def _damaged(path: Path, error: Exception) -> SourceError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
    return SourceError(
        f"{path} is damaged, or no whole file of Keras ({type(error).__name__}: {reason}). Copy or download it again; "
        f"Keras writes one with model.save('{path.stem}.keras')"
    )


class _opened:  # noqa: N801  (a context manager that reads as a function)
    """(what the file says, the HDF5 file with its weights), closed again at the end."""

    def __init__(self, path: Path) -> None:
        self._path, self._h5 = path, None

    def __enter__(self) -> tuple[_File, Any]:
        with self._path.open("rb") as file:
            is_zip = file.read(2) == b"PK"
        if is_zip:
            config, stored = _unzipped(self._path)
            self._h5 = _h5py().File(io.BytesIO(stored), "r")
            return _File(self._path, config, _by_place(self._h5, self._path), 3), self._h5
        self._h5 = _h5py().File(self._path, "r")
        config, version = _legacy(self._h5, self._path)
        return _File(self._path, config, _by_name(self._h5, self._path), version), self._h5

    def __exit__(self, *error: object) -> None:
        if self._h5 is not None:
            self._h5.close()


def _unzipped(path: Path) -> tuple[dict[str, Any], bytes]:
    """config.json and model.weights.h5 of a .keras file."""
    limit = _GROWTH * path.stat().st_size + _SLACK
    try:
        with zipfile.ZipFile(path) as archive:
            config = _json(_member(archive, "config.json", limit), path)
            return config, _member(archive, "model.weights.h5", limit)
    except (zipfile.BadZipFile, KeyError, zlib.error, EOFError, NotImplementedError) as error:
        raise _damaged(path, error) from error


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    if archive.getinfo(name).file_size > limit:
        raise ValueError(f"{name} would unpack to more than {limit:,} bytes")
    with archive.open(name) as file:
        return file.read(limit)


def _json(text: str | bytes, path: Path) -> dict[str, Any]:
    found = json.loads(text)
    if (
        not isinstance(found, dict)
        or found.get("class_name") not in _MODELS
        or not isinstance(found.get("config"), dict)
    ):
        kind = found.get("class_name") if isinstance(found, dict) else type(found).__name__
        raise SourceError(
            f"{path} holds a {kind!r}, expected a Sequential or Functional model: a class of a user's own carries "
            "code. Rebuild it with keras.Model(inputs, outputs) and save that: model.save('net.keras')"
        )
    return found


def _legacy(h5: Any, path: Path) -> tuple[dict[str, Any], int]:
    if "model_config" not in h5.attrs:
        raise SourceError(
            f"{path} holds weights alone, or is no file of Keras. Save the whole model: model.save('net.keras')"
        )
    version = h5.attrs.get("keras_version", "2")
    version = version.decode() if isinstance(version, bytes) else str(version)
    return _json(h5.attrs["model_config"], path), 3 if version.startswith("3") else 2


def _values(data: Any, path: Path) -> np.ndarray:
    """A data set, if it lies in this file and is as large as its bytes allow."""
    if not isinstance(data, _h5py().Dataset) or data.is_virtual or data.external:
        raise SourceError(f"{path} keeps weights in another file, which is not opened. Save it whole: model.save(...)")
    if data.nbytes > _GROWTH * path.stat().st_size + _SLACK:
        raise ValueError(f"{data.name} claims {data.nbytes:,} bytes")
    values = np.asarray(data[()])
    return values.astype(np.float32) if values.dtype.kind in "fiu" else np.zeros(0, np.float32)


def _inside(group: Any, name: str) -> Any:
    """A member of a group, if it is no link to elsewhere; None if there is none."""
    if name not in group:
        return None
    if not isinstance(group.get(name, getlink=True), _h5py().HardLink):
        raise ValueError(f"{name!r} is a link")
    return group[name]


def _by_place(h5: Any, path: Path) -> Weights:
    """In a .keras file, layers stand under their class and number: layers/conv2d_1/vars/0."""

    def weights(where: Sequence[tuple[str, str]]) -> list[np.ndarray]:
        group = h5
        for _, place in where:
            for part in ("layers", place):
                group = _inside(group, part) if group is not None else None
        variables = _inside(group, "vars") if group is not None else None
        count = len(variables) if variables is not None else 0
        return [_values(_inside(variables, str(i)), path) for i in range(count)]

    return weights


def _by_name(h5: Any, path: Path) -> Weights:
    """In a .h5 file, layers stand under their name, with the list of their weights beside them."""
    store = _inside(h5, "model_weights")

    def weights(where: Sequence[tuple[str, str]]) -> list[np.ndarray]:
        group = _inside(store, where[0][0]) if store is not None else None
        if group is None:
            return []
        names = [n.decode() if isinstance(n, bytes) else str(n) for n in group.attrs.get("weight_names", ())]
        if len(where) > 1:
            names = [name for name in names if name.split("/")[-2:-1] == [where[-1][0]]]
        return [_values(_follow(group, name), path) for name in names]

    return weights


def _follow(group: Any, name: str) -> Any:
    for part in name.split("/"):
        group = _inside(group, part)
    return group


def _stored_names(h5: Any) -> list[str]:
    return list(h5)


def _network(file: _File, request: Request) -> tuple[Builder, Value]:
    _check_kinds(file)
    channels, height, width = _shape(file, request)
    builder = Builder("input", (channels, height, width), channels_last=True)
    return builder, _model(builder, file, file.config, (), builder.input)


def _each_layer(config: Mapping[str, Any], depth: int = 0) -> Iterator[Mapping[str, Any]]:
    if depth > _DEEPEST:
        raise ValueError("models inside models without end")
    for layer in config["config"]["layers"]:
        if layer["class_name"] in _MODELS:
            yield from _each_layer(layer, depth + 1)
        else:
            yield layer


def _check_kinds(file: _File) -> None:
    """All that is not read, at once."""
    layers = list(_each_layer(file.config))
    found = Counter(_kind(layer) for layer in layers)
    unknown = {kind: count for kind, count in found.items() if kind not in (*RULES, "InputLayer")}
    if unknown or len(layers) > _MOST_LAYERS:
        raise SourceError(
            f"{file.path} has layers that are not read: "
            f"{', '.join(f'{kind} ({count} times)' for kind, count in sorted(unknown.items())) or len(layers)}. Lambda "
            "and classes of a user's own carry code, which is not run. Rebuild the model of plain layers, or convert "
            "it with tf2onnx: load_source('net.onnx', input=...)"
        )


def _kind(layer: Mapping[str, Any]) -> str:
    """A layer's class; with its module in front where that is not Keras's own."""
    module, kind = str(layer.get("module") or ""), str(layer["class_name"])
    theirs = not module or module.startswith(("keras.layers", "keras.src.layers", "keras.engine", "keras.models"))
    return kind if theirs and layer.get("registered_name") in (None, kind) else f"{module}.{kind}"


def _shape(file: _File, request: Request) -> tuple[int, int, int]:
    """(C, H, W) of the input: what the file says, and where it says any size, what was asked for."""
    found = next(filter(None, map(_batch_shape, _each_layer(file.config))), None)
    if found is None:
        found = [None, *(_batch_shape({"config": file.config["config"]}) or [None, None, None, 3])[1:]]
    if len(found) != 4:
        raise SourceError(f"{file.path} takes an input of shape {found}, expected pictures (None, H, W, C)")
    height, width, channels = found[1:]
    asked = request.input.size if request.input else (channels or 3, height or 224, width or 224)
    if not request.input and not (height and width):
        request.input_or(None, asked)  # says what is missing
    wrong = [n for n, m in zip((channels, height, width), asked, strict=True) if n and n != m]
    if wrong:
        raise SourceError(
            f"{file.path} takes pictures of (C, H, W) = {(channels, height, width)}, asked for {tuple(asked)}. Pass "
            f"input=InputSpec(size=({channels}, {height}, {width}))"
        )
    return int(asked[0]), int(asked[1]), int(asked[2])


def _batch_shape(layer: Mapping[str, Any]) -> list[Any] | None:
    config = layer["config"]
    shape = config.get("batch_shape") or config.get("batch_input_shape") or config.get("build_input_shape")
    return list(shape) if isinstance(shape, list) else None


def _model(builder: Builder, file: _File, model: Mapping[str, Any], where: tuple, x: Value) -> Value:
    """A model's layers applied to one input."""
    entries = _placed(model["config"]["layers"], where)
    if model["class_name"] == "Sequential":
        for layer, path in entries:
            x = _apply(builder, file, layer, path, [x])
        return x
    return _functional(builder, file, model["config"], entries, x)


def _placed(layers: Sequence[Mapping[str, Any]], where: tuple) -> list[tuple[Mapping[str, Any], tuple]]:
    """Each layer with its path of (name, place in the store)."""
    counts: Counter[str] = Counter()
    placed = []
    for layer in layers:
        place = _snake(str(layer["class_name"]))
        number = counts[place]
        counts[place] += 1
        name = str(layer.get("name") or layer["config"].get("name") or place)
        placed.append((layer, (*where, (name, f"{place}_{number}" if number else place))))
    return placed


def _snake(name: str) -> str:
    """As Keras names the place of a class of layers in its store: BatchNormalization, batch_normalization."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _apply(builder: Builder, file: _File, layer: Mapping[str, Any], path: tuple, inputs: list[Value]) -> Value:
    if layer["class_name"] == "InputLayer":
        return inputs[0]
    if layer["class_name"] in _MODELS:
        return _model(builder, file, layer, path, inputs[0])
    name = "/".join(name for name, _ in path)
    return add_layer(builder, Layer(name, _kind(layer), layer["config"], file.weights(path), file.version), inputs)


Call = tuple[str, int]


def _functional(builder: Builder, file: _File, config: Mapping[str, Any], entries: list, x: Value) -> Value:
    """Layers whose inputs are there, again and again, until the output is."""
    known: dict[Call, Value] = {_ends(config["input_layers"])[0]: x}
    if len(_ends(config["input_layers"])) != 1:
        raise SourceError(
            f"{file.path} takes several inputs, expected pictures alone. Save the part that takes pictures"
        )
    waiting = [
        ((path[-1][0], i), layer, path, sources)
        for layer, path in entries
        for i, sources in enumerate(map(_sources, layer.get("inbound_nodes") or ()))
    ]
    output = _ends(config["output_layers"])[0]
    while waiting and output not in known:
        ready = [call for call in waiting if all(source in known for source in call[3])]
        if not ready:
            break
        for call, layer, path, sources in ready:
            if call not in known:
                known[call] = _apply(builder, file, layer, path, [known[source] for source in sources])
        done = {id(call) for call in ready}
        waiting = [call for call in waiting if id(call) not in done]
    if output not in known:
        raise SourceError(f"{file.path}: nothing leads from its input to {output[0]!r}; the graph has a cycle or a gap")
    return known[output]


def _ends(value: Any) -> list[Call]:
    """`["conv", 0, 0]`, or a list of such."""
    value = [value] if value and isinstance(value[0], str) else value
    return [(str(end[0]), int(end[1])) for end in value]


def _sources(node: Any) -> list[Call]:
    """The calls whose results a call reads: in Keras 3 as tensors among its arguments, in Keras 2 as a list."""
    if isinstance(node, Mapping):
        return list(_histories([node.get("args"), node.get("kwargs")]))
    return [(str(entry[0]), int(entry[1])) for entry in node]


def _histories(value: Any) -> Iterator[Call]:
    if isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__":
        history = value["config"]["keras_history"]
        yield str(history[0]), int(history[1])
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _histories(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _histories(inner)


def _spec(file: _File, builder: Builder) -> InputSpec | None:
    """A network that begins by scaling pixels takes them from 0 to 255; any other says nothing."""
    kinds = [layer for layer in _each_layer(file.config) if layer["class_name"] != "InputLayer"]
    first = kinds[0] if kinds else {"class_name": "", "config": {}}
    scale = first["config"].get("scale")
    if first["class_name"] != "Rescaling" or not isinstance(scale, float) or scale > 0.02:
        return None
    channels = builder.shape[0]
    return InputSpec(
        builder.shape, (0.0,) * channels, (1 / 255,) * channels, interpolation="bilinear", crop_mode="squash"
    )
