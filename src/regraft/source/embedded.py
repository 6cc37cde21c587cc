"""`regraft:NAME`: sources that come with the package and need no network."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from torch import nn

from regraft.errors import SourceError
from regraft.registry import Registry
from regraft.source.arch import ARCHITECTURES, build, build_python
from regraft.source.folder import WEIGHTS, open_folder
from regraft.source.request import Request
from regraft.source.source import Source, make_source
from regraft.spec import Spec

EMBEDDED: Registry[str] = Registry("embedded source", SourceError)
EMBEDDED.add("cifar10-resnet20", "regraft.source.cifar_resnet:resnet20")


def embedded_folder(name: str) -> Path:
    """Where the files of an embedded source lie; the package is always installed unzipped."""
    return Path(str(resources.files("regraft.source"))) / "weights" / name


def build_embedded(name: str, arch_args: dict[str, Any]) -> tuple[nn.Module, Spec | None]:
    """The architecture of an embedded source with fresh weights."""
    return build_python(EMBEDDED[name], arch_args)


ARCHITECTURES.add("regraft", build_embedded)


def open_embedded(name: str, request: Request) -> Source:
    """`regraft:NAME` as a source.

    Raises:
        SourceError: no such source (close matches are shown), or its weights were not shipped.
    """
    request.without_arch()
    _ = EMBEDDED[name]
    folder = embedded_folder(name)
    if request.random_weights:
        model, spec = build(f"regraft:{name}", seed=request.seed)
        return make_source(request.uri, f"regraft:{name}", {}, model, request.input_or(spec))
    if not (folder / WEIGHTS).is_file():
        raise SourceError(
            f"this installation has no weights for regraft:{name} (expected {folder / WEIGHTS}). Reinstall "
            f"regraft, train them with `regraft pretrain`, or take the architecture alone: "
            f"load_source('regraft:{name}', random_weights=True)"
        )
    return open_folder(folder, request)
