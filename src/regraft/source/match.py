"""Lay the tensors of a checkpoint onto a network, and account for every one of them.

Law: `matched`, `missing`, `mismatched` and `harmless` together name every tensor of the network;
`matched`, `unexpected`, `mismatched` and `harmless` together name every tensor of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from regraft.errors import SourceError
from regraft.source.source import LoadReport

Tensors = Mapping[str, torch.Tensor]

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
# Where two prefixes fit equally well, the averaged or evaluated copy is the one people mean.
PREFERRED = ("teacher.", "ema.", "encoder_q.", "online_encoder.")


def load_weights(model: nn.Module, tensors: Tensors, *, uri: str, ignored: Iterable[str] = ()) -> LoadReport:
    """Copy a checkpoint's tensors into a network of the same architecture.

    Args:
        model: changed in place.
        tensors: name to tensor; a common prefix ("module.", "backbone.") is stripped where that fits better.
        uri: named in messages.
        ignored: entries of the checkpoint that are not weights, for the report.

    Returns:
        What became of every tensor.

    Raises:
        SourceError: the checkpoint belongs to another architecture: anything but the final classifier is
            missing or has another shape, or it has layers that the network lacks. The network is unchanged.

    Example:
        >>> ours, theirs = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
        >>> checkpoint = {f"module.{name}": value for name, value in theirs.state_dict().items()}
        >>> print(load_weights(ours, checkpoint, uri="linear.pt"))
        2 tensors matched; stripped prefix 'module.'
    """
    prefix, report = plan_load(model, tensors, tuple(ignored))
    check(model, report, uri)
    fitting = {name: tensors[prefix + name] for name in report.matched}
    _check_finite(fitting, uri)
    model.load_state_dict(fitting, strict=False)
    return report


def plan_load(model: nn.Module, tensors: Tensors, ignored: tuple[str, ...] = ()) -> tuple[str, LoadReport]:
    """(prefix to strip, what loading would do); nothing is changed."""
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    prefix = best_prefix(shapes, tensors)
    return prefix, _compare(shapes, tensors, prefix, ignored)


def best_prefix(shapes: Mapping[str, tuple[int, ...]], tensors: Tensors) -> str:
    """The leading part of the checkpoint's names without which most tensors fit; "" if none helps.

    Example:
        >>> best_prefix({"fc.bias": (3,)}, {"module.encoder_q.fc.bias": torch.zeros(3)})
        'module.encoder_q.'
    """
    options = ["", *sorted(_prefixes(tensors), key=_rank)]
    return max(options, key=lambda prefix: _score(shapes, tensors, prefix))  # the first of equals


def _prefixes(tensors: Tensors, depth: int = 5) -> set[str]:
    found = set()
    for name in tensors:
        parts = name.split(".")[:-1]
        found |= {".".join(parts[: i + 1]) + "." for i in range(min(len(parts), depth))}
    return found


def _rank(prefix: str) -> tuple[int, int, str]:
    place = min((i for i, end in enumerate(PREFERRED) if end in prefix), default=len(PREFERRED))
    return (place, len(prefix), prefix)


def _score(shapes: Mapping[str, tuple[int, ...]], tensors: Tensors, prefix: str) -> tuple[int, int]:
    """How many tensors fit in name and shape, then in name alone."""
    named = [name for name in shapes if prefix + name in tensors]
    fitting = [name for name in named if tuple(tensors[prefix + name].shape) == shapes[name]]
    return len(fitting), len(named)


def _compare(
    shapes: Mapping[str, tuple[int, ...]], tensors: Tensors, prefix: str, ignored: tuple[str, ...]
) -> LoadReport:
    theirs = {name.removeprefix(prefix) if name.startswith(prefix) else name: name for name in tensors}
    inside = {name for name, full in theirs.items() if full == prefix + name}
    named = [name for name in shapes if name in inside]
    fits = [name for name in named if tuple(tensors[prefix + name].shape) == shapes[name]]
    missing = [name for name in shapes if name not in inside]
    used = {prefix + name for name in named}
    unexpected = [name for name in tensors if name not in used]
    return LoadReport(
        matched=tuple(fits),
        missing=tuple(name for name in missing if not _is_harmless(name)),
        unexpected=tuple(name for name in unexpected if not _is_harmless(name)),
        mismatched=tuple(
            (name, shapes[name], tuple(tensors[prefix + name].shape)) for name in named if name not in fits
        ),
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
        >>> classifier_names(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)))
        ('2',)
    """
    card = getattr(model, "pretrained_cfg", None) or {}
    declared = card.get("classifier") if isinstance(card, Mapping) else None
    if declared:
        return (declared,) if isinstance(declared, str) else tuple(declared)
    weighted = [name for name, module in model.named_modules() if _has_matrix(module)]
    return tuple(weighted[-1:])


def _has_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim >= 2


def check(model: nn.Module, report: LoadReport, uri: str) -> None:
    """Refuse a checkpoint of another architecture.

    Everything but the final classifier must match, and layers in a part of the network that also exists
    here (a fourth block in `layer1`) must not be left over. Parts that the network lacks altogether
    (a projection head, a second encoder) are allowed: they are in the report.
    """
    heads = classifier_names(model)
    wrong = [name for name in report.missing if not _within(name, heads)]
    wrong += [name for name, _, _ in report.mismatched if not _within(name, heads)]
    prefix = report.renamed.removeprefix("stripped prefix ").strip("'")
    wrong += [name for name in report.unexpected if _left_over(name, prefix, model, heads)]
    if not wrong and report.matched:
        return
    raise SourceError(
        f"{uri} does not fit the architecture {type(model).__name__}: {report}. Expected every tensor but the "
        f"final classifier's ({', '.join(heads) or 'none found'}) to match in name and shape. Pass the "
        "architecture that these weights were trained in: --arch timm:NAME or --arch pkg.mod:callable"
    )


def _within(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(module + ".") for module in modules)


def _left_over(name: str, prefix: str, model: nn.Module, heads: tuple[str, ...]) -> bool:
    if not name.startswith(prefix):
        return False
    inner = name[len(prefix) :]
    top = inner.partition(".")[0]
    known = {child for child, _ in model.named_children()}
    return top in known and not _within(inner, heads) and top not in heads


def _check_finite(tensors: Tensors, uri: str) -> None:
    broken = [n for n, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if broken:
        raise SourceError(
            f"{uri} holds NaN or infinite values in {len(broken)} tensors ({', '.join(broken[:3])}): "
            "the training that made it diverged. Use an earlier checkpoint, or random_weights=True."
        )
