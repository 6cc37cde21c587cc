"""TensorFlow 1 without TensorFlow: networks that TensorFlow wrote give its outputs, from every one of their files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from graphs import check_laws
from torch import nn

from damage import mutations
from regraft.cli.inspect import command
from regraft.errors import RegraftError, SourceError
from regraft.source import Source, expects, load_source, read_variables, restore_variables
from regraft.source.tf1 import contents, open_variables
from regraft.source.tf1.schema import messages
from regraft.spec import InputSpec

FIXTURES = Path(__file__).parent / "fixtures" / "tf1.zip"
CASES = sorted({name.partition("/")[0] for name in zipfile.ZipFile(FIXTURES).namelist()})


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tf1")
    with zipfile.ZipFile(FIXTURES) as archive:
        archive.extractall(folder)
    return folder


def pictures(shape: list[int]) -> np.ndarray:
    """As fixtures/make_tf1.py draws them."""
    return np.random.default_rng(5).integers(-64, 64, [2, *shape]).astype(np.float32) / 32


def spec_of(shape: list[int]) -> InputSpec:
    """Of pictures (H, W, C), or of rows."""
    rows = {48: (3, 4, 4), 16: (1, 4, 4)}
    size = (shape[2], *shape[:2]) if len(shape) == 3 else rows[shape[0]]
    return InputSpec(size, (0.0,) * size[0], (1.0,) * size[0])


def ours(x: np.ndarray, spec: InputSpec) -> torch.Tensor:
    """The file's pictures, or rows of (H, W, C), as (N, C, H, W)."""
    c, h, w = spec.size
    return torch.from_numpy(x.reshape(-1, h, w, c)).permute(0, 3, 1, 2).contiguous()


def opened(networks: Path, name: str, end: str = "") -> tuple[Source, dict]:
    case = json.loads((networks / name / "case.json").read_text())
    uri = str(networks / name / "model.ckpt") + (f"#{end}" if end else "")
    return load_source(uri, input=spec_of(case["input"])), case


@pytest.mark.parametrize("name", CASES)
def test_a_network_gives_the_outputs_of_tensorflow(name: str, networks: Path) -> None:
    source, case = opened(networks, name)
    with torch.no_grad():
        found = source.model(ours(pictures(case["input"]), source.input)).numpy()
    wanted = np.array(case["output"])
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("name", CASES)
def test_the_laws_of_a_graph_hold(name: str, networks: Path) -> None:
    source, _ = opened(networks, name)
    traced = check_laws(source)
    assert traced.feature.name != "output" and len(traced.cuts) > 4


def test_the_original_names_are_tensors_and_cuts(networks: Path) -> None:
    source, _ = opened(networks, "mlp")
    names = [name for name, _ in source.model.named_parameters()]
    assert names[:4] == ["dnn/hidden1/kernel", "dnn/hidden1/bias", "dnn/hidden2/kernel", "dnn/hidden2/bias"]
    traced = check_laws(source)
    assert [traced.cut(f"dnn/hidden{i}/{op}").shape for i in (1, 4) for op in ("Relu",)] == [(10,), (7,)]
    assert traced.feature.name == "dnn/hidden4/Relu"
    assert [cut.name for cut in traced.stages][-1] == "dnn/hidden4/Relu"
    report = source.report
    assert report is not None and report.complete and len(report.matched) == 10
    assert {"global_step", "train/beta1_power", "dnn/hidden1/kernel/Adam_1"} <= set(report.ignored)


@pytest.mark.parametrize("end", ["dnn/hidden4/Relu", "dnn/hidden4/Relu:0", "dnn/hidden2/MatMul:0"])
def test_a_network_ends_where_it_is_told_to(end: str, networks: Path) -> None:
    whole, case = opened(networks, "mlp")
    part, _ = opened(networks, "mlp", end)
    x = ours(pictures(case["input"]), whole.input)
    traced = check_laws(part)
    assert traced.cuts[-1].name == "output"
    steps = {}
    for name, module in whole.model.named_children():
        module.register_forward_hook(lambda _m, _i, y, name=name: steps.update({name: y}))
    whole.model(x)
    assert torch.equal(part.model(x), steps[end.partition(":")[0]])
    assert part.report is not None and "dnn/outputs/kernel" in part.report.unexpected


@pytest.mark.parametrize("name", ["", "model.ckpt", "model.ckpt.meta", "model.ckpt.index", "checkpoint"])
def test_every_file_of_a_checkpoint_opens_it(name: str, networks: Path) -> None:
    source, _ = opened(networks, "conv")
    same = load_source(str(networks / "conv" / name), input=source.input)
    assert same.weights_digest == source.weights_digest


def test_the_older_format_holds_the_same_network(networks: Path) -> None:
    source, _ = opened(networks, "autoencoder")
    old = load_source(str(networks / "autoencoder/old.ckpt"), input=source.input)
    assert old.weights_digest == source.weights_digest
    assert sorted(read_variables(str(networks / "autoencoder/old.ckpt"))) == ["b1", "b2", "weight"]


def test_a_graph_that_goes_in_a_circle_is_refused(networks: Path, tmp_path: Path) -> None:
    for file in (networks / "mlp").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    meta = messages()["MetaGraphDef"].FromString((tmp_path / "model.ckpt.meta").read_bytes())
    first = next(node for node in meta.graph_def.node if node.name == "dnn/hidden1/Relu")
    first.input[0] = "dnn/hidden3/Selu"
    last = next(node for node in meta.graph_def.node if node.name == "dnn/hidden2/MatMul")
    last.input.append("X")  # so that the placeholder is still on the way
    (tmp_path / "model.ckpt.meta").write_bytes(meta.SerializeToString())
    with pytest.raises(SourceError, match="depends on itself"):
        load_source(f"{tmp_path}#dnn/hidden4/Relu", input=spec_of([48]))


def test_moving_averages_are_a_choice(networks: Path) -> None:
    plain, _ = opened(networks, "conv")
    averaged, _ = opened(networks, "conv", "&averages")
    kernel = open_variables(networks / "conv/model.ckpt")["block1/kernel/ExponentialMovingAverage"]
    name = "block1/kernel"
    assert np.array_equal(averaged.model.get_parameter(name).detach().numpy(), kernel.transpose(3, 2, 0, 1))
    assert plain.weights_digest != averaged.weights_digest
    with pytest.raises(SourceError, match="&averages"):
        opened(networks, "conv", "&medians")


def test_batch_norm_and_dropout_are_what_a_plan_can_switch(networks: Path) -> None:
    source, _ = opened(networks, "training")
    targets = [str(node.target) for node in check_laws(source).graph.graph.nodes]
    assert sum("batch_norm" in target for target in targets) == 2
    assert sum("dropout" in target for target in targets) >= 1
    assert {name for name, _ in source.model.named_buffers()} >= {"Conv/BatchNorm/moving_mean"}


def test_the_graph_without_its_variables_is_an_architecture(networks: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt.meta"
    path.write_bytes((networks / "conv/model.ckpt.meta").read_bytes())
    spec = opened(networks, "conv")[0].input
    fresh = load_source(str(path), input=spec, random_weights=True)
    assert fresh.n_params == opened(networks, "conv")[0].n_params
    with pytest.raises(SourceError, match="index"):
        load_source(str(path), input=spec)


def test_an_input_that_is_not_said_is_asked_for(networks: Path) -> None:
    with pytest.raises(SourceError, match=r"size=\(3, 13, 15\)"):
        load_source(str(networks / "conv/model.ckpt"))


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ("block9/Conv2D", "block2/Conv2D"),
        ("block1/kernel", "no placeholder"),
        ("block1/kernel:99999999999", "no operation"),
    ],
)
def test_an_end_that_is_none_is_refused(end: str, says: str, networks: Path) -> None:
    with pytest.raises(SourceError, match=says):
        opened(networks, "conv", end)


def test_contents_list_operations_and_variables(networks: Path) -> None:
    found = contents(networks / "mlp")
    assert ("dnn/hidden4/Relu", "Relu") in found.operations
    assert found.variables["dnn/hidden2/kernel"] == (10, 9)
    assert (found.input, found.size, found.end) == ("X", (3, 4, 4), "dnn/outputs/BiasAdd")


# variables into a network of one's own ----------------------------------------------------------------


class Mine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = [48, 10, 9, 8, 7]
        self.hidden1, self.hidden2, self.hidden3, self.hidden4 = map(nn.Linear, sizes[:-1], sizes[1:])
        self.outputs = nn.Linear(7, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.hidden1(x.permute(0, 2, 3, 1).flatten(1)))
        h = nn.functional.selu(self.hidden3(nn.functional.elu(self.hidden2(h))))
        return self.outputs(torch.relu(self.hidden4(h)))


@expects(InputSpec((3, 4, 4), (0.0,) * 3, (1.0,) * 3))
def mine() -> Mine:
    return Mine()


def test_variables_go_into_a_network_of_ones_own(networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    theirs, case = opened(networks, "mlp")
    source = load_source(str(networks / "mlp/model.ckpt"), arch="test_tf1:mine")
    x = ours(pictures(case["input"]), source.input)
    torch.testing.assert_close(source.model(x), theirs.model(x))
    assert source.report is not None and source.report.renamed == "stripped prefix 'dnn.'"
    assert "global_step" in source.report.ignored


def test_some_variables_can_be_restored_by_a_pattern(networks: Path) -> None:
    found = read_variables(str(networks / "mlp"), "hidden[123]")
    assert sorted(found) == [f"dnn.hidden{i}.{part}" for i in (1, 2, 3) for part in ("bias", "weight")]
    network = Mine()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    report = restore_variables(network, str(networks / "mlp"), "hidden[123]")
    assert set(report.matched) == {name.removeprefix("dnn.") for name in found} and len(report.missing) == 4
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name] if name in report.missing else found[f"dnn.{name}"])
    with pytest.raises(SourceError, match=r"weight of .*no place in Linear.*regraft inspect"):
        restore_variables(torch.nn.Linear(2, 2), str(networks / "mlp"), "hidden1/kernel")
    with pytest.raises(SourceError, match="hidden9"):
        read_variables(str(networks / "mlp"), "hidden9")


def test_a_missing_shard_is_named(networks: Path, tmp_path: Path) -> None:
    for file in (networks / "mlp").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.ckpt.data-00002-of-00004").unlink()
    with pytest.raises(SourceError, match="data-00002-of-00004"):
        opened(tmp_path.parent, tmp_path.name)


@pytest.mark.parametrize(
    "name", ["model.ckpt.index", "model.ckpt.meta", "model.ckpt.data-00001-of-00004", "checkpoint"]
)
def test_damaged_files_end_in_one_message(name: str, networks: Path, tmp_path: Path) -> None:
    for file in (networks / "mlp").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    whole = (tmp_path / name).read_bytes()
    refused = 0
    for data in mutations(whole, 60 if name.endswith("meta") else 200):
        (tmp_path / name).write_bytes(data)
        try:
            load_source(str(tmp_path), input=spec_of([48]))
        except RegraftError as error:
            refused += bool(str(error))
    assert refused


def test_damaged_files_of_the_older_format_end_in_one_message(networks: Path, tmp_path: Path) -> None:
    (tmp_path / "old.ckpt.meta").write_bytes((networks / "autoencoder/old.ckpt.meta").read_bytes())
    refused = 0
    for data in mutations((networks / "autoencoder/old.ckpt").read_bytes(), 200):
        (tmp_path / "old.ckpt").write_bytes(data)
        try:  # a few land in the padding of the footer
            load_source(str(tmp_path / "old.ckpt"), input=spec_of([16]))
        except RegraftError as error:
            refused += bool(str(error))
    assert refused > 180


def test_weights_that_are_not_numbers_are_refused(networks: Path, tmp_path: Path) -> None:
    for file in (networks / "autoencoder").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    index = tmp_path / "model.ckpt.index"
    entry = open_variables(tmp_path / "model.ckpt")._entries[b"weights"]
    values = bytearray(data.read_bytes())
    values[entry.offset : entry.offset + 4] = np.float32("nan").tobytes()
    data.write_bytes(values)
    assert index.is_file()
    with pytest.raises(SourceError, match="checksum"):
        load_source(str(tmp_path), input=spec_of([16]))


def test_inspect_lists_operations_and_variables(networks: Path) -> None:
    ran = CliRunner().invoke(command, [str(networks / "mlp/model.ckpt"), "--json"])
    found = json.loads(ran.stdout)
    assert ["dnn/hidden4/Relu", "Relu"] in found["operations"]
    assert found["variables"]["dnn/hidden1/kernel"] == [48, 10]
    assert "dnn/hidden4/Relu" in [cut["name"] for cut in found["cuts"]]
    ran = CliRunner().invoke(command, [f"{networks / 'mlp'}#dnn/hidden2/Elu"])
    assert ran.exit_code == 0 and "dnn/outputs/kernel" in ran.stdout
