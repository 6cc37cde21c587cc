"""Keras: files of both formats give what Keras gave, under Keras's names, without Keras, and without running code."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from damage import mutations
from regraft.cut import join, split, trace
from regraft.errors import MissingExtra, SourceError
from regraft.source import build, hdf5, load_source, with_random_weights
from regraft.spec import InputSpec

h5py = pytest.importorskip("h5py")

HERE = Path(__file__).parent / "fixtures" / "keras"
FILES = ["plain.keras", "plain.h5", "branched.keras", "branched.h5"]
SPEC = InputSpec(size=(3, 32, 32))


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(HERE / "outputs.npz") as file:
        return dict(file)


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_the_outputs_of_keras_and_can_be_cut_and_rebuilt(name: str, stored: dict[str, np.ndarray]) -> None:
    source = load_source(str(HERE / name), input=SPEC)
    x = torch.from_numpy(stored["x"]) / (1 if name.startswith("plain") else 255)
    wanted = torch.from_numpy(stored[name.partition(".")[0]])
    found = source.model(x).detach()
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-4
    assert source.report is not None and source.report.complete
    traced = trace(source.model, torch.zeros(2, 3, 32, 32))
    assert not traced.fallback_reason and len(traced.cuts) > 5
    for cut in traced.cuts:
        assert torch.equal(join(*split(traced, cut))(x), found)
    again, _ = build(source.arch, json.loads(json.dumps(source.arch_args)))
    again.load_state_dict(source.model.state_dict())
    assert torch.equal(again(x), found)


def test_both_formats_hold_the_same_network_under_the_same_names() -> None:
    for name in ("plain", "branched"):
        one, two = (load_source(str(HERE / f"{name}.{suffix}"), input=SPEC) for suffix in ("keras", "h5"))
        assert one.weights_digest == two.weights_digest
    plain = load_source(str(HERE / "plain.keras"), input=SPEC)
    assert {"first/kernel", "first/bias", "answer/kernel"} <= plain.model.state_dict().keys()
    assert trace(plain.model, torch.zeros(2, 3, 32, 32)).cut("first").shape == (4, 30, 30)
    branched = load_source(str(HERE / "branched.h5"), input=SPEC).model
    assert any(name.startswith("inner/conv2d") for name in branched.state_dict())


def test_a_network_that_scales_pixels_says_its_input() -> None:
    told = load_source(str(HERE / "plain.keras")).input
    assert told.size == (3, 32, 32) and told.mean == (0.0,) * 3 and told.std == (1 / 255,) * 3
    with pytest.raises(SourceError, match=r"does not say what input.*size=\(3, 32, 32\)"):
        load_source(str(HERE / "branched.keras"))
    with pytest.raises(SourceError, match=r"takes pictures of \(C, H, W\) = \(3, 32, 32\), asked for \(3, 64, 64\)"):
        load_source(str(HERE / "plain.keras"), input=InputSpec(size=(3, 64, 64)))


def test_it_can_be_trained_and_has_a_random_twin() -> None:
    source = load_source(str(HERE / "branched.keras"), input=SPEC)
    source.model(torch.rand(2, 3, 32, 32)).log().sum().backward()
    assert all(p.grad is not None for p in source.model.parameters())
    assert with_random_weights(source, seed=1).weights_digest != source.weights_digest


def changed(name: str, where: Path, change: Any) -> Path:
    """A copy of a .keras file with another config."""
    with zipfile.ZipFile(HERE / name) as old, zipfile.ZipFile(where, "w") as new:
        config = json.loads(old.read("config.json"))
        change(config)
        new.writestr("config.json", json.dumps(config))
        new.writestr("model.weights.h5", old.read("model.weights.h5"))
    return where


def _lambda(config: Any) -> None:
    config["config"]["layers"][2] |= {"class_name": "Lambda"}
    config["config"]["layers"][2]["config"]["function"] = {"class_name": "__lambda__", "config": {"code": "4wEAAAA="}}


def _own(config: Any) -> None:
    config["config"]["layers"][2] |= {"module": "my_layers", "registered_name": "My>Conv"}


def _model_class(config: Any) -> None:
    config["class_name"] = "MyModel"


def _deep(config: Any) -> None:
    for _ in range(30):
        inner = {"class_name": "Sequential", "config": dict(config["config"]), "name": "again"}
        config["config"] = {"layers": [inner]}


def _cycle(config: Any) -> None:
    layers = {layer["name"]: layer for layer in config["config"]["layers"]}
    first, last = layers["batch_normalization"], config["config"]["layers"][-1]
    history = first["inbound_nodes"][0]["args"][0]["config"]
    history["keras_history"] = [last["name"], 0, 0]


def _filters(config: Any) -> None:
    config["config"]["layers"][2]["config"]["strides"] = [0, 0]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("plain.keras", _lambda, r"layers that are not read: Lambda \(1 times\)\. Lambda and classes of a user's own"),
        ("plain.keras", _own, r"not read: my_layers\.Conv2D \(1 times\)"),
        ("plain.keras", _model_class, "holds a 'MyModel', expected a Sequential or Functional"),
        ("plain.keras", _deep, "damaged.*models inside models"),
        ("branched.keras", _cycle, "has a cycle or a gap"),
        ("plain.keras", _filters, "do not go together|cannot be applied"),
    ],
)
def test_a_config_is_not_trusted(name: str, change: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        load_source(str(changed(name, tmp_path / "net.keras", change)), input=SPEC)


def _as_keras_2(config: Any) -> Any:
    """The same model as Keras 2 wrote its config: calls as lists, no modules, another name for the batch's shape."""
    for layer in config["config"]["layers"]:
        for name in ("module", "registered_name", "build_config"):
            layer.pop(name, None)
        if "batch_shape" in layer["config"]:
            layer["config"]["batch_input_shape"] = layer["config"].pop("batch_shape")
        if "layers" in layer["config"]:
            _as_keras_2(layer)
        layer["inbound_nodes"] = [_calls(node) for node in layer.get("inbound_nodes", ())]
    return config


def _calls(node: Any) -> list[Any]:
    tensors = node["args"][0]
    tensors = tensors if isinstance(tensors, list) else [tensors]
    return [[*tensor["config"]["keras_history"], {}] for tensor in tensors]


def test_files_of_keras_2_are_read(tmp_path: Path) -> None:
    path = tmp_path / "net.h5"
    shutil.copy(HERE / "branched.h5", path)
    with h5py.File(path, "a") as file:
        config = _as_keras_2(json.loads(file.attrs["model_config"]))
        file.attrs["model_config"], file.attrs["keras_version"] = json.dumps(config), "2.15.0"
    ours, theirs = (load_source(str(p), input=SPEC) for p in (path, HERE / "branched.h5"))
    assert ours.weights_digest == theirs.weights_digest
    sigmoids = [node for node in ours.arch_args["graph"]["nodes"] if node[1] == "power"]
    assert [node[3]["scale"] for node in sigmoids] == [0.2]  # Keras 3 changed the slope of hard_sigmoid


def first(file: Any) -> Any:
    """The group of the first convolution's weights."""
    found: list[str] = []
    file.visit(lambda name: found.append(name) if name.endswith("first/kernel") else None)
    return file[found[0]].parent


@pytest.mark.parametrize("kind", ["soft", "external", "raw"])
def test_weights_in_other_files_are_not_opened(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "net.h5"
    shutil.copy(HERE / "plain.h5", path)
    with h5py.File(path, "a") as file:
        group = first(file)
        del group["kernel"]
        if kind == "raw":
            group.create_dataset("kernel", (3, 3, 3, 4), "f4", external=[("/etc/passwd", 0, 432)])
        else:
            group["kernel"] = h5py.SoftLink("/x") if kind == "soft" else h5py.ExternalLink("/etc/passwd", "/x")
    with pytest.raises(SourceError, match=r"is a link|in another file|is damaged"):
        load_source(str(path), input=SPEC)


def test_bombs_and_false_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * (100 << 20))
    with pytest.raises(SourceError, match="would unpack to more"):
        load_source(str(path), input=SPEC)
    path = tmp_path / "net.h5"
    shutil.copy(HERE / "plain.h5", path)
    with h5py.File(path, "a") as file:
        group = first(file)
        del group["kernel"]
        group.create_dataset("kernel", (2**40, 3, 3, 4), "f4", chunks=(1, 3, 3, 4))
    with pytest.raises(SourceError, match="claims"):
        load_source(str(path), input=SPEC)


def test_weights_alone_and_nan_say_so(tmp_path: Path) -> None:
    path = tmp_path / "net.h5"
    shutil.copy(HERE / "plain.h5", path)
    with h5py.File(path, "a") as file:
        first(file)["kernel"][0] = np.nan
    with pytest.raises(SourceError, match="NaN"):
        load_source(str(path), input=SPEC)
    with h5py.File(path, "a") as file:
        del file.attrs["model_config"]
    with pytest.raises(SourceError, match="holds weights alone"):
        load_source(str(path), input=SPEC)


@pytest.mark.parametrize("name", ["plain.keras", "plain.h5"])
def test_damaged_files_give_one_clear_message(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "PATIENCE_S", 3.0)
    path, refused = tmp_path / name, 0
    for data in mutations((HERE / name).read_bytes(), 48):
        path.write_bytes(data)
        try:
            load_source(str(path), input=SPEC)
        except SourceError:
            refused += 1
    assert refused > 20


def test_a_file_that_stops_the_hdf5_library_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some damaged files make the library loop for ever or crash, which is why it has a process of its own."""
    path = tmp_path / "net.h5"
    shutil.copy(HERE / "plain.h5", path)
    waits = tmp_path / "waits.py"
    waits.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(hdf5, "__file__", str(waits))
    monkeypatch.setattr(hdf5, "PATIENCE_S", 0.5)
    with pytest.raises(SourceError, match="did not end within"):
        load_source(str(path), input=SPEC)
    waits.write_text("import os; os.abort()")
    with pytest.raises(SourceError, match="its reader ended with -6"):
        load_source(str(path), input=SPEC)


def test_without_h5py_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtra, match=r"regraft\[keras\]"):
        load_source(str(HERE / "plain.h5"), input=SPEC)
