"""Low-rank adapters on linear layers, by the PEFT library: a small product of matrices beside each frozen weight.

An adapted layer computes W x + alpha / r · B A x; only A (r, in) and B (out, r) are trained, and B starts at zero.
PEFT wraps a layer and moves its tensors: X.weight is called X.base_layer.weight until the adapters are merged.

References: Hu and others, 2021, arXiv:2106.09685; Mangrulkar and others, 2022, PEFT.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import fx, nn

from regraft.cut import as_modules, weight_shape
from regraft.errors import MissingExtra
from regraft.tune.recipe import Recipe

_NAME = "default"  # what PEFT calls an adapter
_A, _B = f".lora_A.{_NAME}.weight", f".lora_B.{_NAME}.weight"


def require_peft() -> None:
    """Refuse early, before any pass over the data.

    Raises:
        MissingExtra: PEFT is not installed.
    """
    if find_spec("peft") is None:
        raise _missing()


def adapters(graph: fx.GraphModule, layers: Iterable[str], rank: int) -> dict[str, nn.Parameter]:
    """The matrices that adapt some linear layers, by name; they have shapes, but no values.

    Args:
        graph: where the layers are.
        layers: their paths.
        rank: r.
    """
    found: dict[str, nn.Parameter] = {}
    for layer in layers:
        out, into = weight_shape(graph, layer)
        found[layer + _A] = nn.Parameter(torch.empty(rank, into, device="meta"))
        found[layer + _B] = nn.Parameter(torch.empty(out, rank, device="meta"))
    return found


def adapted_layers(names: Iterable[str]) -> tuple[str, ...]:
    """The layers whose adapters are among some names of tensors.

    Example:
        >>> adapted_layers(["fc.weight", "fc.lora_A.default.weight", "fc.lora_B.default.weight"])
        ('fc',)
    """
    return tuple(name.removesuffix(_A) for name in names if name.endswith(_A))


def plan_name(name: str, layers: Iterable[str]) -> str:
    """What a plan calls a tensor of a network with some adapted layers: the source's own name.

    Example:
        >>> plan_name("fc.base_layer.weight", ["fc"]), plan_name("body.base_layer.weight", ["fc"])
        ('fc.weight', 'body.base_layer.weight')
    """
    adapted = next((layer for layer in layers if name.startswith(f"{layer}.base_layer.")), None)
    return name if adapted is None else name.replace(f"{adapted}.base_layer.", f"{adapted}.", 1)


def adapt(body: fx.GraphModule, layers: Sequence[str], recipe: Recipe, *, seed: int = 0) -> None:
    """Put adapters on some linear layers, in place; until they are trained, the output stays as it is.

    Args:
        body: a graph with tensors of its own.
        layers: paths, of `linear_layers`.
        recipe: whose `lora` and `lora_alpha`.
        seed: of the matrices A.

    Raises:
        MissingExtra: PEFT is not installed.
    """
    peft = _peft()
    as_modules(body, layers, _transposed())
    exactly = "|".join(map(re.escape, layers))
    config = peft.LoraConfig(r=recipe.lora, lora_alpha=recipe.lora_alpha, target_modules=exactly)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(seed)
        # PEFT sees for each layer how its weight lies, and warns where that is not what the config says.
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to")
        peft.inject_adapter_in_model(config, body)


def merge(body: fx.GraphModule, layers: Sequence[str]) -> None:
    """Add the adapters to the weights they adapt, in place; the layers are plain ones again."""
    for path in layers:
        layer = body.get_submodule(path)
        layer.merge()  # pyright: ignore[reportCallIssue]
        body.set_submodule(path, layer.get_base_layer())  # pyright: ignore[reportCallIssue, reportArgumentType]


def _transposed() -> type[nn.Module]:
    """The class by which PEFT, which brings transformers, knows layers whose weights lie transposed."""
    from transformers.pytorch_utils import Conv1D

    return Conv1D


def _peft() -> ModuleType:
    try:
        import peft
    except ImportError as error:
        raise _missing() from error
    return peft


def _missing() -> MissingExtra:
    return MissingExtra("peft", "lora", "train low-rank adapters")
