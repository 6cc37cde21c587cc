"""SavedModels of TensorFlow 2: variables by their own names without TensorFlow, the graph through tf2onnx."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from regraft.errors import MissingExtra, SourceError
from regraft.source import contents, is_graph, load_source
from regraft.source.tf1.objects import first_string
from regraft.spec import InputSpec

pytest.importorskip("google.protobuf")
pytest.importorskip("onnx")

FIXTURE = Path(__file__).parent / "fixtures" / "saved_model.zip"
ARCH = "readers:exported_by_keras"
SPEC = InputSpec((3, 16, 16), (0.0,) * 3, (1.0,) * 3)
FAKE = """
import os, pathlib, sys
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
folder, output = pathlib.Path(words["--saved-model"]), pathlib.Path(words["--output"])
calls = pathlib.Path(os.environ["CALLS"])
calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
if (folder / "fingerprint.pb").read_bytes() == b"fails":
    sys.exit("Converting...\\nUnsupported ops: Counter")
output.write_bytes((folder.parent / "net.onnx").read_bytes())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with zipfile.ZipFile(FIXTURE) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "net"


@pytest.fixture
def answers() -> dict[str, torch.Tensor]:
    with zipfile.ZipFile(FIXTURE) as archive, archive.open("outputs.npz") as file:
        return {name: torch.from_numpy(values) for name, values in np.load(file).items()}


@pytest.fixture
def tf2onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Path) -> Path:
    """Packages of these names that only copy a stored conversion; how often they were called."""
    package = tmp_path / "packages" / "tf2onnx"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "convert.py").write_text(FAKE)
    (package.parent / "tensorflow.py").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


@pytest.mark.usefixtures("tf2onnx")
def test_the_graph_comes_through_tf2onnx(folder: Path, answers: dict[str, torch.Tensor]) -> None:
    source = load_source(str(folder), input=SPEC)
    found = source.model(answers["x"]).detach()
    assert float((found - answers["y"]).abs().max() / answers["y"].abs().max()) < 1e-5
    assert load_source(str(folder / "saved_model.pb"), input=SPEC).weights_digest == source.weights_digest
    assert is_graph(str(folder))


def test_it_is_converted_once_for_each_content(folder: Path, tf2onnx: Path) -> None:
    for _ in range(2):
        load_source(str(folder), input=SPEC)
    assert tf2onnx.read_text() == "x"
    with (folder / "variables" / "variables.data-00000-of-00001").open("ab") as file:
        file.write(b"\0")
    load_source(str(folder), input=SPEC)
    assert tf2onnx.read_text() == "xx"


@pytest.mark.usefixtures("tf2onnx")
def test_what_tf2onnx_says_is_told(folder: Path) -> None:
    (folder / "fingerprint.pb").write_bytes(b"fails")
    with pytest.raises(SourceError, match=r"cannot convert .*: Unsupported ops: Counter.*pass net\.onnx"):
        load_source(str(folder), input=SPEC)


def test_operations_that_reach_beyond_the_network_are_refused(folder: Path, tf2onnx: Path) -> None:
    program = folder / "saved_model.pb"
    program.write_bytes(program.read_bytes() + b"\x0a\x09WriteFile")
    with pytest.raises(SourceError, match=r"reach beyond a network \(WriteFile\)"):
        load_source(str(folder), input=SPEC)
    assert not tf2onnx.exists()


def test_without_tensorflow_both_ways_out_are_named(folder: Path, hub: Path) -> None:
    if importlib.util.find_spec("tf2onnx"):
        pytest.skip("tf2onnx is installed")
    with pytest.raises(MissingExtra, match=r"tf2onnx\.convert --saved-model .*--arch .*regraft\[tensorflow\]"):
        load_source(str(folder), input=SPEC)
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("opened", ["", "variables/variables.index", "saved_model.pb"])
def test_its_variables_open_by_their_own_names(opened: str, folder: Path, answers: dict[str, torch.Tensor]) -> None:
    source = load_source(str(folder / opened), arch=ARCH)
    assert source.report is not None and source.report.complete
    assert source.report.ignored == ("_CHECKPOINTABLE_OBJECT_GRAPH", "seed_generator/seed_generator_state")
    bn = source.model.get_submodule("bn")
    assert float(bn.running_var.min()) > 0.4  # type: ignore[operator, union-attr]  (no fresh ones)
    found = contents(folder / "variables" / "variables").variables
    assert found["sequential/conv/kernel"] == (3, 3, 3, 8) and found["sequential/bn/beta"] == (8,) and len(found) == 10


def test_its_variables_give_its_answers(folder: Path, answers: dict[str, torch.Tensor]) -> None:
    """Keras's "same" and epsilon are the only other things to say."""
    model = load_source(str(folder), arch=ARCH).model
    model.get_submodule("conv").padding = (1, 1)  # type: ignore[assignment]
    model.get_submodule("bn").eps = 1e-3  # type: ignore[assignment]
    found = model(answers["x"]).detach()
    assert float((found - answers["y"]).abs().max() / answers["y"].abs().max()) < 1e-5


@pytest.mark.parametrize("stored", [b"", b"\x05\0\0\0\0abc", b"\xff" * 20, b"\x80" * 12])
def test_names_that_are_cut_short_are_refused(stored: bytes) -> None:
    with pytest.raises(SourceError, match="cut short"):
        first_string(stored, "variables")
    assert first_string(b"\x03\0\0\0\0abc", "variables") == b"abc"
