"""Bare weight files, with the architecture named by the user."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from regraft.errors import SourceError
from regraft.source.arch import build, canonical_arch
from regraft.source.files import read_checkpoint
from regraft.source.match import load_weights
from regraft.source.request import Request
from regraft.source.source import LoadReport, Source, make_source


def open_checkpoint(path: Path, request: Request) -> Source:
    """A weight file as a source.

    Raises:
        SourceError: no architecture was named, the file cannot be read, or it is of another architecture.
    """
    if request.arch is None:
        read_checkpoint(path)  # a file that cannot be read at all is the first thing to say
        raise SourceError(
            f"{path} holds bare weights, which do not say their architecture. Name it: "
            f"load_source('{path}', arch='pkg.mod:callable') or arch='timm:NAME', on the command line --arch"
        )
    model, spec = build(request.arch, seed=request.seed)
    input_spec = request.input_or(spec)
    report = None if request.random_weights else fill(model, path)
    return make_source(request.uri, canonical_arch(request.arch), {}, model, input_spec, report=report)


def fill(model: nn.Module, path: Path) -> LoadReport:
    """Read a weight file into a network.

    Raises:
        SourceError: the file cannot be read, or is of another architecture.
    """
    checkpoint = read_checkpoint(path)
    return load_weights(model, checkpoint.tensors, uri=str(path), ignored=checkpoint.ignored)
