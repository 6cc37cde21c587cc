"""Folders with `config.json` and weights: timm's layout, those of transformers, and regraft's own.

regraft's own layout, which `regraft pretrain` writes and the embedded sources use:

    config.json        "format": "regraft-source", then arch, arch_args, input, classes, licence, origin
    model.safetensors  the network's state_dict
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from regraft.errors import RegraftError, SourceError
from regraft.source.arch import build, canonical_arch
from regraft.source.bounded import Bounded
from regraft.source.checkpoint import fill
from regraft.source.files import INDEX, SUFFIXES, read_json
from regraft.source.request import Request
from regraft.source.source import Source, make_source
from regraft.source.timm_hub import input_of, label_names
from regraft.source.transformers.folder import is_transformers, open_transformers
from regraft.source.transformers.hub import hf_folder
from regraft.source.transformers.sentence import transformer_folder
from regraft.source.trust import doubt
from regraft.spec import Spec, spec_from_dict

FORMAT = "regraft-source"
WEIGHTS = "model.safetensors"
_LARGEST = 1 << 31  # values of a network without weights beside it
READ_TODAY = (
    "Folders read today: timm's layout (config.json with 'architecture' and 'pretrained_cfg'), transformers' (with "
    f"'model_type'), sentence-transformers' (with modules.json) and regraft's own (with 'format': '{FORMAT}')"
)


@dataclass(frozen=True)
class Card:
    """What a folder's `config.json` says, whatever its layout."""

    arch: str
    arch_args: dict[str, Any]
    input: Spec
    classes: tuple[str, ...]
    licence: str
    origin: str


def open_folder(folder: Path, request: Request) -> Source:
    """A folder with `config.json` and weights as a source.

    Raises:
        SourceError: no config, a layout that is not read, weights that do not fit it, or an architecture that
            is not trusted to be one.
    """
    body = transformer_folder(folder)
    if is_transformers(_read_config(body)):
        return open_transformers(folder, None if request.random_weights else _weights(body), request)
    card = read_card(folder)
    _check_arch(card.arch, folder, request)
    model = _built(card, folder, request)
    report = None if request.random_weights else fill(model, _weights(folder))
    return make_source(
        request.uri,
        card.arch,
        card.arch_args,
        model,
        request.input_or(card.input),
        classes=card.classes,
        licence=card.licence,
        origin=card.origin,
        report=report,
    )


def _built(card: Card, folder: Path, request: Request) -> nn.Module:
    """The network that a config describes, which is not trusted to be sound or of a sane size."""
    files = [path for path in folder.iterdir() if path.is_file()]
    n_bytes = _LARGEST if request.random_weights else sum(path.stat().st_size for path in files)
    try:
        with Bounded(n_bytes, str(folder / "config.json")):
            return build(card.arch, card.arch_args, seed=request.seed)[0]
    except RegraftError:
        raise
    except Exception as error:  # what wrong arguments do to a constructor is anybody's guess
        raise SourceError(
            f"{folder / 'config.json'} describes no network: {card.arch} cannot be built with {card.arch_args} "
            f"({type(error).__name__}: {str(error)[:150]}). Copy it again, then pass {folder}"
        ) from error


def open_hf(name: str, request: Request) -> Source:
    """`hf:NAME_OR_FOLDER` as a source: a network of the Hugging Face hub, in timm's layout or transformers'.

    Raises:
        SourceError: it cannot be fetched, or is none that `open_folder` reads.
        MissingExtra: a package of the Hugging Face family is not installed.
    """
    return open_folder(hf_folder(name), request)


def _check_arch(arch: str, folder: Path, request: Request) -> None:
    """The user may repeat the config's architecture, which says that they trust it."""
    if request.arch is not None and canonical_arch(request.arch) == canonical_arch(arch):
        return
    request.without_arch()
    reason = doubt(arch, folder)
    if reason:
        raise SourceError(
            f"{folder} wants to call {arch}, which {reason}. Weights are data and run no code of their own. "
            "If you know this callable and trust it, name it yourself: "
            f"load_source({request.uri!r}, arch={arch!r}), on the command line --arch {arch}"
        )


def write_source(folder: Path, source: Source) -> None:
    """Write a source as a folder in regraft's own layout; `load_source` opens it again.

    Args:
        folder: made if it is not there; files of the same names are replaced.
        source: any source whose architecture can be rebuilt from its `arch` and `arch_args`.

    Example:
        >>> import tempfile
        >>> from regraft.source import load_source
        >>> from regraft.testing import tiny_source
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_source(folder, tiny_source())
        >>> load_source(str(folder)).weights_digest == tiny_source().weights_digest
        True
    """
    folder.mkdir(parents=True, exist_ok=True)
    card = {
        "format": FORMAT,
        "arch": source.arch,
        "arch_args": source.arch_args,
        "input": source.input.to_dict(),
        "classes": list(source.classes),
        "licence": source.licence,
        "origin": source.origin,
    }
    # Copies, as the format refuses tensors that share memory.
    state = {name: value.detach().clone() for name, value in source.model.state_dict().items()}
    save_tensors(state, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors in the format of safetensors.

    Raises:
        OSError: the disk is full or closed; safetensors itself only quotes what the system said.
    """
    try:
        safetensors.torch.save_file(tensors, path, metadata)
    except SafetensorError as error:
        if said := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(said[1]), os.strerror(int(said[1])), str(path)) from error
        raise


def read_card(folder: Path) -> Card:
    """Read a folder's `config.json`.

    Raises:
        SourceError: there is none, or it is of a layout that is not read.
    """
    config = _read_config(folder)
    try:
        if config.get("format") == FORMAT:
            return _own_card(config)
        if isinstance(config.get("architecture"), str):
            return _timm_card(config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(
            f"{folder / 'config.json'} lacks something or has a wrong value: {error!r}. {READ_TODAY}. "
            "Compare with a whole one: write_source(folder, source) writes it"
        ) from error
    kind = config.get("model_type") or ", ".join(config.get("architectures") or ()) or "unknown"
    raise SourceError(
        f"{folder} is in a layout that is not read (kind: {kind}). {READ_TODAY}. "
        "For image networks: load_source('timm:NAME'), or a folder that timm.models.save_for_hf wrote"
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise SourceError(f"{folder} has no config.json. {READ_TODAY}. {_bare_weights_hint(folder)}")
    return read_json(path)


def _bare_weights_hint(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    name = files[0] if files else folder / "weights.pt"
    return f"For bare weights pass the file and its architecture: load_source('{name}', arch='timm:NAME')"


def _own_card(config: Mapping[str, Any]) -> Card:
    if not isinstance(config["arch"], str):
        raise TypeError(f"'arch' is {config['arch']!r}, no text")
    return Card(
        arch=config["arch"],
        arch_args=dict(config.get("arch_args") or {}),
        input=spec_from_dict(config["input"]),
        classes=tuple(config.get("classes") or ()),
        licence=config.get("licence") or "",
        origin=config.get("origin") or "",
    )


def _timm_card(config: Mapping[str, Any]) -> Card:
    """As timm.models.load_model_config_from_hf reads it; older files keep the card at the top level."""
    card = config.get("pretrained_cfg") or config
    arch_args = dict(config.get("model_args") or {})
    n_classes = config.get("num_classes", card.get("num_classes"))
    if n_classes is not None:
        arch_args.setdefault("num_classes", n_classes)
    labels = config.get("label_names") or card.get("label_names") or card.get("labels")
    provenance = config.get("provenance") or {}
    return Card(
        arch=f"timm:{config['architecture']}",
        arch_args=arch_args,
        input=input_of(card, arch_args),
        classes=label_names(labels),
        licence=card.get("license") or "",
        origin=provenance.get("source_repository") or card.get("hf_hub_id") or "",
    )


def _weights(folder: Path) -> Path:
    for name in (WEIGHTS, WEIGHTS + INDEX, "pytorch_model.bin", "pytorch_model.bin" + INDEX):
        if (folder / name).is_file():
            return folder / name
    raise SourceError(
        f"{folder} has a config.json but no {WEIGHTS}. Copy the weights beside it, or build the architecture "
        f"alone: load_source('{folder}', random_weights=True)"
    )
