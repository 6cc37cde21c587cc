"""`hf:NAME_OR_FOLDER` and folders in transformers' layout: which kind of network they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from regraft.errors import SourceError
from regraft.source.arch import ARCHITECTURES
from regraft.source.request import Request
from regraft.source.source import Source
from regraft.source.transformers.audio import audio_class, build_audio, is_audio, open_audio
from regraft.source.transformers.hub import check_size, plain_fields, read_config
from regraft.source.transformers.image import build_image, image_class, open_image, seeing
from regraft.source.transformers.saved import Saved
from regraft.source.transformers.sentence import transformer_folder
from regraft.source.transformers.text import build_text, is_text, open_text, text_class


def is_transformers(config: Mapping[str, Any]) -> bool:
    """Whether a folder's config.json is of transformers' layout."""
    return isinstance(config.get("model_type"), str) and not isinstance(config.get("architecture"), str)


def open_transformers(folder: Path, weights: Path | None, request: Request) -> Source:
    """A folder in the layout of transformers or of sentence-transformers as a source.

    Args:
        folder: with `config.json` and, for the input, `preprocessor_config.json` or a tokenizer.
        weights: the file or index of files; None where only the architecture is wanted.
        request: what the user asked for.

    Raises:
        SourceError: a kind of network that is not read, a config that asks for too much, or weights that do not fit.
        MissingExtra: transformers is not installed.
    """
    request.without_arch()
    fields = seeing(read_config(transformer_folder(folder)), str(folder))
    return _family(fields).open(Saved(folder, fields, weights, request))


def build_transformers(name: str, arch_args: dict[str, Any]) -> tuple[nn.Module, None]:
    """`hf:CLASS` with its config among the arguments: the architecture with fresh weights."""
    config = arch_args.get("config")
    if not isinstance(config, dict):
        raise SourceError(
            f"hf:{name} is an architecture of transformers, and comes with its config: "
            "build(source.arch, source.arch_args). A network with its weights: load_source('hf:OWNER/NAME')"
        )
    fields = plain_fields(config, f"hf:{name}")
    family = _family(fields)
    kind = family.class_of(fields, f"hf:{name}")
    if kind.__name__ != name:
        raise SourceError(f"the config given with hf:{name} is one of {kind.__name__}: build('hf:{kind.__name__}', …)")
    check_size(kind, fields, f"hf:{name}")
    return family.build(kind, fields, arch_args), None


@dataclass(frozen=True)
class _Family:
    """What differs between the networks of one modality and those of another.

    Args:
        open: makes a source of a folder.
        class_of: finds the class that a config describes.
        build: makes a network of that class with fresh weights.
    """

    open: Callable[[Saved], Source]
    class_of: Callable[[Mapping[str, Any], str], type[nn.Module]]
    build: Callable[[type[nn.Module], dict[str, Any], dict[str, Any]], nn.Module]


_AUDIO = _Family(open_audio, audio_class, build_audio)
_TEXT = _Family(open_text, text_class, build_text)
_IMAGE = _Family(open_image, image_class, build_image)


def _family(fields: Mapping[str, Any]) -> _Family:
    return _AUDIO if is_audio(fields) else _TEXT if is_text(fields) else _IMAGE


ARCHITECTURES.add("hf", build_transformers)
