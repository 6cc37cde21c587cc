"""Architectures by name: the same name and seed give the same network, and nothing else is disturbed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from regraft.digest import digest_state
from regraft.errors import SourceError
from regraft.source import build, canonical_arch
from regraft.source.cifar_resnet import resnet20, resnet32, resnet44, resnet56

RESNET20 = "regraft.source.cifar_resnet:resnet20"


def test_same_seed_same_weights() -> None:
    first, again, other = (build(RESNET20, seed=seed)[0] for seed in (1, 1, 2))
    assert digest_state(first.state_dict()) == digest_state(again.state_dict())
    assert digest_state(first.state_dict()) != digest_state(other.state_dict())


def test_global_randomness_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build(RESNET20, seed=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("factory", "params"), [(resnet20, 269722), (resnet32, 464154), (resnet44, 658586), (resnet56, 853018)]
)
def test_cifar_resnets_have_the_published_sizes(factory, params: int) -> None:
    assert sum(p.numel() for p in factory().parameters()) == params


def test_cifar_resnet_exports_with_any_batch_size() -> None:
    model, spec = build("regraft:cifar10-resnet20")
    assert spec is not None
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (torch.zeros(2, *spec.size),), dynamic_shapes=({0: batch},))
    x = torch.randn(5, *spec.size)
    assert torch.equal(program.module()(x), model(x))


def test_arguments_reach_the_architecture() -> None:
    model, _ = build(RESNET20, {"num_classes": 7})
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    with pytest.raises(SourceError, match=r"num_clases.*It takes .*num_classes"):
        build(RESNET20, {"num_clases": 7})


def test_callable_beside_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_networks.py").write_text("from torch import nn\ndef small(): return nn.Linear(2, 2)\n")
    monkeypatch.chdir(tmp_path)
    model, spec = build("my_own_networks:small")
    assert isinstance(model, torch.nn.Linear) and not model.training and spec is None


def test_spellings_of_a_python_architecture_are_one() -> None:
    assert canonical_arch(RESNET20) == canonical_arch(f"python:{RESNET20}") == f"python:{RESNET20}"
    assert canonical_arch("timm:resnet18") == "timm:resnet18"


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("resnet20", "not an architecture.*regraft.source.cifar_resnet:resnet20"),
        ("regraft.source.cifar_resnet:resnet21", "no callable 'resnet21'.*Did you mean.*resnet20"),
        ("no_such_module:net", "cannot import 'no_such_module'.*timm:NAME"),
        ("regraft.errors:RegraftError", "returned a RegraftError, expected a torch.nn.Module"),
        ("regraft:cifar10-resnet21", "Did you mean 'cifar10-resnet20'"),
        ("timm:resnt18", "Did you mean 'resnet18'"),
    ],
)
def test_a_wrong_name_says_what_would_work(arch: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        build(arch)
