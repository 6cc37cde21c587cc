"""Keras files: `.keras` (Keras 3) and `.h5` (Keras 2 and 3), read without Keras.

A config is data and so are the weights: layers that carry code (`Lambda`) or that are a user's own are refused by
name. Chollet and others: Keras, 2015, https://keras.io
"""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regraft.errors import SourceError, first_line
from regraft.source.graph import Builder, Value, graph_source
from regraft.source.graph.opening import left_over
from regraft.source.hdf5 import Hdf5, read_hdf5
from regraft.source.keras_layers import RULES, Layer, add_layer
from regraft.source.request import Request
from regraft.source.source import LoadReport, Source
from regraft.spec import InputSpec

SUFFIXES = (".keras", ".h5", ".hdf5")
_MODELS = ("Functional", "Model", "Sequential")
_MOST_LAYERS, _DEEPEST = 5_000, 8
_GROWTH, _SLACK = 20, 64 << 20  # weights hardly shrink in a zip
Weights = Callable[[Sequence[tuple[str, str]]], list[np.ndarray]]


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
        file = _opened(path)
        builder, output = _network(file, request)
        spec = _spec(file, builder)
    except (
        OSError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        RecursionError,
        OverflowError,
    ) as error:
        raise _damaged(path, error) from error
    graph = builder.graph(output)
    report = LoadReport(
        matched=tuple(tensor.name for tensor in graph.tensors), unexpected=left_over(graph, builder.weights)
    )
    return graph_source(request, "graph:keras", graph, builder.weights, spec, report=report)


def _damaged(path: Path, error: Exception) -> SourceError:
    return SourceError(
        f"{path} is damaged, or no whole file of Keras ({type(error).__name__}: {first_line(error)}). Copy or "
        f"download it again; Keras writes one with model.save('{path.stem}.keras')"
    )


def _opened(path: Path) -> _File:
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if not is_zip:
        return _legacy(read_hdf5(path), path)
    config, stored = _unzipped(path)
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder) / f"{path.stem}.weights.h5"
        inside.write_bytes(stored)
        return _File(path, config, _by_place(read_hdf5(inside)), 3)


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


def _legacy(h5: Hdf5, path: Path) -> _File:
    about = h5.texts[""]
    if "model_config" not in about:
        raise SourceError(
            f"{path} holds weights alone, or is no file of Keras. Save the whole model: model.save('net.keras')"
        )
    version = 3 if str(about.get("keras_version", "2")).startswith("3") else 2
    return _File(path, _json(about["model_config"], path), _by_name(h5), version)


def _by_place(h5: Hdf5) -> Weights:
    """In a .keras file, layers stand under their class and number: layers/conv2d_1/vars/0."""

    def weights(where: Sequence[tuple[str, str]]) -> list[np.ndarray]:
        inside = "".join(f"layers/{place}/" for _, place in where) + "vars/"
        count = sum(name.startswith(inside) for name in h5.values)
        return [h5.values[f"{inside}{i}"] for i in range(count)]

    return weights


def _by_name(h5: Hdf5) -> Weights:
    """In a .h5 file, layers stand under their name, with the list of their weights beside them."""

    def weights(where: Sequence[tuple[str, str]]) -> list[np.ndarray]:
        group = f"model_weights/{where[0][0]}"
        names = h5.texts.get(group, {}).get("weight_names", [])
        if len(where) > 1:
            names = [name for name in names if name.split("/")[-2:-1] == [where[-1][0]]]
        return [h5.values[f"{group}/{name}"] for name in names]

    return weights


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
    return request.size_or((channels, height, width))


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
