"""Bare weight files, with the architecture named by the user."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from regraft.errors import SourceError
from regraft.source.arch import build, canonical_arch
from regraft.source.files import SUFFIXES, Checkpoint, read_checkpoint
from regraft.source.match import load_weights, plan_load
from regraft.source.request import Request
from regraft.source.source import LoadReport, Source, make_source

# Where several groups fit equally well: the averaged copy first, as timm does.
_PREFERRED = ("ema", "teacher", "state_dict", "model")


def open_checkpoint(path: Path, request: Request) -> Source:
    """A weight file as a source.

    Raises:
        SourceError: no architecture was named, the file cannot be read, or it belongs to another architecture.
    """
    if path.suffix not in SUFFIXES:
        raise SourceError(
            f"{path} is not a weight file that is read today ({', '.join(SUFFIXES)}), nor a folder. "
            "Convert it to safetensors, then: load_source('weights.safetensors', arch='timm:NAME')"
        )
    if request.arch is None:
        raise SourceError(
            f"{path} holds bare weights, which do not say their architecture. Name it: "
            f"load_source('{path}', arch='pkg.mod:callable') or arch='timm:NAME', on the command line --arch"
        )
    model, spec = build(request.arch, seed=request.seed)
    found = request.input_or(spec)
    report = None if request.random_weights else fill(model, path)
    return make_source(request.uri, canonical_arch(request.arch), {}, model, found, report=report)


def fill(model: nn.Module, path: Path) -> LoadReport:
    """Read a weight file into a network; whatever wrapper its tensors lie in, the best fitting is taken.

    Raises:
        SourceError: the file cannot be read, or belongs to another architecture.
    """
    checkpoint = read_checkpoint(path)
    group = _best_group(model, checkpoint)
    others = tuple(f"{name or 'top level'} (tensors)" for name in checkpoint.groups if name != group)
    ignored = (*checkpoint.ignored, *others)
    report = load_weights(model, checkpoint.groups[group], uri=str(path), ignored=ignored)
    if not group:
        return report
    return replace(report, renamed="; ".join(filter(None, (f"taken from {group!r}", report.renamed))))


def _best_group(model: nn.Module, checkpoint: Checkpoint) -> str:
    groups = sorted(checkpoint.groups, key=_rank)
    return max(groups, key=lambda group: len(plan_load(model, checkpoint.groups[group])[1].matched))


def _rank(group: str) -> int:
    return min((i for i, part in enumerate(_PREFERRED) if part in group), default=len(_PREFERRED))
