"""The catalogue of URI schemes, and the one door to all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from regraft.errors import SourceError, closest
from regraft.registry import Registry
from regraft.source.arch import build, canonical_arch
from regraft.source.archive import ARCHIVES, is_archive, unpacked
from regraft.source.checkpoint import open_checkpoint
from regraft.source.download import fetch
from regraft.source.embedded import EMBEDDED, open_embedded
from regraft.source.files import INDEX, SUFFIXES
from regraft.source.folder import open_folder, open_hf
from regraft.source.graph_files import GRAPH_FILES, graph_opener, without_fragment
from regraft.source.keras_file import SUFFIXES as KERAS_FILES
from regraft.source.keras_file import open_keras
from regraft.source.onnx.file import open_onnx
from regraft.source.plugins import plugin, plugin_names
from regraft.source.request import Request
from regraft.source.source import Source, make_source
from regraft.source.timm_hub import at_its_size, open_timm, timm_names
from regraft.source.torchvision_hub import open_torchvision, torchvision_names
from regraft.source.vector_file import VECTOR_FILES, is_vectors
from regraft.source.word_vectors import open_vectors
from regraft.spec import InputOverride, Spec

Opener = Callable[[str, Request], Source]

_WEB = ("https://", "http://")
# Endings of files that hold a network or its weights.
WEIGHT_FILES = (*SUFFIXES, INDEX, ".onnx", *KERAS_FILES, *ARCHIVES, *GRAPH_FILES, *VECTOR_FILES)
SCHEMES: Registry[Opener] = Registry("kind of source", SourceError)
SCHEMES.add("timm", open_timm)
SCHEMES.add("torchvision", open_torchvision)
SCHEMES.add("hf", open_hf)
SCHEMES.add("regraft", open_embedded)
SCHEMES.add("vectors", open_vectors)


def load_source(
    uri: str,
    *,
    arch: str | None = None,
    input: Spec | InputOverride | None = None,
    random_weights: bool = False,
    seed: int = 0,
) -> Source:
    """Open a pretrained network.

    Args:
        uri: `timm:NAME`, `torchvision:NAME`, `hf:NAME_OR_FOLDER`, `regraft:NAME`, `vectors:FILE` (word
            vectors), `python:pkg.mod:callable` (random weights only), a scheme of another package, a folder with
            `config.json` and weights, a weight file, a network's own file (.onnx, .keras, .caffemodel and others), an
            archive of a folder, or the `https://` address of a file or an archive.
        arch: which architecture a bare weight file belongs to: `timm:NAME`, `torchvision:NAME` or
            `pkg.mod:callable`.
        input: what the network expects, where the source does not say it or says it wrongly; an `InputOverride`
            changes parts of what it says.
        random_weights: the architecture alone; no weights are read or downloaded.
        seed: of the random weights.

    Returns:
        The network in eval mode on the CPU, with its input, digest and load report.

    Raises:
        SourceError: not found, not readable, or not of this architecture.
        MissingExtra: an optional package is needed to open it.

    Example:
        >>> source = load_source("regraft:cifar10-resnet20", random_weights=True)
        >>> source.arch, source.n_params
        ('regraft:cifar10-resnet20', 269722)
    """
    return at_its_size(_opened(uri, Request(uri, arch, input, random_weights, seed)))


def _opened(uri: str, request: Request) -> Source:
    scheme, colon, name = uri.partition(":")
    if colon and (opener := _scheme(scheme)):
        return opener(name, request)
    path = fetch(uri) if uri.startswith(_WEB) else without_fragment(uri)
    if not path.exists() and graph_opener(path) is None:
        raise _not_found(uri)
    return open_path(path, request)


def _scheme(name: str) -> Opener | None:
    """What opens sources of a kind: our own first, then what other packages bring."""
    return SCHEMES[name] if name in SCHEMES else plugin(name)


def open_path(path: Path, request: Request) -> Source:
    """A folder, an archive of one, or a weight file as a source."""
    if path.suffix == ".onnx":
        return open_onnx(path, request)
    if path.suffix in KERAS_FILES:
        return open_keras(path, request)
    if opener := graph_opener(path):
        return opener(path, request)
    if path.is_dir():
        return open_folder(path, request)
    if is_archive(path):
        return open_folder(unpacked(path), request)
    if is_vectors(path):
        return open_vectors(str(path), request)
    return open_checkpoint(path, request)


def open_python(name: str, request: Request) -> Source:
    """`python:pkg.mod:callable` as a source: an architecture without weights.

    Raises:
        SourceError: weights were asked for too, or there is no such callable.
    """
    request.without_arch()
    arch = canonical_arch(f"python:{name}")
    if not request.random_weights:
        raise SourceError(
            f"{arch} is an architecture, which has no pretrained weights. Pass its weight file: "
            f"load_source('weights.pt', arch={arch!r}), or load_source({arch!r}, random_weights=True)"
        )
    model, spec = build(arch, seed=request.seed)
    return make_source(request.uri, arch, {}, model, request.input_or(spec))


SCHEMES.add("python", open_python)


def _not_found(uri: str) -> SourceError:
    known = [f"{scheme}:" for scheme in (*SCHEMES, *plugin_names())]
    scheme, colon, _ = uri.partition(":")
    if colon:
        return SourceError(
            f"sources of kind {scheme + ':'!r} are not read today.{closest(scheme + ':', known)} "
            f"Expected https://…, {', '.join(f'{k}NAME' for k in known)}, a folder with config.json, or a weight file "
            f"({', '.join(SUFFIXES)}). For example: load_source('regraft:cifar10-resnet20')"
        )
    return SourceError(
        f"there is no file or folder {uri!r}, and it names no catalogue.{_meant(uri)} For a catalogue put "
        "its name in front: load_source('timm:resnet18') or load_source('regraft:cifar10-resnet20')"
    )


def _meant(uri: str) -> str:
    """The nearest catalogue entries to a bare name; nothing for what looks like a path."""
    if "/" in uri or uri.endswith(WEIGHT_FILES):
        return ""
    entries = [f"regraft:{name}" for name in EMBEDDED] + [f"timm:{name}" for name in timm_names()]
    entries += [f"torchvision:{name}" for name in torchvision_names()]
    return closest(f"timm:{uri}", entries)
