"""`.pt2` files of `torch.export.save`, read without `torch.export.load`, which may unpickle code and evaluate texts.

The archive is a zip: `models/NAME.json` is the graph, with typed arguments; `data/weights/` and `data/constants/` hold
raw bytes, and a JSON file each that says which tensor they are. Nothing in them is a program: pickles (sample inputs,
tensors of other classes, objects) are never opened, and size expressions never evaluated.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regraft.errors import SourceError
from regraft.source.archive import DAMAGE
from regraft.source.files import check_unpacked
from regraft.source.pt2.net import RE_EXPORT, Pt2Node
from regraft.source.pt2.ops import CHECKS, find_op, op_name, writes
from regraft.source.pt2.program import Program, Stored, check_written, in_evaluation, picture_axes, program_source
from regraft.source.request import Request
from regraft.source.source import Source
from regraft.source.strided import strided

_SCHEMA = 8  # the major version of the graph's form; later minor ones only add to it
_MOST_JSON = 1 << 28
# torch's numbers of types, and what each is here: networks compute in float32, whatever they were saved in.
_STORED = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
_REAL = (6, 7, 8, 13)
_FORMATS = {1: "contiguous_format", 2: "channels_last", 3: "channels_last_3d", 4: "preserve_format"}
_DAMAGE = (*DAMAGE, TypeError, AttributeError, StopIteration)


@dataclass(frozen=True)
class _Program:
    """The parts of a graph's JSON that are read."""

    nodes: list[dict[str, Any]]
    values: dict[str, Any]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    version: str


def is_program(path: Path) -> bool:
    """Whether a file is a program of torch.export, by its content; by its name where it is no whole zip."""
    if path.suffix == ".pt2":
        return True
    try:
        with zipfile.ZipFile(path) as archive:  # which fails at once where the file is no zip
            return any(re.fullmatch(r"([^/]+/)?(archive_format|serialized_exported_program\.json)", name)
                       for name in archive.namelist())  # fmt: skip
    except _DAMAGE:
        return False


def open_pt2(path: Path, request: Request) -> Source:
    """A .pt2 file as a source; `net.pt2#NAME` ends the network at a module or a value of that name.

    Raises:
        SourceError: the file cannot be read, uses an operation that is not let through, or does not say its input.
    """
    request.without_arch()
    if not path.is_file():
        raise SourceError(f"there is no file {path}. Pass one that torch.export.save wrote")
    check_unpacked(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _opened(path, _Archive(path, archive), request)
    except SourceError:
        raise
    except _DAMAGE as error:
        raise SourceError(
            f"{path} is damaged or no program of torch.export ({type(error).__name__}: {str(error)[:120]}). Copy or "
            f"download it again, or export it anew: {RE_EXPORT}"
        ) from error


def _opened(path: Path, archive: _Archive, request: Request) -> Source:
    program = archive.program()
    _check_operations(path, program)
    name, shape, channels_last, fixed = _input(path, program, request)
    spec = request.input_or(None, shape)
    tensors = _tensors(archive, program)
    origin = f"torch.export of PyTorch {program.version}" if program.version else ""
    outputs = [spec["user_output"]["arg"] for spec in program.outputs if "user_output" in spec]
    output = next(output["as_tensor"]["name"] for output in outputs if "as_tensor" in output)
    nodes = _nodes(program, tensors)
    found = Program(name, shape, channels_last, nodes, tensors, output, fixed, fixed is not None, origin)
    return program_source(path, found, spec, request)


class _Archive:
    """The members of the zip, found below the folder that it holds them in."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive
        models = [name for name in archive.namelist() if re.fullmatch(r"([^/]+/)?models/[^/]+\.json", name)]
        if len(models) != 1:
            raise SourceError(_other_layout(path, archive.namelist(), models))
        self._model = models[0]
        self._root, _, self._name = models[0].rpartition("models/")
        if f"{self._root}byteorder" in archive.namelist() and self._archive.read(f"{self._root}byteorder") != b"little":
            raise SourceError(f"{path} was saved on a big-endian machine. Export it on another: {RE_EXPORT}")

    def _json(self, name: str) -> dict[str, Any]:
        if self._archive.getinfo(name).file_size > _MOST_JSON:
            raise SourceError(f"{self._path} describes a network larger than any that is read here. Copy it again")
        found = json.loads(self._archive.read(name))
        if not isinstance(found, dict):
            raise ValueError(f"{name} holds no object")
        return found

    def program(self) -> _Program:
        """The graph, in the form that is read."""
        found = self._json(self._model)
        version = found["schema_version"]["major"]
        if version != _SCHEMA:
            raise SourceError(
                f"{self._path} was written by PyTorch {found.get('torch_version') or 'of another age'} in form "
                f"{version}, expected form {_SCHEMA} (PyTorch 2.8 and later). Export it anew: {RE_EXPORT}"
            )
        graph, signature = found["graph_module"]["graph"], found["graph_module"]["signature"]
        torch_version = str(found.get("torch_version") or "")[:40]
        return _Program(
            graph["nodes"], graph["tensor_values"], signature["input_specs"], signature["output_specs"], torch_version
        )

    def payloads(self, kind: str) -> dict[str, Any]:
        """What is said of each tensor of a kind: "weights" or "constants"."""
        name = f"{self._root}data/{kind}/{self._name.removesuffix('.json')}_{kind}_config.json"
        return self._json(name)["config"] if name in self._archive.namelist() else {}

    def tensor(self, name: str, payload: Mapping[str, Any], kind: str) -> torch.Tensor:
        """A tensor's values."""
        where, meta, file = f"{self._path}: tensor {name!r}", payload["tensor_meta"], payload["path_name"]
        if payload.get("use_pickle") or not re.fullmatch(r"(weight|tensor)_\d+", file):
            raise SourceError(
                f"{where} is an object of a class of its own (quantised, sparse or distributed), kept as a pickle, "
                f"which is not opened. Turn it into a plain tensor and export again: {RE_EXPORT}"
            )
        if meta["dtype"] not in _STORED or meta["layout"] != 7:
            raise SourceError(f"{where} is of a type that is not read here. Export it in float32: {RE_EXPORT}")
        sizes, strides, offset = ([_whole(n) for n in part] for part in
                                  (meta["sizes"], meta["strides"], [meta["storage_offset"]]))  # fmt: skip
        content = self._archive.read(f"{self._root}data/{kind}/{file}")
        return strided(content, _STORED[meta["dtype"]], sizes, strides, offset[0], where)


def _other_layout(path: Path, names: list[str], models: list[str]) -> str:
    if any("aotinductor" in name for name in names):
        what = "is machine code compiled from a program, without its graph"
    elif any(name.endswith("serialized_exported_program.json") for name in names):
        what = "is in the layout of PyTorch before 2.8, which is not read"
    else:
        what = f"holds {len(models)} programs, expected one"
    return (
        f"{path} {what}. Where you trust its maker, write it anew with a current PyTorch: "
        f"torch.export.save(torch.export.load('{path}'), 'net.pt2'); or export the network: {RE_EXPORT}"
    )


def _whole(size: Mapping[str, Any]) -> int:
    found = size["as_int"]
    if not isinstance(found, int):
        raise TypeError(f"a size is {found!r}")
    return found


# what is in the way -----------------------------------------------------------------------------------


def _check_operations(path: Path, program: _Program) -> None:
    """All that is not let through, at once."""
    found = Counter(node["target"] for node in program.nodes)
    unknown = {name: count for name, count in found.items() if name not in CHECKS and find_op(name) is None}
    if unknown:
        listed = ", ".join(f"{name[:80]} ({count} times)" for name, count in sorted(unknown.items())[:20])
        raise SourceError(
            f"{path} uses operations that are not read here: {listed}. Chance, branches, loops and operators of other "
            f"libraries are not; what only training needs goes away with model.eval() before {RE_EXPORT}"
        )


def _input(path: Path, program: _Program, request: Request) -> tuple[str, tuple[int, int, int], bool, int | None]:
    """The input's name, one picture's (C, H, W), whether channels come last, and a fixed number of pictures."""
    users = [spec["user_input"]["arg"] for spec in program.inputs if "user_input" in spec]
    if len(users) != 1 or "as_tensor" not in users[0]:
        raise SourceError(
            f"{path} takes {len(users)} inputs, expected pictures alone. Export the part that takes pictures: "
            f"{RE_EXPORT}"
        )
    name = users[0]["as_tensor"]["name"]
    meta = program.values[name]
    sizes = [_free_or(size) for size in meta["sizes"]]
    if len(sizes) != 4 or meta["dtype"] not in _REAL:
        raise SourceError(
            f"{path} takes an input of {len(sizes)} axes and type {meta['dtype']}, expected pictures (N, C, H, W) or "
            f"(N, H, W, C) of floats. Export the part that takes such: {RE_EXPORT}"
        )
    axes = picture_axes([size for _, size in sizes[1:]])
    picture = [sizes[1 + axis] for axis in axes]
    size = request.size_or([said for said, _ in picture], (picture[0][1], picture[1][1], picture[2][1]))
    fixed = sizes[0][0]
    return name, size, axes != (0, 1, 2), fixed or None


def _free_or(size: Mapping[str, Any]) -> tuple[int, int]:
    """An axis of the input: its size, 0 where it is free, and its size in the example."""
    if "as_int" in size:
        return _whole(size), _whole(size)
    return 0, _whole(size["as_expr"].get("hint") or {"as_int": 2})


# the graph --------------------------------------------------------------------------------------------


def _tensors(archive: _Archive, program: _Program) -> list[Stored]:
    payloads = {"weights": archive.payloads("weights"), "constants": archive.payloads("constants")}
    firsts: dict[str, str] = {}
    found = []
    for spec in program.inputs:
        kind, content = next(iter(spec.items()))
        if kind not in ("parameter", "buffer", "tensor_constant"):
            continue
        name = content[f"{kind}_name"]
        where = "weights" if name in payloads["weights"] else "constants"
        payload = payloads[where][name]
        is_param = kind == "parameter" and payload["tensor_meta"]["dtype"] in _REAL
        first = firsts.setdefault(_memory(payload), name) if is_param else name
        hidden = kind == "tensor_constant" or content.get("persistent") is False
        tensor = archive.tensor(name, payload, where)
        found.append(Stored(name, content["arg"]["name"], is_param, hidden, tensor, first))
    return found


def _memory(payload: Mapping[str, Any]) -> str:
    """Where a tensor's numbers lie: the same for tensors that are one."""
    return json.dumps([payload["path_name"], payload["tensor_meta"]], sort_keys=True)


def _nodes(program: _Program, tensors: list[Stored]) -> list[Pt2Node]:
    stored = {tensor.value: tensor.name for tensor in tensors}
    nodes = []
    for node in program.nodes:
        if node["target"] in CHECKS:
            continue
        args = {argument["name"]: argument for argument in node["inputs"]}
        first = next(iter(args.values()), {}).get("arg", {}).get("as_tensor", {}).get("name")
        if writes(node["target"]) and first in stored:
            check_written(stored[first])
            continue
        nodes.append(_node(node, args))
    return nodes


def _node(node: Mapping[str, Any], arguments: Mapping[str, Any]) -> Pt2Node:
    """One operation in evaluation, whatever mode it was exported in."""
    given = {str(name): _argument(argument["arg"]) for name, argument in arguments.items()}
    args, kwargs = [], {}
    for name, value in in_evaluation(op_name(node["target"]), given).items():
        if arguments[name].get("kind") == 2:
            kwargs[name] = value
        else:
            args.append(value)
    outputs = tuple(name for output in node["outputs"] for name in _names(output))
    return Pt2Node(node["target"], _modules(node.get("metadata") or {}), tuple(args), kwargs, outputs)


def _modules(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The paths of the modules around an operation; a module's second call is marked with an @."""
    entries = [entry.split(",", 2) for entry in (metadata.get("nn_module_stack") or "").split(";")]
    paths = [entry[1].partition("@")[0] for entry in entries if len(entry) == 3]
    return tuple(path for path in paths if path and not path.startswith("_empty_nn_module_stack"))


def _names(output: Mapping[str, Any]) -> list[str]:
    kind, value = next(iter(output.items()))
    if kind == "as_tensors":
        return [entry["name"] for entry in value]
    return [value["name"] if kind == "as_tensor" else value["as_name"] if kind.startswith("as_sym") else ""]


def _argument(argument: Mapping[str, Any]) -> Any:
    """A typed argument as plain JSON (see `Pt2Node`)."""
    kind, value = next(iter(argument.items()))
    if kind in ("as_optional_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"):
        return _either(value)
    if kind in ("as_optional_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools"):
        return [_either(inner) for inner in value]
    if kind == "as_tensor":
        return {"value": value["name"]}
    if kind == "as_tensors":
        return [{"value": inner["name"]} for inner in value]
    if kind in ("as_none", "as_layout"):
        return None
    if kind == "as_device":
        return {"device": 0}
    if kind == "as_scalar_type":
        return {"dtype": "float32" if value in _REAL else str(_STORED[value]).removeprefix("torch.")}
    if kind == "as_memory_format":
        return {"memory_format": _FORMATS[value]}
    return _plain(kind, value)


def _either(value: Mapping[str, Any]) -> Any:
    """A value of the graph or a plain one."""
    kind, inner = next(iter(value.items()))
    return {"value": inner} if kind == "as_name" else _argument(value)


_PLAIN = {"as_int": int, "as_bool": bool, "as_string": str}


def _plain(kind: str, value: Any) -> Any:
    if kind in ("as_float", "as_floats"):
        return [_float(inner) for inner in value] if kind == "as_floats" else _float(value)
    wanted, values = _PLAIN[kind.removesuffix("s")], value if kind.endswith("s") else [value]
    if not all(isinstance(inner, wanted) for inner in values):
        raise TypeError(f"{kind} is {value!r}")
    return value


def _float(value: Any) -> Any:
    return {"float": str(float(value))} if isinstance(value, str) else float(value)
