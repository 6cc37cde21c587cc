"""Lay the tensors of a checkpoint onto a network, and account for every one of them.

Law: `matched`, `missing`, `mismatched` and `harmless` together name every tensor of the network;
`matched`, `unexpected`, `mismatched` and `harmless` together name every tensor of the checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import nn

from regraft.errors import SourceError
from regraft.source.source import LoadReport

Tensors = Mapping[str, torch.Tensor]
Shapes = Mapping[str, tuple[int, ...]]

# Counters, masks and index tables that are computed, not learned; FLOP counters that profilers leave behind.
HARMLESS = (
    "num_batches_tracked",
    "relative_position_index",
    "relative_coords_table",
    "attn_mask",
    "position_ids",
    "total_ops",
    "total_params",
)
# What wrappers, older versions and other frameworks call the same tensor; tried where names do not fit as they are.
RENAMINGS = (
    (
        "left out wrappers inside names",
        re.compile(r"(^|\.)(?:(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+"),
        r"\1",
    ),
    ("joined the numbers of DenseNet's layers", re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),
    ("gamma is weight", re.compile(r"\.gamma$"), ".weight"),
    ("beta is bias", re.compile(r"\.beta$"), ".bias"),
    ("weight_g is a parametrization", re.compile(r"\.weight_g$"), ".parametrizations.weight.original0"),
    ("weight_v is a parametrization", re.compile(r"\.weight_v$"), ".parametrizations.weight.original1"),
)
# Where two copies of the weights fit equally well, the averaged or evaluated one is meant.
PREFERRED = {"ema", "model_ema", "ema_model", "state_dict_ema", "teacher", "encoder_q", "online_encoder"}


def load_weights(model: nn.Module, tensors: Tensors, *, uri: str, ignored: Iterable[str] = ()) -> LoadReport:
    """Copy a checkpoint's tensors into a network of the same architecture.

    Args:
        model: changed in place.
        tensors: name to tensor. What stands before the network's own names ("state_dict.", "module.",
            "backbone.") is found by trying: the leading part without which most tensors fit; so are the
            customary other spellings in `RENAMINGS`.
        uri: named in messages.
        ignored: entries of the checkpoint that are not weights, for the report.

    Returns:
        What became of every tensor.

    Raises:
        SourceError: the checkpoint belongs to another architecture, or holds NaN. The network is unchanged.

    Example:
        >>> ours, theirs = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
        >>> checkpoint = {f"module.{name}": value for name, value in theirs.state_dict().items()}
        >>> print(load_weights(ours, checkpoint, uri="linear.pt"))
        2 tensors matched; stripped prefix 'module.'
    """
    tensors, prefix, report = _accounted(model, tensors, tuple(ignored))
    _check_architecture(model, report, prefix, uri)
    _copy(model, {name: tensors[prefix + name] for name in report.matched}, uri)
    return report


def load_some(model: nn.Module, tensors: Tensors, *, uri: str) -> LoadReport:
    """Copy chosen tensors of a checkpoint into a network that may have others beside them.

    Args:
        model: changed in place.
        tensors: name to tensor; names are found as in `load_weights`.
        uri: named in messages.

    Returns:
        What became of every tensor; `missing` are those that keep their values.

    Raises:
        SourceError: one of them finds no place, or holds NaN. The network is unchanged.

    Example:
        >>> ours = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
        >>> load_some(ours, {"scope.0.weight": torch.ones(3, 2)}, uri="model.ckpt").matched
        ('0.weight',)
    """
    tensors, prefix, report = _accounted(model, tensors, ())
    lost = [*report.unexpected, *(name for name, _, _ in report.mismatched)]
    if lost or not report.matched:
        raise SourceError(
            f"{', '.join(lost[:3])} of {uri} find no place in {type(model).__name__}: {report}. It has "
            f"{', '.join(list(model.state_dict())[:6])}, ... Name its layers as the checkpoint does, or choose fewer: "
            "regraft inspect tells the names"
        )
    _copy(model, {name: tensors[prefix + name] for name in report.matched}, uri)
    return report


def _accounted(model: nn.Module, tensors: Tensors, ignored: tuple[str, ...]) -> tuple[Tensors, str, LoadReport]:
    """The tensors as the network spells them, what stands before its names, and what becomes of each."""
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    tensors, how = respelt(shapes, tensors)
    prefix = best_prefix(shapes, tensors)
    report = _compare(shapes, tensors, prefix, ignored)
    return tensors, prefix, replace(report, renamed="; ".join(part for part in (report.renamed, *how) if part))


def _copy(model: nn.Module, fitting: Tensors, uri: str) -> None:
    check_finite(fitting, uri)
    state = model.state_dict()  # which carries the versions of modules that have several
    state.update(fitting)
    model.load_state_dict(state)


def respelt(shapes: Shapes, tensors: Tensors) -> tuple[Tensors, tuple[str, ...]]:
    """The checkpoint under other spellings of its names, each taken only if more tensors fit then.

    Example:
        >>> respelt({"0.weight": (2,)}, {"0._orig_mod.weight": torch.zeros(2)})
        ({'0.weight': tensor([0., 0.])}, ('left out wrappers inside names',))
    """
    taken: list[str] = []
    for what, pattern, spelling in RENAMINGS:
        other = {pattern.sub(spelling, name): value for name, value in tensors.items()}
        if other.keys() == tensors.keys() or len(other) < len(tensors):
            continue
        if _best_score(shapes, other) > _best_score(shapes, tensors):
            tensors, taken = other, [*taken, what]
    return tensors, tuple(taken)


def _best_score(shapes: Shapes, tensors: Tensors) -> tuple[int, int]:
    return _score(shapes, tensors, best_prefix(shapes, tensors))


def best_prefix(shapes: Shapes, tensors: Tensors) -> str:
    """The leading part of the checkpoint's names without which most tensors fit; "" if none helps.

    Example:
        >>> best_prefix({"fc.bias": (3,)}, {"state_dict.module.fc.bias": torch.zeros(3)})
        'state_dict.module.'
    """
    options = ["", *sorted(_prefixes(tensors), key=_rank)]
    return max(options, key=lambda prefix: _score(shapes, tensors, prefix))  # the first of equals


def _prefixes(tensors: Tensors, depth: int = 6) -> set[str]:
    found = set()
    for name in tensors:
        parts = name.split(".")[:-1]
        found |= {".".join(parts[: i + 1]) + "." for i in range(min(len(parts), depth))}
    return found


def _rank(prefix: str) -> tuple[bool, int, str]:
    return PREFERRED.isdisjoint(prefix.split(".")), len(prefix), prefix


def _score(shapes: Shapes, tensors: Tensors, prefix: str) -> tuple[int, int]:
    """How many tensors fit in name and shape, then in name alone."""
    named = [name for name in shapes if prefix + name in tensors]
    return sum(_fits(shapes, tensors, prefix, name) for name in named), len(named)


def _fits(shapes: Shapes, tensors: Tensors, prefix: str, name: str) -> bool:
    return tuple(tensors[prefix + name].shape) == shapes[name]


def _compare(shapes: Shapes, tensors: Tensors, prefix: str, ignored: tuple[str, ...]) -> LoadReport:
    named = [name for name in shapes if prefix + name in tensors]
    missing = [name for name in shapes if prefix + name not in tensors]
    used = {prefix + name for name in named}
    unexpected = [name for name in tensors if name not in used]
    others = [name for name in named if not _fits(shapes, tensors, prefix, name)]
    return LoadReport(
        matched=tuple(name for name in named if _fits(shapes, tensors, prefix, name)),
        missing=tuple(name for name in missing if not _is_harmless(name)),
        unexpected=tuple(name for name in unexpected if not _is_harmless(name)),
        mismatched=tuple((name, shapes[name], tuple(tensors[prefix + name].shape)) for name in others),
        renamed=f"stripped prefix {prefix!r}" if prefix else "",
        harmless=tuple(name for name in (*missing, *unexpected) if _is_harmless(name)),
        ignored=ignored,
    )


def _is_harmless(name: str) -> bool:
    return name.rpartition(".")[2] in HARMLESS


def classifier_names(model: nn.Module) -> tuple[str, ...]:
    """Modules that turn the last feature into class scores.

    timm says which; elsewhere it is the last module that has a weight matrix.

    Example:
        >>> from torch.nn import Linear, ReLU, Sequential
        >>> classifier_names(Sequential(Linear(4, 3), ReLU(), Linear(3, 2)))
        ('2',)
    """
    card = getattr(model, "pretrained_cfg", None)
    declared = card.get("classifier") if isinstance(card, Mapping) else None
    if declared:
        return (declared,) if isinstance(declared, str) else tuple(declared)
    weighted = [name for name, module in model.named_modules() if _has_matrix(module)]
    return tuple(weighted[-1:])


def _has_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim >= 2


def _check_architecture(model: nn.Module, report: LoadReport, prefix: str, uri: str) -> None:
    """Refuse a checkpoint of another architecture.

    Everything but the final classifier must match, and no layer may be left over in a part that the network
    has too: ResNet-56 fills every tensor of ResNet-20, and is still another network. Parts that the network
    lacks altogether (a projection head, a second encoder) are allowed; the report names them.
    """
    heads = classifier_names(model)
    parts = {name for name, _ in model.named_children()}
    wrong = [name for name in report.missing if not _within(name, heads)]
    wrong += [name for name, _, _ in report.mismatched if not _within(name, heads)]
    own = [name.removeprefix(prefix) for name in report.unexpected if name.startswith(prefix)]
    wrong += [name for name in own if name.partition(".")[0] in parts and not _within(name, heads)]
    if not wrong and report.matched:
        return
    raise SourceError(
        f"{uri} does not fit the architecture {type(model).__name__}, starting with {wrong[:1] or 'all'}: "
        f"{report}. Expected every tensor to match in name and shape, except the final classifier's "
        f"({', '.join(heads) or 'none found'}). Name the architecture that these weights were trained in: "
        f"load_source({uri!r}, arch='timm:NAME') or arch='pkg.mod:callable', on the command line --arch"
    )


def _within(name: str, modules: Iterable[str]) -> bool:
    return any(name.startswith(module + ".") for module in modules)


def check_finite(tensors: Tensors, uri: str) -> None:
    """Refuse weights of a training that diverged.

    Raises:
        SourceError: a tensor holds NaN or infinite values.
    """
    broken = [n for n, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if broken:
        raise SourceError(
            f"{uri} holds NaN or infinite values in {len(broken)} tensors ({', '.join(broken[:3])}): "
            "the training that made it diverged. Take an earlier checkpoint, or the architecture alone: "
            f"load_source({uri!r}, random_weights=True)"
        )
