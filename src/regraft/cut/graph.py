"""A model as a functional graph: exported, freed of guards and in-place writes, its free sizes read from inputs.

N examples, L tokens, D features. Every activation that may become a row of a cache has the shape (N, ...), with N
free; in a ragged graph it may also be (N, L, D), with L free too.
"""

from __future__ import annotations

import copy
import io
import operator
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import fx, nn

aten = torch.ops.aten

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def inputs_of(example: torch.Tensor | tuple | Mapping[str, torch.Tensor], *, ragged: bool = False) -> Inputs:
    """An example as positional and keyword arguments, with at least two rows, and two tokens where these count.

    Export specialises sizes of one, so that the graph would hold for no other size, and takes sizes that are equal
    in the example for the same size; a row or a column is repeated.
    """
    if isinstance(example, Mapping):
        return (), {name: _free(value, ragged) for name, value in example.items()}
    values = example if isinstance(example, tuple) else (example,)
    return tuple(_free(value, ragged) for value in values), {}


def _free(value: Any, ragged: bool) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    for axis in (0, 1) if ragged else (0,):
        if value.shape[axis : axis + 1] == (1,):
            value = torch.cat([value, value], axis)
    return torch.cat([value, value[:1]]) if ragged and value.shape[0] == value.shape[1] else value


def exported(model: nn.Module, inputs: Inputs, *, ragged: bool = False) -> fx.GraphModule:
    """The model as an ATen graph with a free batch size, in eval mode; parameters are the model's own.

    Args:
        model: the network.
        inputs: an example, as `inputs_of` gives it.
        ragged: whether the second axis of every input is free too.

    Raises:
        Exception: whatever `torch.export` raises when the model is not exportable.
    """
    args, kwargs = inputs
    sizes: dict[int, Any] = {0: torch.export.Dim("batch")}
    if ragged:
        sizes[1] = torch.export.Dim.AUTO  # a table of positions bounds the length, and export finds how
    free = [sizes if isinstance(v, torch.Tensor) else None for v in (*args, *kwargs.values())]
    with (
        eval_mode(model),
        _quiet(),
        torch.enable_grad(),
    ):  # without grad, layers take paths that cannot be trained
        program = torch.export.export(model, args, kwargs, dynamic_shapes=_shapes(free, args, kwargs), strict=False)
        if _writes_through_views(program.graph):
            program = program.run_decompositions({})  # type: ignore[arg-type]
        return program.module()  # type: ignore[return-value]


def _shapes(free: list[Any], args: tuple, kwargs: dict) -> Any:
    if not kwargs:
        return tuple(free)
    return dict(zip(kwargs, free[len(args) :], strict=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remarks about its own export, and the half-made graph that it prints when it fails."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.filterwarnings("ignore", module=r"torch\.")
        yield


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; every module's own mode again after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def normalised(exported: fx.GraphModule, model: nn.Module, output: int = 0, *, ragged: bool = False) -> fx.GraphModule:
    """A plain graph module of the same arithmetic: no guards, nothing in place, one output, free sizes from inputs.

    Args:
        exported: what `exported` returned.
        model: whose state names say which buffers are saved with a model.
        output: which of the output tensors is the network's output.
        ragged: whether the length is free.
    """
    graph = _plain_copy(exported.graph, output)
    for node in list(graph.nodes):
        _drop_check(graph, node)
    for node in graph.nodes:
        _functional(node)
        _whole_batch_norm(node)
        _skip_whole_slice(node)
    length = _length_input(graph) if ragged else None
    _sizes_from_inputs(graph, length)
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    _mark_rows(graph, length)
    return with_attributes(exported, graph, frozenset(model.state_dict()))


def with_attributes(root: nn.Module | dict[str, Any], graph: fx.Graph, saved: frozenset[str]) -> fx.GraphModule:
    """A graph module that shares the parameters it uses with `root`; only buffers in `saved` are saved.

    Args:
        root: a module, or what the graph uses by name.
        graph: what to compute.
        saved: names in the state dict of the model.
    """
    module = fx.GraphModule(root, graph)
    for node in graph.nodes:
        if node.op == "call_module":
            target = str(node.target)
            module.set_submodule(target, with_own_modes(module.get_submodule(target)))
    for name, _ in list(module.named_buffers(remove_duplicate=False)):
        owner, _, leaf = name.rpartition(".")
        if name not in saved:
            module.get_submodule(owner)._non_persistent_buffers_set.add(leaf)
    return module.eval()


def with_own_modes(model: nn.Module) -> nn.Module:
    """A copy that shares every tensor, so that its training mode is its own."""
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def attribute(module: nn.Module, name: str) -> object:
    """What a module holds under a dotted name."""
    owner, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(owner), leaf)


def primary_input(graph: fx.Graph) -> fx.Node:
    """The input that carries the examples: the first placeholder."""
    return next(node for node in graph.nodes if node.op == "placeholder")


def output_node(graph: fx.Graph) -> fx.Node:
    """The node whose value the graph returns."""
    value = graph.output_node().args[0]
    assert isinstance(value, fx.Node)
    return value


def row_shape(node: fx.Node) -> tuple[int, ...] | None:
    """The shape of one example's row, if the node's value is one floating-point row per example."""
    return node.meta.get("row")


def _plain_copy(graph: fx.Graph, output: int) -> fx.Graph:
    """Without export's calling convention, which packs and unpacks dictionaries and output classes."""
    plain, env = fx.Graph(), {}
    for node in graph.nodes:
        if node.op != "output":
            env[node] = plain.node_copy(node, env.__getitem__)
    tensors = [a for a in _flat(graph.output_node().args) if isinstance(a.meta.get("val"), torch.Tensor)]
    plain.output(env[tensors[output]])
    return plain


def _flat(values: Any) -> Iterator[fx.Node]:
    if isinstance(values, fx.Node):
        yield values
    elif isinstance(values, Mapping):
        yield from _flat(tuple(values.values()))
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _flat(value)


def _drop_check(graph: fx.Graph, node: fx.Node) -> None:
    """Shape guards hold for the whole graph only, and cost time at every call."""
    name = str(node.target)
    is_check = name.startswith(("aten._assert", "aten.sym_constrain")) or "_guards_fn" in name
    if is_check and not node.users:
        graph.erase_node(node)


def _functional(node: fx.Node) -> None:
    """In place, a node right after a cut would overwrite the cached activation; its twin does not.

    A `view` was recorded with the memory layout that export foresaw; kernels may choose another, as attention does.
    """
    twin = aten.reshape.default if node.target is aten.view.default else _twin(node.target)
    if twin is not None:
        node.target = twin


def _twin(target: Any) -> Any:
    if not _is_in_place(target):
        return None
    packet = getattr(aten, target._schema.name.removeprefix("aten::")[:-1], None)
    return getattr(packet, target._overloadname, None) or getattr(packet, "default", None)


def _is_in_place(target: Any) -> bool:
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return False
    name = target._schema.name
    return target._schema.is_mutable and name.endswith("_") and not name.endswith("__")


def _whole_batch_norm(node: fx.Node) -> None:
    """Functionalisation breaks batch norm up; put together again, its training mode can be switched."""
    parts = node.args[0] if node.target is operator.getitem else None
    if isinstance(parts, fx.Node) and parts.target is aten._native_batch_norm_legit_no_training.default:
        x, weight, bias, mean, var, momentum, eps = parts.args
        node.target = aten.batch_norm.default
        node.args = (x, weight, bias, mean, var, False, momentum, eps, True)


def _skip_whole_slice(node: fx.Node) -> None:
    """`x[:, 0]` is recorded with a slice of all rows before it, which would be a cut of its own."""
    if node.target is aten.slice.Tensor and node.args[2:] in ((0, sys.maxsize), (0, sys.maxsize, 1)):
        node.replace_all_uses_with(node.all_input_nodes[0])


def _writes_through_views(graph: fx.Graph) -> bool:
    """Whether an in-place node changes a tensor that is read later under another name (`x[:, 0] += 1`).

    Swapping such a node for its twin alone would lose the change.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if _is_in_place(node.target) and isinstance(node.args[0], fx.Node):
            later = (u for alias in _aliases(node.args[0]) for u in alias.users if order[u] > order[node])
            if any(True for _ in later):
                return True
    return False


def _aliases(node: fx.Node) -> set[fx.Node]:
    """All nodes whose value may share memory with this one, but for results of in-place nodes."""
    base = node
    while _is_view(base) and isinstance(base.args[0], fx.Node):
        base = base.args[0]
    found, queue = set(), [base]
    while queue:
        alias = queue.pop()
        found.add(alias)
        queue += [u for u in alias.users if _is_view(u) and u.args[0] is alias and u not in found]
    return found


def _is_view(node: fx.Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload) or not node.args:
        return False
    if node.target.overloadpacket in (aten.dropout, aten.feature_dropout):
        return True  # off, it hands its input through
    returns = node.target._schema.returns
    return any(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def _length_input(graph: fx.Graph) -> fx.Node:
    """The input that the length is read from: the second one (the mask), which a suffix can be given again."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    found = inputs[min(1, len(inputs) - 1)]
    size = found.meta["val"].shape[1]
    if not isinstance(size, torch.SymInt) or size.node.expr.is_number:
        raise ValueError("the network takes one length only, and ragged=True asks for any")
    return found


def _sizes_from_inputs(graph: fx.Graph, length: fx.Node | None) -> None:
    """Reads every size that is a multiple of N, L or N·L from the inputs, so that sizes never cross a cut."""
    primary = primary_input(graph)
    with graph.inserting_before(_first_call(graph)):
        whole = graph.call_function(aten.sym_size.int, (primary, 0))
        units = {primary.meta["val"].shape[0].node.expr: whole}
        whole.meta["batch"] = True
        if length is not None:
            long = graph.call_function(aten.sym_size.int, (length, 1))
            batch, tokens = primary.meta["val"].shape[0].node.expr, length.meta["val"].shape[1].node.expr
            units |= {tokens: long, batch * tokens: graph.call_function(operator.mul, (whole, long))}
    own = {whole, *units.values()}
    for node in list(graph.nodes):
        if node.target is aten.sym_size.int and node not in own:
            _read_from(graph, node, units)


def _read_from(graph: fx.Graph, node: fx.Node, units: dict[Any, fx.Node]) -> None:
    for unit, whole in units.items():
        times = _multiple(node.meta["val"], unit)
        if times is None:
            continue
        with graph.inserting_before(node):
            size = whole if times == 1 else graph.call_function(operator.mul, (whole, times))
        node.replace_all_uses_with(size)
        graph.erase_node(node)
        return


def _multiple(size: Any, unit: Any) -> int | None:
    """How many times the unit a symbolic size is, if a whole number of times."""
    if not isinstance(size, torch.SymInt):
        return None
    ratio = size.node.expr / unit
    return int(ratio) if ratio.is_Integer else None


def _first_call(graph: fx.Graph) -> fx.Node:
    return next(node for node in graph.nodes if node.op not in ("placeholder", "get_attr"))


def _mark_rows(graph: fx.Graph, length: fx.Node | None) -> None:
    """A row is what one example has of a value; its first axis may be the length, where that is free."""
    batch = primary_input(graph).meta["val"].shape[0].node.expr
    for node in graph.nodes:
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor) or value.dim() < 1 or _multiple(value.shape[0], batch) != 1:
            continue
        if not value.is_floating_point() and node.op != "placeholder":
            continue
        if all(isinstance(size, int) for size in value.shape[1:]):
            node.meta["row"] = tuple(value.shape[1:])
        elif length is not None and _is_ragged(node, length.meta["val"].shape[1].node.expr):
            node.meta["row"] = tuple(_example_size(size) for size in value.shape[1:])
            node.meta["ragged"] = True


def _example_size(size: int | torch.SymInt) -> int:
    found = size.node.hint if isinstance(size, torch.SymInt) else size
    assert isinstance(found, int)
    return found


def _is_ragged(node: fx.Node, tokens: Any) -> bool:
    """(N, L, D), or an input (N, L)."""
    shape = node.meta["val"].shape
    rank = len(shape) == 3 or node.op == "placeholder"
    return rank and _multiple(shape[1], tokens) == 1 and all(isinstance(size, int) for size in shape[2:])
