"""Runtimes: the right one is chosen, checked against PyTorch, and left with a reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from regraft.cache.runtime import TOLERANCE, Chosen, build, checked, choose
from regraft.spec import InputSpec

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 3, 16, 16), dtype=np.uint8)


class Double(nn.Module):
    """A network of one tap."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.conv(pixels.float() / 255).flatten(1),)


class Off:
    """A runtime that is wrong by a fraction of a standard deviation."""

    def __init__(self, model: nn.Module, by: float) -> None:
        self._model, self._by = model, by

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            (out,) = self._model(torch.from_numpy(pixels))
        return [out.numpy() + self._by * out.numpy().std()]


@pytest.mark.parametrize(("by", "name"), [(0.1, "openvino"), (10, "torch"), (float("nan"), "torch")])
def test_a_runtime_that_differs_from_pytorch_is_left(by: float, name: str) -> None:
    model = Double().eval()
    chosen = checked(Chosen(Off(model, by * TOLERANCE), "openvino"), model, "cpu", ["layer3 on a 4x4 grid"], PIXELS)
    assert chosen.name == name
    assert ("differs from PyTorch" in chosen.fallback_reason) == (name == "torch")
    assert ("layer3 on a 4x4 grid" in chosen.fallback_reason) == (name == "torch")


def test_openvino_agrees_and_keeps_order_at_any_batch_size() -> None:
    pytest.importorskip("openvino")
    model = Double().eval()
    chosen = checked(build(model, "openvino", "cpu", (3, 16, 16)), model, "cpu", ["conv"], PIXELS)
    assert (chosen.name, chosen.fallback_reason) == ("openvino", "")
    pixels = np.random.default_rng(1).integers(0, 256, (75, 3, 16, 16), dtype=np.uint8)
    reference = build(model, "torch", "cpu", (3, 16, 16)).runtime.run(pixels)[0]
    for n in (1, 32, 75):
        np.testing.assert_allclose(chosen.runtime.run(pixels[:n])[0], reference[:n], atol=1e-5)


def test_without_openvino_the_reason_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    chosen = build(Double().eval(), "openvino", "cpu", (3, 16, 16))
    assert chosen.name == "torch"
    assert chosen.fallback_reason.endswith("pip install 'regraft[openvino]'")
    assert len(chosen.runtime.run(PIXELS)[0]) == 20


def test_what_openvino_cannot_convert_runs_on_pytorch() -> None:
    pytest.importorskip("openvino")

    class Stubborn(Double):
        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor]:
            return (torch.linalg.svdvals(super().forward(pixels)[0][:, None]),)

    chosen = build(Stubborn().eval(), "openvino", "cpu", (3, 16, 16))
    assert chosen.name == "torch"
    assert "OpenVINO could not convert the network" in chosen.fallback_reason


@pytest.mark.parametrize(
    ("wanted", "device", "n", "side", "name"),
    [
        ("auto", "cpu", 64, 224, "openvino"),
        ("auto", "cpu", 63, 224, "torch"),
        ("auto", "cpu", 1797, 32, "torch"),
        ("auto", "cpu", 50_000, 32, "openvino"),
        ("auto", "cuda", 50_000, 224, "torch"),
        ("openvino", "cpu", 1, 32, "openvino"),
        ("torch", "cpu", 50_000, 224, "torch"),
    ],
)
def test_auto_converts_when_it_pays(wanted: str, device: str, n: int, side: int, name: str) -> None:
    assert choose(wanted, device, n, InputSpec((3, side, side))) == name


QUIET = """
import sys
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "os.fork")
events = []
sys.addaudithook(lambda name, args: name in NETWORK and events.append(name))
import torch
from torch import nn
from regraft.cache.openvino_cpu import OpenVINORuntime

class One(nn.Module):
    def forward(self, x):
        return (x.float().mean((2, 3)),)

OpenVINORuntime(One(), (3, 8, 8))
print(events)
print([name for name in sys.modules if name.startswith("openvino_telemetry")])
"""


def test_openvino_reports_to_nobody(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", QUIET],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == ["[]", "[]"], done.stderr
    assert not [path for path in tmp_path.rglob("*") if "intel" in str(path).lower()]
