"""ONNX: several makers' files give what ONNX Runtime gave, under the file's own names, and can be cut and rebuilt."""

from __future__ import annotations

import json
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from damage import bent, mutations
from regraft.cut import join, split, trace
from regraft.errors import MissingExtra, SourceError
from regraft.source import build, load_source, with_random_weights, write_source
from regraft.source.onnx.ops import OPS, sizes
from regraft.spec import InputSpec

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

HERE = Path(__file__).parent / "fixtures" / "onnx"
FILES = sorted(path.name for path in HERE.glob("*.onnx"))
SPEC = InputSpec(size=(3, 32, 32))


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(HERE / "outputs.npz") as file:
        return dict(file)


def test_there_are_fixtures_of_every_kind() -> None:
    assert {name.partition("_")[0] for name in FILES} == {"by", "residual", "single", "tokens"}


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_the_outputs_of_onnx_runtime_and_can_be_cut_and_rebuilt(
    name: str, stored: dict[str, np.ndarray]
) -> None:
    source = load_source(str(HERE / name), input=SPEC)
    x, wanted = torch.from_numpy(stored["x"]), torch.from_numpy(stored[name.removesuffix(".onnx")])
    found = source.model(x).detach()
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-4
    assert source.report is not None and source.report.complete
    traced = trace(source.model, torch.zeros(2, 3, 32, 32))
    assert not traced.fallback_reason and len(traced.cuts) > 3
    for cut in traced.cuts:
        assert torch.equal(join(*split(traced, cut))(x), found)
    again, _ = build(source.arch, json.loads(json.dumps(source.arch_args)))
    again.load_state_dict(source.model.state_dict())
    assert torch.equal(again(x), found)


def test_original_names_are_kept_and_found() -> None:
    source = load_source(str(HERE / "residual_17.onnx"), input=SPEC)
    names = dict(source.model.named_parameters())
    assert {"stem.0.weight", "block.0.weight", "gate.bias", "head.weight"} <= names.keys()
    traced = trace(source.model, torch.zeros(2, 3, 32, 32))
    assert traced.cut("/pool/MaxPool").shape == (8, 8, 8)
    by_hand = trace(load_source(str(HERE / "by_hand_11.onnx"), input=SPEC).model, torch.zeros(2, 3, 32, 32))
    assert by_hand.cut("net/MaxPool/max").shape == (6, 8, 8)


def test_every_parameter_can_be_trained() -> None:
    source = load_source(str(HERE / "tokens_20.onnx"), input=SPEC)
    source.model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in source.model.parameters())


def test_statistics_are_buffers_and_a_random_twin_is_fresh(stored: dict[str, np.ndarray]) -> None:
    source = load_source(str(HERE / "by_hand_11.onnx"), input=SPEC)
    assert {"bn/mean", "bn/variance"} <= {n for n, _ in source.model.named_buffers()}
    assert {"bn/gamma", "bn/beta"} <= {n for n, _ in source.model.named_parameters()}
    twin = with_random_weights(source, seed=1)
    assert twin.weights_digest != source.weights_digest
    assert twin.model(torch.from_numpy(stored["x"])).isfinite().all()
    assert torch.equal(twin.model.state_dict()["bn/variance"], torch.ones(6))


def test_a_network_may_end_at_a_node_or_a_value() -> None:
    source = load_source(f"{HERE / 'by_hand_11.onnx'}#net/MaxPool/max", input=SPEC)
    assert source.model(torch.zeros(2, 3, 32, 32)).shape == (2, 6, 8, 8)
    assert "dense/kernel" in source.report.unexpected  # type: ignore[union-attr]
    assert load_source(f"{HERE / 'by_hand_11.onnx'}#logits", input=SPEC).model(torch.zeros(2, 3, 32, 32)).shape == (
        2,
        5,
    )
    with pytest.raises(SourceError, match=r"no node or value 'logit'\. Did you mean 'logits'"):
        load_source(f"{HERE / 'by_hand_11.onnx'}#logit", input=SPEC)


def test_a_source_folder_needs_no_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = load_source(str(HERE / "tokens_17.onnx"), input=SPEC)
    write_source(tmp_path / "net", source)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert load_source(str(tmp_path / "net")).weights_digest == source.weights_digest
    with pytest.raises(MissingExtra, match=r"regraft\[onnx\]"):
        load_source(str(HERE / "tokens_17.onnx"), input=SPEC)


def test_weights_beside_the_graph(tmp_path: Path) -> None:
    whole = onnx.load(HERE / "residual_17.onnx")
    onnx.save(whole, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    digest = load_source(str(HERE / "residual_17.onnx"), input=SPEC).weights_digest
    assert load_source(str(tmp_path / "net.onnx"), input=SPEC).weights_digest == digest
    data = tmp_path / "net.data"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(SourceError, match="ends before the weights"):
        load_source(str(tmp_path / "net.onnx"), input=SPEC)
    data.unlink()
    with pytest.raises(SourceError, match=r"keeps its weights in net\.data, which is not there"):
        load_source(str(tmp_path / "net.onnx"), input=SPEC)
    model = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../../etc/passwd" if entry.key == "location" else entry.value
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match="expected a file beside it"):
        load_source(str(tmp_path / "net.onnx"), input=SPEC)


def small(nodes: list[Any], stored: dict[str, np.ndarray] | None = None, shape: tuple = ("n", 3, 8, 8)) -> Any:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in (stored or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            small([helper.make_node("NonZero", ["x"], ["a"]), helper.make_node("QAdd", ["a"], ["y"], domain="m")]),
            r"operators that are not read here: NonZero \(1 times\), m\.QAdd \(1 times\)",
        ),
        (
            small([helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Add", ["a", "x"], ["b"]),
                   helper.make_node("Relu", ["b"], ["y"])]),
            "reads 'b', which nothing before it computes: the graph has a cycle",
        ),
        (small([helper.make_node("Relu", ["x"], ["z"])]), "nothing computes the output 'y'"),
        (small([helper.make_node("Relu", ["x"], ["y"])], shape=("n", 10)), "expected pictures"),
        (small([helper.make_node("Relu", ["x"], ["y"])], shape=("n", 3, 16, 16)), r"= \(3, 16, 16\), asked"),
        (
            small([helper.make_node("Expand", ["x", "s"], ["y"])], {"s": np.array([2**40, 3, 8, 8])}),
            r"\(Expand\) cannot be applied",
        ),
        (
            small([helper.make_node("Tile", ["s", "s"], ["t"]), helper.make_node("Reshape", ["x", "t"], ["y"])],
                  {"s": np.array([2**40])}),
            r"\(Tile\) cannot be applied",
        ),
        (
            small([helper.make_node("Reshape", ["x", "s"], ["y"])], {"s": np.array([1, 192])}),
            r"\(Reshape\) cannot be applied .*for any number of pictures",
        ),
        (
            small([helper.make_node("Reshape", ["x", "s"], ["y"])], {"s": np.array([1, -1])}),
            "exported for a single picture",
        ),
        (
            small([helper.make_node("Mul", ["x", "w"], ["y"])], {"w": np.full((3, 1, 1), np.nan, np.float32)}),
            "holds NaN",
        ),
        (small([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": np.zeros((4, 5, 3, 3), np.float32)}), "cannot be"),
    ],
)  # fmt: skip
def test_a_graph_that_cannot_be_used_says_why(model: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match=message):
        load_source(str(tmp_path / "net.onnx"), input=InputSpec(size=(3, 8, 8)))


def test_an_old_operator_set_and_a_missing_input_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"does not say what input.*size=\(3, 32, 32\)"):
        load_source(str(HERE / "residual_17.onnx"))
    model = small([helper.make_node("Relu", ["x"], ["y"])])
    model.opset_import[0].version = 9
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match=r"operator set 9, expected some of 11 or later.*convert_version"):
        load_source(str(tmp_path / "net.onnx"), input=InputSpec(size=(3, 8, 8)))


def test_a_length_of_2_to_the_63_is_refused(tmp_path: Path) -> None:
    model = small([helper.make_node("Mul", ["x", "w"], ["y"])], {"w": np.ones((3, 1, 1), np.float32)})
    model.graph.initializer[0].dims[:] = [2**62, 2, 2]
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match="tensor 'w' is damaged"):
        load_source(str(tmp_path / "net.onnx"), input=InputSpec(size=(3, 8, 8)))


@pytest.mark.parametrize("name", ["residual_17.onnx", "tokens_17.onnx"])
def test_damaged_files_give_one_clear_message(name: str, tmp_path: Path) -> None:
    path, refused = tmp_path / "net.onnx", 0
    for data in mutations((HERE / name).read_bytes(), 100):
        path.write_bytes(data)
        try:
            load_source(str(path), input=SPEC)  # a flipped bit among the weights is another weight
        except SourceError:
            refused += 1
    assert refused > 40


def test_damaged_graphs_in_a_config_give_one_clear_message() -> None:
    whole = load_source(str(HERE / "by_hand_11.onnx"), input=SPEC).arch_args
    draw, refused = random.Random(0), 0
    for _ in range(150):
        try:
            build("onnx:graph", bent(whole, draw))  # a bent name that nothing else reads changes nothing
        except SourceError:
            refused += 1
    assert refused > 80


def _given(node: Any, i: int, values: np.ndarray) -> Any:
    """An input of a case as the network would get it: whole numbers and what steers as sizes."""
    steers = i > 0 and node.op_type in ("Clip", "Resize", "Pad", "Dropout")
    if values.dtype == np.float32 and values.ndim and not steers:
        return torch.from_numpy(values.copy())
    return sizes(values.tolist()).reshape(values.shape)


def test_operators_agree_with_the_cases_of_onnx_or_refuse() -> None:
    """The cases that come with the package onnx, for every operator that is read: none is silently wrong."""
    loader = pytest.importorskip("onnx.backend.test.loader")
    agreed, wrong = set(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = loader.load_model_tests(kind="node")
    for case in cases:
        if case.model is None or len(case.model.graph.node) != 1 or not case.data_sets:
            continue
        node = case.model.graph.node[0]
        old = case.model.opset_import[0].version < 13
        # Whatever a file says, dropout is off here; casts know three types only, of which the networks' tests tell.
        if node.op_type not in OPS or node.op_type in ("Dropout", "Cast") or node.domain or old:
            continue
        given, expected = case.data_sets[0]
        if not all(isinstance(v, np.ndarray) and v.dtype in (np.float32, np.int64, bool) for v in given):
            continue
        if _agrees(node, given, expected):
            agreed.add(node.op_type)
        elif _agrees(node, given, expected) is not None:
            wrong.append(case.name)
    assert not wrong and len(agreed) > 75, (wrong, set(OPS) - agreed)


def _agrees(node: Any, given: list[np.ndarray], expected: list[np.ndarray]) -> bool | None:
    """Whether an operator gives what ONNX says; None where it refuses."""
    values = iter(given)
    inputs = [_given(node, i, next(values)) if name else None for i, name in enumerate(node.input)]
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    settings = {k: v.decode() if isinstance(v, bytes) else v for k, v in settings.items()}
    settings |= {"outputs": len(node.output)} if node.op_type == "Split" else {}
    try:
        with torch.no_grad():
            found = OPS[node.op_type](*inputs, **settings)
    except Exception:
        return None
    found = found if isinstance(found, tuple) else (found,)
    plain = [np.asarray(f.tolist(), dtype=float).reshape(tuple(f.shape)) for f in found]
    return all(
        f.shape == e.shape and np.allclose(f, e.astype(float), rtol=1e-4, atol=1e-5)
        for f, e in zip(plain, expected, strict=False)
    )
