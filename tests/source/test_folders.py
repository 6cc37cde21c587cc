"""Folders and catalogues: a source written is the source read, and random weights never need a network."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
import safetensors.torch
import torch

from regraft.digest import digest_state
from regraft.errors import MissingExtra, SourceError
from regraft.source import describe, embedded, load_source, with_random_weights, write_source
from regraft.source.timm_hub import input_of
from regraft.spec import InputSpec
from regraft.testing import TINY_ARCH, tiny_source


def timm_folder(folder: Path, **changes: Any) -> Path:
    """A folder as timm writes it, of a small network with three classes."""
    import timm

    model = timm.create_model("resnet10t", num_classes=3)
    card = {"input_size": [3, 96, 96], "mean": [0.5] * 3, "std": [0.25] * 3, "crop_pct": 0.9}
    config = {
        "architecture": "resnet10t",
        "num_classes": 3,
        "model_args": {"drop_rate": 0.1},
        "pretrained_cfg": card | {"interpolation": "bilinear", "license": "mit"},
        "label_names": ["a", "b", "c"],
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | changes))
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def test_written_then_read_is_the_same(tmp_path: Path) -> None:
    source = tiny_source(seed=4)
    write_source(tmp_path, source)
    again = load_source(str(tmp_path))
    assert (again.arch, again.arch_args, again.input) == (source.arch, source.arch_args, source.input)
    assert again.weights_digest == source.weights_digest
    assert again.report is not None and again.report.complete


def test_timm_folder_is_read_as_timm_reads_it(tmp_path: Path) -> None:
    import timm

    folder = timm_folder(tmp_path / "net")
    source = load_source(str(folder))
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    x = torch.randn(2, 3, 96, 96)
    assert torch.equal(source.model(x), theirs(x))
    assert source.classes == ("a", "b", "c") and source.licence == "mit"
    assert source.arch_args == {"drop_rate": 0.1, "num_classes": 3}
    assert source.input == InputSpec((3, 96, 96), (0.5,) * 3, (0.25,) * 3, "bilinear", 0.9, "center")


def test_real_timm_folder_gives_timms_outputs(shared_data: Path) -> None:
    import timm

    folder = shared_data / "weights" / "mobilenetv2_100_imagenet"
    source = load_source(str(folder))
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    x = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(source.model(x), theirs(x))
    assert len(source.classes) == 1001 and source.input.crop_pct == 0.875


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("uri", ["timm:resnet10t", "timm:resnet10t.c3_in1k", "regraft:cifar10-resnet20", TINY_ARCH])
def test_random_weights_need_no_network(uri: str) -> None:
    source = load_source(uri, random_weights=True, seed=2)
    assert source.weights_digest == load_source(uri, random_weights=True, seed=2).weights_digest
    assert source.weights_digest != load_source(uri, random_weights=True, seed=3).weights_digest
    assert source.weights_digest == with_random_weights(source, seed=2).weights_digest


def test_random_twin_keeps_everything_but_the_weights(tmp_path: Path) -> None:
    source = load_source(str(timm_folder(tmp_path / "net")))
    twin = with_random_weights(source, seed=1)
    assert (twin.arch, twin.input, twin.n_params) == (source.arch, source.input, source.n_params)
    assert twin.weights_digest != source.weights_digest
    assert twin.report is None and not twin.model.training


def own_folder(folder: Path, **changes: Any) -> Path:
    write_source(folder, tiny_source())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


@pytest.mark.parametrize(
    ("arch", "arch_args"),
    [
        ("python:os:system", {"command": "touch config-code-ran"}),
        ("python:subprocess:call", {"args": ["touch", "config-code-ran"]}),
        ("python:os:kill", {"pid": 0, "signal": 0}),
        ("python:regraft.errors:closest", {"name": "a", "options": []}),
    ],
)
def test_a_config_cannot_call_what_is_no_architecture(
    arch: str, arch_args: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = own_folder(tmp_path / "net", arch=arch, arch_args=arch_args)
    with pytest.raises(SourceError, match=r"wants to call .*does not say that it returns a torch\.nn\.Module"):
        load_source(str(folder))
    assert not (tmp_path / "config-code-ran").exists()


@pytest.mark.parametrize("inside", [True, False], ids=["from inside", "from beside"])
def test_code_in_the_folder_is_not_imported(inside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "net"
    monkeypatch.chdir(tmp_path)
    module = "brought_along" if inside else "net.brought_along"
    own_folder(folder, arch=f"python:{module}:small")
    (folder / "brought_along.py").write_text("open('module-code-ran', 'w')\n")
    monkeypatch.chdir(folder if inside else tmp_path)
    with pytest.raises(SourceError, match="is code inside the folder itself"):
        load_source(str(folder))
    assert not list(tmp_path.rglob("module-code-ran"))


def test_the_user_can_vouch_for_a_callable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "from regraft.testing import tiny_net\ndef unsaid(): return tiny_net()\n"
    (tmp_path / "vouched_nets.py").write_text(text)
    folder = own_folder(tmp_path / "net", arch="python:vouched_nets:unsaid")
    with pytest.raises(SourceError, match=r"--arch python:vouched_nets:unsaid"):
        load_source(str(folder))
    source = load_source(str(folder), arch="vouched_nets:unsaid")
    assert source.weights_digest == tiny_source().weights_digest


def test_input_can_be_overridden() -> None:
    spec = InputSpec(size=(3, 64, 64))
    assert load_source("timm:resnet10t", random_weights=True, input=spec).input == spec


def test_cards_with_gaps_still_give_an_input() -> None:
    assert input_of({}) == InputSpec(size=(3, 224, 224))
    assert input_of({"input_size": (1, 28, 28), "mean": (0.3, 0.3, 0.3)}).mean == (0.3,)
    assert input_of({"interpolation": "random"}).interpolation == "bicubic"
    assert input_of({}, {"in_chans": 1, "img_size": 64}).size == (1, 64, 64)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["BertModel"]}, "kind: BertModel.*timm's layout.*transformers'.*regraft's own"),
        ({"format": "regraft-source", "arch": TINY_ARCH}, "lacks something.*'input'"),
        ({"format": "regraft-source", "input": {"size": [3]}}, "lacks something"),
        ([1, 2], "holds a list, expected an object"),
        ({"architecture": "resnt10t", "num_classes": 3}, "Did you mean 'resnet10t'"),
        ({"architecture": "resnet18", "num_classes": 3}, "does not fit the architecture ResNet"),
    ],
)
def test_a_wrong_config_says_what_is_read(config: Any, message: str, tmp_path: Path) -> None:
    folder = timm_folder(tmp_path / "net")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match=message):
        load_source(str(folder))


def test_incomplete_folders(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no config.json"):
        load_source(str(tmp_path))
    folder = timm_folder(tmp_path / "net")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SourceError, match=r"no model.safetensors"):
        load_source(str(folder))
    assert load_source(str(folder), random_weights=True).n_params > 0
    (folder / "config.json").write_text("{")
    with pytest.raises(SourceError, match="not valid JSON"):
        load_source(str(folder))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("resnet18", "no file or folder.*Did you mean.*'timm:resnet18'"),
        ("cifar10-resnet20", "Did you mean.*'regraft:cifar10-resnet20'"),
        ("timm:resnt18", "Did you mean 'resnet18'"),
        ("timm:resnet18.a1_in1", "no weights 'a1_in1'.*Did you mean 'a1_in1k'"),
        ("regraft:cifar-resnet20", "Did you mean 'cifar10-resnet20'"),
        ("tim:resnet18", "Did you mean 'timm:'"),
        ("http://example.org/net.pt", "expected https://"),
        ("ftp://example.org/net.pt", "sources of kind 'ftp:' are not read"),
        ("nowhere/net.pt", "no file or folder"),
        (TINY_ARCH, "no pretrained weights.*random_weights=True"),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_an_unknown_source_says_what_was_meant(uri: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        load_source(uri)


def test_arch_is_for_bare_weights_only(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="Leave it out"):
        load_source(str(timm_folder(tmp_path / "net")), arch="timm:resnet18")


def test_without_weights_the_embedded_source_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "embedded_folder", lambda name: tmp_path / name)
    with pytest.raises(SourceError, match=r"no weights for regraft:cifar10-resnet20.*random_weights=True"):
        load_source("regraft:cifar10-resnet20")


def test_offline_the_hub_error_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def offline(*args: Any, **kwargs: Any) -> NoReturn:
        raise OSError("cannot find the requested files in the local cache")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(SourceError, match=r"HF_HUB_OFFLINE.*folder: load_source\('path/to/resnet18'\)"):
        load_source("timm:resnet18")


def test_offline_timm_reads_what_the_hub_keeps_and_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm
    from huggingface_hub import constants

    def asked(*args: Any, **kwargs: Any) -> NoReturn:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", asked)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("REGRAFT_OFFLINE", "1")
    with pytest.raises(SourceError, match=r"REGRAFT_OFFLINE forbids.*folder: load_source\('path/to/resnet10t'\)"):
        load_source("timm:resnet10t")
    home = tmp_path / f"models--{timm.models.get_pretrained_cfg('resnet10t').hf_hub_id.replace('/', '--')}"
    (home / "snapshots/1").mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs/main").write_text("1")
    torch.manual_seed(3)
    model = timm.create_model("resnet10t")
    safetensors.torch.save_file(model.state_dict(), home / "snapshots/1/model.safetensors")
    assert load_source("timm:resnet10t").weights_digest == digest_state(model.state_dict())


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match=r"regraft\[timm\]"):
        load_source("timm:resnet18")
    with pytest.raises(SourceError, match="Did you mean 'regraft:cifar10-resnet20'"):
        load_source("cifar10-resnet20")


def test_description_is_plain_and_counts_every_parameter(tmp_path: Path) -> None:
    source = load_source(str(timm_folder(tmp_path / "net")))
    told = json.loads(json.dumps(describe(source)))
    assert sum(layer["params"] for layer in told["layers"]) == told["params"] == source.n_params
    assert told["classes"] == 3 and told["kinds"]["Conv2d"] > 3
    assert InputSpec.from_dict(told["input"]) == source.input
