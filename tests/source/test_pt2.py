"""Programs of torch.export: the module's own answers, names and cuts; nothing of the file runs as code."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import NETWORKS, made, relative
from torch import nn

from damage import mutations
from readers import MARK, TRAP
from regraft.cut import between, join, split, trace
from regraft.cut.training import set_training
from regraft.errors import RegraftError, SourceError
from regraft.source import MissingInput, Source, load_source, with_random_weights, write_source
from regraft.source.pt2.ops import ALLOWED, find_op
from regraft.spec import InputSpec
from regraft.testing import check_source

SPEC = InputSpec(size=(3, 16, 16))
REMEDY = r"dynamic_shapes=\(\{0: torch\.export\.Dim\('batch'\)\},\)"


def exported(model: nn.Module, path: Path, n: int = 0, *, example: torch.Tensor | None = None) -> Path:
    """The model as a .pt2 file, for a fixed number of pictures or for any."""
    x = torch.rand(n or 2, 3, 16, 16) if example is None else example
    shapes = None if n else ({0: torch.export.Dim("n")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model, (x,), dynamic_shapes=shapes), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pt2")
    return {name: exported(made(name), folder / f"{name}.pt2") for name in NETWORKS}


@pytest.fixture
def whole(files: dict[str, Path]) -> Path:
    return files["convolutions"]


def opened(path: Path | str) -> Source:
    return load_source(str(path), input=SPEC)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_keeps_the_contract_and_has_its_modules_answers_names_and_cuts(
    name: str, files: dict[str, Path]
) -> None:
    model, source = made(name), opened(files[name])
    for n in (1, 2, 5):
        x = torch.rand(n, 3, 16, 16)
        assert relative(source.model(x), model(x)) < 1e-6
    assert source.report is not None and source.report.complete
    assert source.model.state_dict().keys() == model.state_dict().keys()
    assert {n for n, _ in source.model.named_parameters()} == {n for n, _ in model.named_parameters()}
    model.load_state_dict(source.model.state_dict())  # and back
    x = torch.rand(2, 3, 16, 16)
    traced, wanted = trace(source.model, x), trace(model, x)
    assert not traced.fallback_reason
    assert [(cut.name, cut.shape) for cut in traced.cuts] == [(cut.name, cut.shape) for cut in wanted.cuts]
    for cut in traced.cuts:
        assert torch.equal(join(*split(traced, cut))(x), source.model(x))
    check_source(source)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_fixed_number_of_pictures_is_mended(name: str, n: int, tmp_path: Path) -> None:
    model = made(name)
    source = opened(exported(model, tmp_path / "net.pt2", n))
    for count in (1, 2, 7):
        x = torch.rand(count, 3, 16, 16)
        assert relative(source.model(x), model(x)) < 1e-6


class Ranks(nn.Module):
    """A network whose answer to a picture depends on the others."""

    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.mean((2, 3))
        return self.l(x - x.reshape(1, x.shape[0], 3).mean(1))


class FirstTwo(nn.Module):
    """A network that takes no other number of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.mean((2, 3)).unbind(0)
        return self.l(torch.stack([first, second]))


@pytest.mark.parametrize("network", [Ranks, FirstTwo])
def test_what_cannot_be_mended_ends_with_the_call_that_exports_it_anew(
    network: type[nn.Module], tmp_path: Path
) -> None:
    path = exported(network().eval(), tmp_path / "net.pt2", 2)
    with pytest.raises(SourceError, match=REMEDY):
        opened(path)


def test_a_program_exported_in_training_mode_is_read_in_evaluation(tmp_path: Path) -> None:
    model = made("convolutions")
    source = opened(exported(model.train(), tmp_path / "net.pt2"))
    x = torch.rand(3, 3, 16, 16)
    assert relative(source.model(x), model.eval()(x)) < 1e-6
    assert source.model.state_dict().keys() == model.state_dict().keys()


def test_batch_norm_and_dropout_can_be_switched_on_again(whole: Path) -> None:
    source, x = opened(whole), torch.rand(4, 3, 16, 16)
    traced = trace(source.model, x)
    graph = between(traced, "input", ["output"])
    set_training(graph, batch_norm="train", dropout=True)
    model = made("convolutions").train()
    torch.manual_seed(3)
    wanted = model(x)
    torch.manual_seed(3)
    assert relative(graph(x)[0], wanted) < 1e-5
    assert torch.allclose(source.model.state_dict()["bn.running_mean"], model.state_dict()["bn.running_mean"])


def test_a_network_may_end_at_a_module_or_a_value(whole: Path) -> None:
    model, x = made("convolutions"), torch.rand(2, 3, 16, 16)
    below = opened(f"{whole}#bn")
    assert relative(below.model(x), model.get_submodule("bn")(model.get_submodule("c")(x))) < 1e-6
    assert below.report is not None and "l.weight" in below.report.unexpected
    assert opened(f"{whole}#flatten").model(x).shape == (2, 512)
    with pytest.raises(SourceError, match=r"no module or value 'poll'\. Did you mean 'pool'"):
        opened(f"{whole}#poll")


def test_the_input_is_asked_for_with_the_size_that_the_file_says(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"--input-size 3,16,16 --mean") as asked:
        load_source(str(whole))
    assert asked.value.size == (3, 16, 16)
    with pytest.raises(SourceError, match=r"takes pictures of \(C, H, W\) = \(3, 16, 16\), asked for \(3, 32, 32\)"):
        load_source(str(whole), input=InputSpec(size=(3, 32, 32)))
    with pytest.raises(SourceError, match="says its architecture itself"):
        load_source(str(whole), arch="timm:resnet18")
    free = {0: torch.export.Dim("n"), 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    torch.export.save(
        torch.export.export(network, (torch.rand(2, 3, 20, 24),), dynamic_shapes=(free,)), tmp_path / "net.pt2"
    )
    with pytest.raises(MissingInput, match=r"--input-size 3,20,24"):
        load_source(str(tmp_path / "net.pt2"))
    x = torch.rand(2, 3, 31, 17)
    source = load_source(str(tmp_path / "net.pt2"), input=InputSpec(size=(3, 31, 17)))
    assert relative(source.model(x), network(x)) < 1e-6


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.l(x).mean((1, 2))


def test_channels_last_programs_take_channels_first(tmp_path: Path) -> None:
    model, x = ChannelsLast().eval(), torch.rand(2, 3, 16, 16)
    source = opened(exported(model, tmp_path / "net.pt2", example=x.permute(0, 2, 3, 1).contiguous()))
    assert source.input.size == (3, 16, 16)
    assert relative(source.model(x), model(x.permute(0, 2, 3, 1))) < 1e-6


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        self.two.weight = self.one.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.relu(self.one(x.mean((2, 3)))))


def test_weights_that_two_modules_share_stay_shared(tmp_path: Path) -> None:
    source = opened(exported(Tied().eval(), tmp_path / "net.pt2"))
    names = dict(source.model.named_parameters(remove_duplicate=False))
    assert names["one.weight"] is names["two.weight"] and names["one.bias"] is not names["two.bias"]


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    model = made("convolutions").bfloat16()
    source = opened(exported(model, tmp_path / "net.pt2", example=torch.rand(2, 3, 16, 16).bfloat16()))
    assert all(p.dtype == torch.float32 for p in source.model.parameters())
    x = torch.rand(2, 3, 16, 16)
    assert relative(source.model(x), model.float()(x)) < 1e-6


def test_a_random_twin_keeps_constants_and_loses_weights(whole: Path) -> None:
    source = opened(whole)
    twin, other = (with_random_weights(source, seed=seed).model.state_dict() for seed in (1, 2))
    assert torch.equal(twin["scale"], source.model.state_dict()["scale"])
    assert not torch.equal(twin["c.weight"], other["c.weight"])
    assert torch.equal(twin["bn.running_var"], torch.ones(8)) and torch.equal(twin["bn.weight"], torch.ones(8))


def test_a_folder_of_it_is_opened_again(whole: Path, tmp_path: Path) -> None:
    source = opened(whole)
    write_source(tmp_path / "net", source)
    assert load_source(str(tmp_path / "net")).weights_digest == source.weights_digest


# what is refused --------------------------------------------------------------------------------------


def edited(whole: Path, to: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy of the archive in which members are changed, or left out."""
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return to


def bent_json(whole: Path, to: Path, member: str, change: Callable[[Any], object]) -> Path:
    def one(name: str, content: bytes) -> bytes:
        if not name.endswith(member):
            return content
        found = json.loads(content)
        change(found)
        return json.dumps(found).encode()

    return edited(whole, to, one)


def nodes_of(program: Any) -> list[Any]:
    return program["graph_module"]["graph"]["nodes"]


class Spectrum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft2(x).abs().mean((1, 2)) + torch.rand(1)


def test_all_operations_that_are_not_read_are_listed(tmp_path: Path) -> None:
    path = exported(Spectrum().eval(), tmp_path / "net.pt2")
    with pytest.raises(SourceError, match=r"aten\.fft_rfft2\.default \(1 times\), torch\.ops\.aten\.rand"):
        opened(path)


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.as_strided.default",
        "torch.ops.aten.relu.nothing",
        "torch.ops.aten.relu.__class__",
        "torch.ops.aten.relu",
        "torch.ops.aten.add.out",
        "torch.ops.mine.relu.default",
        "torch.ops.aten.__class__.default",
        "_operator.pow",
        "os.system",
        "builtins.eval",
    ],
)
def test_only_known_operations_are_looked_up(target: str, whole: Path, tmp_path: Path) -> None:
    path = bent_json(whole, tmp_path / "net.pt2", "model.json", lambda p: nodes_of(p)[0].update(target=target))
    with pytest.raises(SourceError, match="operations that are not read here"):
        opened(path)


def test_every_allowed_operation_exists() -> None:
    assert {name for name in ALLOWED if not hasattr(torch.ops.aten, name)} == set()
    assert find_op("torch.ops.aten.relu_.default") is torch.ops.aten.relu_.default


def test_no_code_of_the_file_runs(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trap = pickle.dumps(TRAP)
    saved = io.BytesIO()
    torch.save(TRAP, saved)

    def change(name: str, content: bytes) -> bytes:
        if "sample_inputs" in name:
            return saved.getvalue()
        if name.endswith("model.json"):
            return content.replace(b"Symbol(", f"__import__('os').system('touch {MARK}') or (".encode())
        return content

    edited(whole, tmp_path / "expressions.pt2", change)
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(opened(tmp_path / "expressions.pt2").model(x), opened(whole).model(x))
    path = bent_json(
        whole, tmp_path / "a.pt2", "weights_config.json", lambda c: c["config"]["c.weight"].update(use_pickle=True)
    )
    edited(path, tmp_path / "pickled.pt2", lambda name, content: trap if name.endswith("weight_0") else content)
    with pytest.raises(SourceError, match=r"'c\.weight' is an object .*pickle, which is not opened"):
        opened(tmp_path / "pickled.pt2")
    assert not (tmp_path / MARK).exists()


def _view(program: Any, name: str, **meta: Any) -> None:
    program["config"][name]["tensor_meta"].update(meta)


@pytest.mark.parametrize(
    ("member", "change", "message"),
    [
        ("weights_config.json", lambda c: _view(c, "c.weight", sizes=[{"as_int": 2**40}]), "do not hold"),
        ("weights_config.json", lambda c: _view(c, "c.bias", storage_offset={"as_int": 4}), "do not hold"),
        ("weights_config.json", lambda c: _view(c, "c.bias", strides=[{"as_int": -1}]), "do not hold"),
        ("weights_config.json", lambda c: _view(c, "c.bias", dtype=99), "type that is not read"),
        ("weights_config.json", lambda c: c["config"].pop("c.bias"), "damaged or no program"),
        ("weights_config.json", lambda c: c["config"]["c.bias"].update(path_name="../../x"), "an object of a class"),
        ("model.json", lambda p: nodes_of(p).reverse(), "has a cycle or lacks a part"),
        ("model.json", lambda p: nodes_of(p).insert(1, nodes_of(p)[0]), "stands for two values"),
        ("model.json", lambda p: nodes_of(p)[0]["inputs"][3]["arg"].update(as_ints=[0, 0]), "cannot be applied"),
        ("model.json", lambda p: nodes_of(p)[0]["inputs"][4]["arg"].update(as_ints=[2**20] * 2), "cannot be applied"),
        ("model.json", lambda p: p["schema_version"].update(major=7), "in form 7, expected form 8"),
        ("model.json", lambda p: p["graph_module"]["signature"].update(output_specs=[]), "damaged or no program"),
    ],
)
def test_impossible_numbers_are_refused(
    member: str, change: Callable[[Any], object], message: str, whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=message):
        opened(bent_json(whole, tmp_path / "net.pt2", member, change))


def test_names_that_pytorch_takes_are_refused(whole: Path, tmp_path: Path) -> None:
    def rename(name: str, content: bytes) -> bytes:
        return content.replace(b'"c.bias"', b'"c.training"') if name.endswith(".json") else content

    with pytest.raises(SourceError, match=r"'c\.training', which is no name in a network"):
        opened(edited(whole, tmp_path / "net.pt2", rename))


def test_other_layouts_say_what_they_are(whole: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", pickle.dumps(TRAP))
    with pytest.raises(SourceError, match=rf"layout of PyTorch before 2\.8.*{REMEDY}"):
        opened(tmp_path / "old.pt2")
    with zipfile.ZipFile(tmp_path / "compiled.pt2", "w") as archive:
        archive.writestr("net/data/aotinductor/model/code.so", b"")
    with pytest.raises(SourceError, match="machine code"):
        opened(tmp_path / "compiled.pt2")
    (tmp_path / "net.bin").write_bytes(whole.read_bytes())
    assert opened(tmp_path / "net.bin").weights_digest == opened(whole).weights_digest  # content, not the name


def test_a_bomb_is_refused(whole: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(tmp_path / "net.pt2", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        new.writestr("net/data/weights/weight_99", bytes(200 << 20))
    with pytest.raises(SourceError, match="would unpack to"):
        opened(tmp_path / "net.pt2")


def test_two_inputs_or_rows_are_refused(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    x = torch.rand(2, 3, 16, 16)
    torch.export.save(torch.export.export(Two(), (x, x)), tmp_path / "two.pt2")
    with pytest.raises(SourceError, match="takes 2 inputs, expected pictures alone"):
        opened(tmp_path / "two.pt2")
    torch.export.save(torch.export.export(nn.Linear(4, 2), (torch.rand(2, 4),)), tmp_path / "rows.pt2")
    with pytest.raises(SourceError, match="an input of 2 axes"):
        opened(tmp_path / "rows.pt2")


def test_nan_is_refused(tmp_path: Path) -> None:
    model = made("convolutions")
    nn.init.constant_(model.c.weight, torch.nan)  # type: ignore[union-attr]
    with pytest.raises(SourceError, match=r"NaN.*c\.weight"):
        opened(exported(model, tmp_path / "net.pt2"))


def test_damaged_files_are_one_message_or_a_network(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    refused = 0
    for content in mutations(whole.read_bytes(), 60):
        path.write_bytes(content)
        try:
            opened(path)
        except RegraftError as error:
            refused += 1
            assert str(error)
    assert refused > 20
