"""torchvision by name: its own weights, its own preprocessing, and no network where none is needed."""

from __future__ import annotations

import hashlib
import sys
import warnings
from pathlib import Path

import pytest
import torch

from regraft.cut import join, split, trace
from regraft.errors import MissingExtra, SourceError
from regraft.source import build, load_source, with_random_weights
from regraft.spec import InputSpec

models = pytest.importorskip("torchvision.models")


def published(hub: Path, name: str, **changes: object) -> torch.nn.Module:
    """A network of torchvision whose weights lie where PyTorch Hub would have put them, under a fitting digest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's remark about the slow initialisation of two networks
        model = models.get_model(name, weights=None, **changes).eval()
    entry = models.get_model_weights(name).DEFAULT
    hub.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), hub / "new.pth")
    digest = hashlib.sha256((hub / "new.pth").read_bytes()).hexdigest()
    stem = entry.url.rpartition("/")[2].rpartition("-")[0]
    (hub / "new.pth").rename(hub / f"{stem}-{digest[:8]}.pth")
    object.__setattr__(entry.value, "url", f"https://download.pytorch.org/models/{stem}-{digest[:8]}.pth")
    return model


@pytest.fixture(autouse=True)
def _own_urls() -> object:
    """The table of addresses as it was, after a test that points it elsewhere."""
    entries = [models.get_model_weights(name).DEFAULT for name in ("squeezenet1_1", "googlenet", "mnasnet0_5")]
    urls = [entry.url for entry in entries]
    yield
    for entry, url in zip(entries, urls, strict=True):
        object.__setattr__(entry.value, "url", url)


@pytest.mark.usefixtures("no_network")
def test_weights_in_the_hubs_folder_are_torchvisions_network(hub: Path) -> None:
    theirs = published(hub, "squeezenet1_1")
    source = load_source("torchvision:squeezenet1_1")
    x = torch.randn(2, 3, 96, 96)
    assert torch.equal(source.model(x), theirs(x))
    assert source.report is not None and source.report.complete
    assert len(source.classes) == 1000 and source.classes[0] == "tench"
    assert source.origin.startswith("https://download.pytorch.org/models/squeezenet1_1-")
    assert source.input == InputSpec((3, 224, 224), interpolation="bilinear", crop_pct=224 / 256)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["googlenet", "mnasnet0_5"])
def test_networks_with_habits_load_whole(name: str, hub: Path) -> None:
    shaped = {"transform_input": True} if name == "googlenet" else {}
    theirs = published(hub, name, **shaped)
    source = load_source(f"torchvision:{name}")
    x = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        assert torch.equal(source.model(x), theirs(x))
    assert source.report is not None and not source.report.missing
    assert all(name.startswith("aux") for name in source.report.unexpected)
    again, _ = build(source.arch, source.arch_args)
    assert again.state_dict().keys() == source.model.state_dict().keys()


@pytest.mark.usefixtures("no_network", "hub")
@pytest.mark.parametrize("uri", ["torchvision:resnet18", "torchvision:mobilenet_v3_small.IMAGENET1K_V1"])
def test_random_weights_need_no_network(uri: str) -> None:
    source = load_source(uri, random_weights=True, seed=2)
    assert source.weights_digest == with_random_weights(source, seed=2).weights_digest
    assert source.weights_digest != with_random_weights(source, seed=3).weights_digest
    assert source.arch == uri.partition(".")[0] and source.input.size == (3, 224, 224)


def test_weights_shape_the_network_that_they_fit() -> None:
    source = load_source("torchvision:vit_b_16.IMAGENET1K_SWAG_E2E_V1", random_weights=True)
    assert source.arch_args == {"image_size": 384} and source.input.size == (3, 384, 384)
    assert build("torchvision:vit_b_16", {"image_size": 64, "num_classes": 3})[1].size == (3, 64, 64)  # type: ignore[union-attr]


def test_an_architecture_for_bare_weights_and_its_cuts(tmp_path: Path) -> None:
    torch.save({"module." + k: v for k, v in models.resnet18().state_dict().items()}, tmp_path / "net.pth")
    source = load_source(str(tmp_path / "net.pth"), arch="torchvision:resnet18")
    assert source.arch == "torchvision:resnet18" and source.report is not None and source.report.complete
    traced = trace(source.model, torch.zeros(2, 3, 64, 64))
    x = torch.randn(2, 3, 64, 64)
    for cut in traced.cuts:
        assert torch.equal(join(*split(traced, cut))(x), source.model(x))


def test_older_names_of_densenet_are_known(tmp_path: Path) -> None:
    state = models.densenet121().state_dict()
    older = {}
    for name, value in state.items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            name = name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        older[name] = value
    torch.save(older, tmp_path / "net.pth")
    source = load_source(str(tmp_path / "net.pth"), arch="torchvision:densenet121")
    assert source.report is not None and source.report.complete and "DenseNet" in source.report.renamed


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("torchvision:resnet81", "no image classifier 'resnet81'.*Did you mean 'resnet18'"),
        ("torchvision:resnet50.IMAGENET1K_V3", "no weights 'IMAGENET1K_V3'.*Did you mean.*torchvision:resnet50.IMAGE"),
        ("torchvision:fasterrcnn_resnet50_fpn", "no image classifier"),
        ("shufflenet_v2_x1_0", "Did you mean.*'torchvision:shufflenet_v2_x1_0'"),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_an_unknown_name_says_what_was_meant(uri: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        load_source(uri)


def test_offline_names_the_file_and_the_folder(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_OFFLINE", "1")
    with pytest.raises(SourceError, match=r"looked for at .*resnet18-f37072fd\.pth \(\$TORCH_HOME") as caught:
        load_source("torchvision:resnet18")
    assert str(hub / "resnet18-f37072fd.pth") in str(caught.value)


def test_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SourceError, match=r"cannot be built with .*depth"):
        build("torchvision:resnet18", {"depth": 3})


def test_without_torchvision_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtra, match=r"regraft\[torchvision\]"):
        load_source("torchvision:resnet18")
