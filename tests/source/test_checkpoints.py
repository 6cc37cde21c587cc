"""Bare weight files, as messy as people leave them: what fits is loaded, every tensor is accounted for."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from damage import mutations
from regraft.errors import SourceError
from regraft.source import Source, build, load_source
from regraft.spec import InputSpec
from regraft.testing import TINY_ARCH, tiny_source

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def tiny() -> Source:
    return tiny_source(seed=3)


@pytest.fixture(scope="module")
def state(tiny: Source) -> State:
    return dict(tiny.model.state_dict())


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


def fresh(seed: int) -> State:
    return dict(build(TINY_ARCH, seed=seed)[0].state_dict())


WRAPPERS = {
    "bare": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "data parallel": lambda s: {"state_dict": prefixed(s, "module."), "best_prec1": 91.7},
    "compiled in parallel": lambda s: {"model": prefixed(s, "_orig_mod.module.")},
    "lightning": lambda s: {"state_dict": prefixed(s, "net."), "hyper_parameters": {"lr": 0.1}},
    "contrastive": lambda s: {"state_dict": prefixed(s, "module.encoder_q.") | {"module.queue": torch.ones(3)}},
    "self-distillation": lambda s: {
        "student": prefixed(fresh(8), "module.backbone."),
        "teacher": prefixed(s, "backbone."),
    },
    "averaged": lambda s: {"model": fresh(9), "model_ema": s, "optimizer": {"state": {0: torch.ones(2)}}},
    "arguments": lambda s: {"params": s, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.5)},
    "compiled layer by layer": lambda s: {
        name.replace("block1.", "block1._orig_mod.").replace("block2.", "block2.module."): value
        for name, value in prefixed(s, "backbone.").items()
    },
    "momentum": lambda s: {"state_dict": prefixed(fresh(8), "module.encoder.") | prefixed(s, "module.encoder_q.")},
    "older names of batch norm": lambda s: {
        name.replace("bn.weight", "bn.gamma").replace("bn.bias", "bn.beta"): value for name, value in s.items()
    },
    "ordered": lambda s: OrderedDict(s),
    "parameters": lambda s: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()},
}


@pytest.mark.parametrize("old_format", [False, True], ids=["zip", "old"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapper_gives_the_same_network(
    wrapper: str, old_format: bool, state: State, tiny: Source, tmp_path: Path
) -> None:
    path = tmp_path / "net.pth"
    torch.save(WRAPPERS[wrapper](state), path, _use_new_zipfile_serialization=not old_format)
    source = load_source(str(path), arch=TINY_ARCH)
    assert source.weights_digest == tiny.weights_digest
    assert source.report is not None and len(source.report.matched) == len(state)
    assert source.input == tiny.input and not source.model.training


def test_the_report_names_every_entry(state: State, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    kept = {name: value for name, value in state.items() if "num_batches_tracked" not in name}
    content = {"net": kept | {"projector.weight": torch.ones(2, 2)}, "epoch": 3, "optimizer": {"lr": 1}}
    torch.save(content, path)
    report = load_source(str(path), arch=TINY_ARCH).report
    assert report is not None
    assert report.unexpected == ("net.projector.weight",)
    assert report.ignored == ("epoch", "optimizer")
    assert set(report.matched) | set(report.harmless) == set(state)
    assert all(name.endswith("num_batches_tracked") for name in report.harmless)
    assert "stripped prefix 'net.'" in str(report) and "projector.weight" in str(report)


def test_safetensors_and_half_precision(state: State, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    safetensors.torch.save_file(halves, path)
    model = load_source(str(path), arch=TINY_ARCH).model
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    torch.testing.assert_close(model.state_dict()["stem.conv.weight"], state["stem.conv.weight"], atol=1e-3, rtol=0)


def test_the_report_says_how_names_were_respelt(state: State, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({f"model.{name.replace('stem.', 'stem._orig_mod.')}": value for name, value in state.items()}, path)
    report = load_source(str(path), arch=TINY_ARCH).report
    assert report is not None and report.complete
    assert report.renamed == "stripped prefix 'model.'; left out wrappers inside names"


def sharded(folder: Path, state: State, suffix: str = ".safetensors") -> Path:
    """A network's weights in two files and an index."""
    where = {name: f"model-{i % 2 + 1:05}-of-00002{suffix}" for i, name in enumerate(state)}
    for file in set(where.values()):
        part = {name: state[name] for name in where if where[name] == file}
        safetensors.torch.save_file(part, folder / file) if suffix == ".safetensors" else torch.save(
            part, folder / file
        )
    index = folder / f"model{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    return index


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_weights_in_several_files_are_one_network(suffix: str, state: State, tiny: Source, tmp_path: Path) -> None:
    source = load_source(str(sharded(tmp_path, state, suffix)), arch=TINY_ARCH)
    assert source.weights_digest == tiny.weights_digest
    assert source.report is not None and source.report.complete


def test_a_missing_part_is_named(state: State, tmp_path: Path) -> None:
    index = sharded(tmp_path, state)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(SourceError, match=r"no weight file at .*model-00002-of-00002"):
        load_source(str(index), arch=TINY_ARCH)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"stem.conv.weight": "../net.safetensors"}, "names '../net.safetensors', expected weight files that lie"),
        ({"stem.conv.weight": "/etc/passwd"}, "lie beside it"),
        ({"stem.conv.weight": "model.safetensors.index.json"}, "lie beside it"),
        ({"stem.conv.weight": 3}, "no weight_map"),
        ({}, "no weight_map"),
        ([], "no weight_map"),
        ({"stem.nothing": "model-00001-of-00002.safetensors"}, r"promises 1 tensors .*stem\.nothing"),
    ],
)
def test_an_index_is_not_trusted(where: object, message: str, state: State, tmp_path: Path) -> None:
    index = sharded(tmp_path, state)
    index.write_text(json.dumps({"weight_map": where}))
    with pytest.raises(SourceError, match=message):
        load_source(str(index), arch=TINY_ARCH)
    index.write_text("[" * 100_000)
    with pytest.raises(SourceError, match="not valid JSON"):
        load_source(str(index), arch=TINY_ARCH)


@pytest.mark.parametrize("name", ["net.pt", "old.pt", "net.safetensors"])
def test_damaged_weights_give_one_clear_message(name: str, state: State, tmp_path: Path) -> None:
    path = tmp_path / name
    if path.suffix == ".pt":
        torch.save(state, path, _use_new_zipfile_serialization=name == "net.pt")
    else:
        safetensors.torch.save_file(state, path)
    refused = 0
    for data in mutations(path.read_bytes(), 100):
        path.write_bytes(data)
        try:
            load_source(str(path), arch=TINY_ARCH)  # a flipped bit among the values is another value
        except SourceError:
            refused += 1
    assert refused > 40


def test_a_classifier_of_other_size_stays_fresh_and_is_reported(tiny: Source, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    other, _ = build(TINY_ARCH, {"num_classes": 4}, seed=1)
    torch.save(other.state_dict(), path)
    source = load_source(str(path), arch=TINY_ARCH)
    assert source.report is not None
    assert source.report.mismatched == (
        ("classifier.weight", (10, 32), (4, 32)),
        ("classifier.bias", (10,), (4,)),
    )
    assert torch.equal(source.model.state_dict()["stem.conv.weight"], other.state_dict()["stem.conv.weight"])


def test_a_checkpoint_without_classifier_loads(state: State, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({k: v for k, v in state.items() if not k.startswith("classifier")}, path)
    report = load_source(str(path), arch=TINY_ARCH).report
    assert report is not None and report.missing == ("classifier.weight", "classifier.bias")


@pytest.mark.parametrize("theirs", ["resnet32", "resnet56"])
def test_another_architecture_is_refused_even_where_names_fit(theirs: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(build(f"regraft.source.cifar_resnet:{theirs}")[0].state_dict(), path)
    with pytest.raises(SourceError, match=r"does not fit .*layer1\.3\.conv1\.weight.*116 tensors matched.*--arch"):
        load_source(str(path), arch="regraft.source.cifar_resnet:resnet20")


def test_a_missing_layer_is_refused(state: State, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save({k: v for k, v in state.items() if k != "block2.conv.weight"}, path)
    with pytest.raises(SourceError, match=r"block2\.conv\.weight.*1 missing"):
        load_source(str(path), arch=TINY_ARCH)


def test_nan_is_refused(state: State, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(state | {"stem.conv.weight": torch.full((8, 3, 3, 3), torch.nan)}, path)
    with pytest.raises(SourceError, match=r"NaN.*stem\.conv\.weight"):
        load_source(str(path), arch=TINY_ARCH)


class Hostile:
    """A pickle that runs a command when it is opened."""

    def __reduce__(self):
        return os.system, ("touch hostile-code-ran",)


@pytest.mark.parametrize("how", ["zip", "old", "pickle 2", "pickle 5"])
def test_a_pickle_that_wants_to_run_code_is_refused(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.pt"
    if how.startswith("pickle"):
        path.write_bytes(pickle.dumps(Hostile(), protocol=int(how[-1])))
    else:
        torch.save({"weight": Hostile()}, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(SourceError, match=r"wants to use (posix|nt)\.system.*weights\.safetensors"):
        load_source(str(path), arch=TINY_ARCH)
    assert not (tmp_path / "hostile-code-ran").exists()


def test_a_pickled_network_is_refused_by_its_class(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "net.pt")
    with pytest.raises(SourceError, match=r"wants to use torch\.nn\.modules\.linear\.Linear"):
        load_source(str(tmp_path / "net.pt"), arch=TINY_ARCH)


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
@pytest.mark.parametrize("part", [0, 60, 0.5, 0.99])
def test_a_damaged_file_says_so(name: str, part: float, state: State, tmp_path: Path) -> None:
    path = tmp_path / name
    torch.save(state, path) if path.suffix == ".pt" else safetensors.torch.save_file(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole)) if isinstance(part, float) else part])
    with pytest.raises(SourceError, match=r"damaged|empty|not a whole|not a weight file"):
        load_source(str(path), arch=TINY_ARCH)


@pytest.mark.parametrize("content", [b"hello there\n" * 20, b"\x08\x00TFL3" * 30, bytes(range(256))])
def test_another_format_says_so(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="format that is read today"):
        load_source(str(path), arch=TINY_ARCH)


def test_a_file_without_tensors_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "net.pt")
    with pytest.raises(SourceError, match="no named tensors, only epoch"):
        load_source(str(tmp_path / "net.pt"), arch=TINY_ARCH)


def test_bare_weights_need_an_architecture(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(SourceError, match=r"do not say their architecture.*--arch"):
        load_source(str(tmp_path / "net.pt"))


def test_an_architecture_that_does_not_say_its_input(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(nn.Linear(4, 2).state_dict(), path)
    (tmp_path / "plain_nets.py").write_text("from torch import nn\ndef line(): return nn.Linear(4, 2)\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with pytest.raises(SourceError, match=r"--input-size 3,32,32 --mean .* --std"):
            load_source(str(path), arch="plain_nets:line")
        spec = InputSpec(size=(1, 2, 2), mean=(0.5,), std=(0.5,))
        assert load_source(str(path), arch="plain_nets:line", input=spec).input == spec


def test_real_cifar_checkpoints(shared_data: Path) -> None:
    source = load_source(
        str(shared_data / "weights" / "resnet56-4bfd9763.th"), arch="regraft.source.cifar_resnet:resnet56"
    )
    assert source.report is not None and source.report.complete
    assert source.report.ignored == ("best_prec1",)
    assert "state_dict.module." in source.report.renamed
    with pytest.raises(SourceError, match="does not fit"):
        load_source(source.uri, arch="regraft.source.cifar_resnet:resnet20")
