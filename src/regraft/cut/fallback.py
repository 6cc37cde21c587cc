"""Cuts between whole layers, for networks that `torch.export` cannot follow inside their layers.

The model's own forward is followed symbolically, each layer (whatever is not an `nn.Sequential`) called
whole. A symbolic trace can be wrong without a word, so every cut is tried: the suffix, run from the stored
activation, has to give the model's output bit for bit and leave the activation as it was.

N examples.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from regraft.cut.graph import Inputs, eval_mode, output_node, primary_input, with_attributes, with_own_modes
from regraft.cut.live import legal_nodes
from regraft.cut.surgery import part
from regraft.errors import CutError, first_line


class _LayerTracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not isinstance(m, nn.Sequential)


class _Shapes(fx.Interpreter):
    """Runs a graph and keeps the shape of every floating-point tensor."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and (value.is_floating_point() or n.op == "placeholder"):
            self.shapes[n] = tuple(value.shape)
        return value


def layered(model: nn.Module, inputs: Inputs, name: str, reason: str) -> tuple[fx.GraphModule, list[fx.Node]]:
    """The model as a graph of whole layers, and the nodes that were seen to be cuts.

    Args:
        model: the network; left in its own mode.
        inputs: an example, as `inputs_of` gives it.
        name: what to call the network in messages.
        reason: why `torch.export` could not be used.

    Raises:
        CutError: this way fails too.
    """
    args, kwargs = inputs
    try:
        if kwargs or len(args) != 1:
            raise ValueError("only networks with one input can be followed layer by layer")
        return _checked(model, args[0])
    except Exception as error:
        if refusal := _refusal(model, inputs):
            raise CutError(f"{name} {refusal}") from error
        raise CutError(
            f"{name} cannot be taken apart. {reason}. Following it layer by layer failed too: {error}. "
            "A forward whose branches depend only on shapes works, as does a part of the network: "
            "trace(nn.Sequential(*model.children()), example)"
        ) from error


@torch.no_grad()
def _refusal(model: nn.Module, inputs: Inputs) -> str:
    """What a network for pictures itself says against the example; empty if it takes it, or sees no pictures."""
    args, kwargs = inputs
    if kwargs or len(args) != 1 or args[0].dim() != 4:
        return ""
    try:
        with eval_mode(model):
            model(*args)
    except Exception as error:
        return (
            f"does not take an input of {tuple(args[0].shape[1:])}: {first_line(error).rstrip('.')}. Ask for the size "
            "that it was made for: load_source(..., input=InputOverride(size=(224,))), on the command line "
            "--input-size 224"
        )
    return ""


@torch.no_grad()
def _checked(model: nn.Module, example: torch.Tensor) -> tuple[fx.GraphModule, list[fx.Node]]:
    copy = _out_of_place(with_own_modes(model))
    saved = frozenset(model.state_dict())
    graph = with_attributes(copy, _LayerTracer().trace(copy), saved)
    batches = [example, torch.cat([_noise(example), example[:1]])]
    _mark_rows(graph, batches)
    with eval_mode(model):
        wanted = [model(batch) for batch in batches]
    legal = legal_nodes(graph.graph)
    if not all(_holds(graph, legal[-1], pair, saved) for pair in zip(batches, wanted, strict=True)):
        raise ValueError("its layers in order do not give its output")
    real = [n for n in legal if all(_holds(graph, n, p, saved) for p in zip(batches, wanted, strict=True))]
    return graph, real


def _out_of_place(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    return model


def _noise(example: torch.Tensor) -> torch.Tensor:
    return torch.randn_like(example) if example.is_floating_point() else example.flip(0)


def _mark_rows(graph: fx.GraphModule, batches: list[torch.Tensor]) -> None:
    """A row is what grows with the batch in its first axis, and in no other."""
    runs = []
    for batch in batches:
        runs.append(_Shapes(graph))
        runs[-1].run(batch)
    few, many = (run.shapes for run in runs)
    for node in few:
        sizes = (few[node][:1], many[node][:1])
        if sizes == tuple((len(batch),) for batch in batches) and few[node][1:] == many[node][1:]:
            node.meta["row"] = few[node][1:]


def _holds(
    graph: fx.GraphModule, node: fx.Node, pair: tuple[torch.Tensor, torch.Tensor], saved: frozenset[str]
) -> bool:
    """Whether the activation at `node` gives the model's output, and is left as it was."""
    batch, wanted = pair
    prefix = part(graph, primary_input(graph.graph), [node], saved, single=True)
    suffix = part(graph, node, [output_node(graph.graph)], saved, single=True)
    activation = prefix(batch)
    before = activation.clone()
    return torch.equal(suffix(activation), wanted) and torch.equal(activation, before)
