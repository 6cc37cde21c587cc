"""Schemes of other packages: found by their entry point, loaded when used, held to the contract."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
import torch

from regraft.errors import SourceError
from regraft.source import Source, load_source, make_source, plugins, write_source
from regraft.source.arch import ARCHITECTURES
from regraft.testing import check_scheme, check_source, tiny_net, tiny_source

MODULE = """
from regraft.errors import SourceError
from regraft.source import build, make_source
from regraft.source.arch import ARCHITECTURES
from regraft.testing import tiny_net, tiny_source

def build_zoo(name, arch_args):
    return tiny_net(**arch_args), tiny_source().input

ARCHITECTURES.add("zoo", build_zoo)

def open_zoo(name, request):
    if name != "small":
        raise SourceError(f"the zoo has no {name!r}. It has: load_source('zoo:small')")
    seed = request.seed if request.random_weights else 7
    model, spec = build("zoo:small", seed=seed)
    return make_source(request.uri, "zoo:small", {}, model, request.input_or(spec))
"""


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that brings zoo:, one that is broken, and one that two packages claim."""
    (tmp_path / "their_zoo.py").write_text(MODULE)
    (tmp_path / "their_ruin.py").write_text("raise OSError('a library is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        EntryPoint("zoo", "their_zoo:open_zoo", plugins.GROUP),
        EntryPoint("ruin", "their_ruin:open", plugins.GROUP),
        EntryPoint("twice", "one:open", plugins.GROUP),
        EntryPoint("twice", "two:open", plugins.GROUP),
    ]

    def found(**wanted: Any) -> EntryPoints:
        return EntryPoints(points).select(**wanted)

    monkeypatch.setattr(plugins, "entry_points", found)
    plugins.plugin.cache_clear()
    yield
    plugins.plugin.cache_clear()
    ARCHITECTURES._entries.pop("zoo", None)
    sys.modules.pop("their_zoo", None)


@pytest.mark.usefixtures("zoo")
def test_a_scheme_of_another_package_is_loaded_when_used_and_keeps_the_contract() -> None:
    assert "their_zoo" not in sys.modules
    check_scheme("zoo:small", unknown="zoo:large")
    assert "their_zoo" in sys.modules


@pytest.mark.usefixtures("zoo")
def test_its_architecture_is_found_again_by_a_saved_source(tmp_path: Path) -> None:
    write_source(tmp_path / "net", load_source("zoo:small"))
    ARCHITECTURES._entries.pop("zoo")
    sys.modules.pop("their_zoo")
    plugins.plugin.cache_clear()
    assert load_source(str(tmp_path / "net")).arch == "zoo:small"


@pytest.mark.usefixtures("zoo")
def test_what_is_wrong_with_a_package_is_said() -> None:
    with pytest.raises(SourceError, match=r"come from their_ruin:open, which cannot be imported \(OSError: a library"):
        load_source("ruin:x")
    with pytest.raises(SourceError, match=r"several packages bring .*'twice:' \(one:open, two:open\)"):
        load_source("twice:x")
    with pytest.raises(SourceError, match="Did you mean 'zoo:'"):
        load_source("zo:small")


class Leaky(torch.nn.Module):
    """Normalises over the batch, so one example's output depends on the others."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny_net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.net(x)
        return y - y.mean(0)


def broken(kind: str) -> Source:
    """A source that breaks one part of the contract."""
    source = tiny_source()
    if kind == "training":
        source.model.train()
    elif kind == "digest":
        next(source.model.parameters()).data += 1
    elif kind == "arch":
        return make_source("x", source.arch, {"num_classes": 3}, source.model, source.input)
    elif kind == "classes":
        return make_source("x", source.arch, {}, source.model, source.input, classes=("a", "b"))
    else:
        return make_source("x", source.arch, {}, Leaky(), source.input)
    return source


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("training", "not in eval mode"),
        ("digest", "weights_digest"),
        ("arch", r"size mismatch|same architecture"),
        ("classes", "one class name for each output"),
        ("batch", "depends on the others"),
    ],
)
def test_a_broken_contract_is_named(kind: str, message: str) -> None:
    with pytest.raises((AssertionError, RuntimeError), match=message):
        check_source(broken(kind))
