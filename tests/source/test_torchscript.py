"""TorchScript: the weights under their own names, for an architecture that is named; its code and pickles never run."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from damage import mutations
from readers import MARK, TRAP
from regraft.errors import RegraftError, SourceError
from regraft.source import load_source
from regraft.source.files import read_checkpoint
from regraft.testing import TINY_ARCH, tiny_source

warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)


class Kinds(nn.Module):
    """Tensors of many types and layouts, lists of modules and parameters, two names for one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.layers[1].weight = self.layers[0].weight
        self.small = nn.Parameter(torch.rand(4).half())
        self.turned = nn.Parameter(torch.rand(4, 3, 2, 5).to(memory_format=torch.channels_last))
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("none", torch.zeros(0, 3))
        self.register_buffer("part", torch.arange(12.0).view(3, 4)[:, 1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def saved(module: nn.Module, path: Path, how: Callable[[nn.Module], torch.jit.ScriptModule]) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(how(module), path)
    return path


def traced(module: nn.Module) -> torch.jit.ScriptModule:
    return torch.jit.trace(module, torch.rand(2, 3, 32, 32))  # type: ignore[return-value]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return saved(tiny_source().model, tmp_path / "net.pt", traced)


@pytest.mark.parametrize("how", [traced, torch.jit.script])
def test_it_opens_with_its_architecture_like_bare_weights(
    how: Callable[[nn.Module], torch.jit.ScriptModule], tmp_path: Path
) -> None:
    source = load_source(str(saved(tiny_source().model, tmp_path / "net.pt", how)), arch=TINY_ARCH)
    assert source.weights_digest == tiny_source().weights_digest
    assert source.report is not None and source.report.complete and not source.report.renamed


def test_every_kind_of_tensor_is_what_it_was(tmp_path: Path) -> None:
    module = Kinds()
    found = read_checkpoint(saved(module, tmp_path / "net.pt", torch.jit.script)).tensors
    assert found.keys() == module.state_dict().keys()
    for name, wanted in module.state_dict().items():
        assert found[name].dtype == wanted.dtype and torch.equal(found[name], wanted), name


def test_a_frozen_program_has_no_names(tmp_path: Path) -> None:
    frozen = saved(tiny_source().model, tmp_path / "net.pt", lambda m: torch.jit.freeze(torch.jit.script(m)))
    with pytest.raises(SourceError, match=r"torch\.jit\.freeze made constants.*pass weights\.pt"):
        load_source(str(frozen), arch=TINY_ARCH)


# attacks ----------------------------------------------------------------------------------------------


def with_pickle(path: Path, content: bytes) -> Path:
    """A copy of a program with another data.pkl."""
    to = path.with_name("changed.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name.endswith("/data.pkl") else old.read(name))
    return to


def data_pickle(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_a_pickle_that_wants_to_run_code_does_not(
    protocol: int, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hostile = with_pickle(path, pickle.dumps({"weight": TRAP}, protocol=protocol))
    with pytest.raises(SourceError, match="cannot be read"):
        load_source(str(hostile), arch=TINY_ARCH)
    assert not (tmp_path / MARK).exists()


def test_a_call_among_the_attributes_is_named(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call = b"X\x04\x00\x00\x00evilcposix\nsystem\n(X" + struct.pack("<I", 6 + len(MARK)) + f"touch {MARK}tR".encode()
    whole = data_pickle(path)
    start = whole.index(b"}(") + 2
    hostile = with_pickle(path, whole[:start] + call + whole[start:])
    with pytest.raises(SourceError, match=r"wants to use posix\.system, which can run any code"):
        load_source(str(hostile), arch=TINY_ARCH)
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x80\x02}q\x00(X\x01\x00\x00\x00ah\x00u.", "objects hold themselves"),
        (b"\x80\x02}(" + b"X\x01\x00\x00\x00a}(" * 500 + b"u" * 500 + b"u.", "objects hold themselves"),
        (b"\x80\x02}(}(}(u.", "without named weights"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "without named weights"),  # a memo of two thousand million entries
        (b"\x80\x02j\xff\xff\xff\x7f.", "cannot be read"),
        (b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", "cannot be read"),  # a text of 2^63 letters
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\x00\x00.", "cannot be read"),  # a row of 2^48 bytes
        (b"\x80\x02]q\x00h\x00a.", "it holds a list"),
        (b"\x80\x02RRR.", "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_impossible_pickles_are_refused(content: bytes, reason: str, path: Path) -> None:
    with pytest.raises(SourceError, match=reason):
        load_source(str(with_pickle(path, content)), arch=TINY_ARCH)


def test_shared_mappings_without_end_are_refused(path: Path) -> None:
    """Each holds the one before it twice: thirty of them are a thousand million."""
    doubled = b"".join(b"q%c}(X\x01\x00\x00\x00ah%cX\x01\x00\x00\x00bh%cu" % (i, i, i) for i in range(40))
    with pytest.raises(SourceError, match="objects hold themselves"):
        load_source(str(with_pickle(path, b"\x80\x02}(X\x01\x00\x00\x00xNu" + doubled + b".")), arch=TINY_ARCH)


@pytest.mark.parametrize(("old", "new"), [(b"K\xd8", b"K\x01"), (b"FloatStorage", b"BloatStorage")])
def test_a_tensor_that_its_storage_does_not_hold(old: bytes, new: bytes, path: Path) -> None:
    whole = data_pickle(path)
    at = whole.index(b"K\x08K\x03K\x03K\x03t")  # the first convolution's shape
    content = (
        whole[:at] + b"K\xffK\xffK\xffK\xfft" + whole[at + 9 :] if old.startswith(b"K") else whole.replace(old, new)
    )
    with pytest.raises(SourceError, match=r"do not hold|cannot be read"):
        load_source(str(with_pickle(path, content)), arch=TINY_ARCH)


def test_damaged_files_are_one_message_or_a_network(path: Path, tmp_path: Path) -> None:
    refused = 0
    for content in [*mutations(path.read_bytes(), 40), *(_inside(path, c) for c in mutations(data_pickle(path), 60))]:
        (tmp_path / "damaged.pt").write_bytes(content)
        try:
            load_source(str(tmp_path / "damaged.pt"), arch=TINY_ARCH)
        except RegraftError as error:
            refused += 1
            assert str(error)
    assert refused > 50


def _inside(path: Path, content: bytes) -> bytes:
    changed = io.BytesIO(with_pickle(path, content).read_bytes())
    return changed.getvalue()
