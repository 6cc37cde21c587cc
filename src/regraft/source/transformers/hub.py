"""Hugging Face's transformers: its hub, its configs and its classes.

Wolf et al.: Transformers: State-of-the-Art Natural Language Processing, 2020, arXiv 1910.03771.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from regraft.errors import MissingExtra, SourceError, first_line
from regraft.offline import is_offline
from regraft.source.files import read_json

_FILES = (
    "*config.json", "README.md", "modules.json",
    "tokenizer.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt", "*.model",
)  # fmt: skip
# A config is a stranger's: it may not ask for layers without end, nor for code from elsewhere.
_LARGEST, _MOST_LAYERS, _MOST_PARAMETERS = 1 << 21, 512, 1 << 31
_NOT_DATA = re.compile(r"auto_map|.*attn_implementation.*|.*experts_implementation.*|.*kernels.*|trust_remote_code")


def library() -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "hf", "open networks of transformers") from error
    return transformers


def hf_folder(name: str) -> Path:
    """A folder of this machine, or the files of a network on the Hugging Face hub, downloaded once.

    Args:
        name: a folder, or `OWNER/NAME`, perhaps with `@REVISION`.

    Raises:
        SourceError: the hub does not give it, or the network is forbidden and the files are not here.
        MissingExtra: huggingface_hub is not installed.
    """
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    repository, _, revision = name.partition("@")
    try:
        for weights in (("*.safetensors", "*.safetensors.index.json"), ("pytorch_model*",)):
            folder = _snapshot(repository, revision or None, [*_FILES, *weights])
            if any(folder.glob(weights[0])):
                break
    except (MissingExtra, SourceError):
        raise
    except Exception as error:  # the hub's, HTTP's and the file system's errors of several libraries
        raise _unreachable(name, error) from error
    return folder


def kept_file(repository: str, names: Iterable[str]) -> Path | None:
    """The first of some files of a repository that the hub's cache holds; never touches the network.

    Args:
        repository: `OWNER/NAME`, perhaps with `@REVISION`.
        names: of files in it.
    """
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hf", "download networks from the Hugging Face hub") from error
    owner_and_name, _, revision = repository.partition("@")
    found = (try_to_load_from_cache(owner_and_name, name, revision=revision or None) for name in names)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _snapshot(repository: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hf", "download networks from the Hugging Face hub") from error
    return Path(
        snapshot_download(repository, revision=revision, allow_patterns=patterns, local_files_only=is_offline())
    )


def _unreachable(name: str, error: Exception) -> SourceError:
    return SourceError(
        f"hf:{name} could not be fetched, and there is no folder of this name ({first_line(error)}). Files from the "
        "Hugging Face hub are downloaded once into its cache ($HF_HOME/hub, else ~/.cache/huggingface/hub); "
        "REGRAFT_OFFLINE=1 and HF_HUB_OFFLINE=1 forbid it. Without a network, copy config.json, "
        "preprocessor_config.json and "
        f"model.safetensors of https://huggingface.co/{name.partition('@')[0]} into a folder of this machine and pass "
        "that: load_source('hf:path/to/folder')"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The fields of a folder's `config.json` that are data.

    Raises:
        SourceError: it asks for more than any network has, or belongs to quantised weights.
    """
    return plain_fields(read_json(folder / "config.json"), folder)


def plain_fields(config: Mapping[str, Any], where: Path | str) -> dict[str, Any]:
    """The fields of a config that are data, seen to be of sane size."""
    if config.get("quantization_config"):
        raise SourceError(
            f"{where} holds quantised weights, which cannot be trained. Take the repository that they were made from: "
            "load_source('hf:OWNER/NAME')"
        )
    too_much = next(_excess(config), "")
    if too_much:
        raise SourceError(f"{where} asks for {too_much}, more than any network has. Copy its config.json again")
    return {name: value for name, value in config.items() if not _NOT_DATA.fullmatch(name)}


def _excess(value: Any, name: str = "config") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _excess(inner, str(key))
    elif isinstance(value, list):
        if len(value) > _MOST_LAYERS and not all(isinstance(entry, str) for entry in value):
            yield f"{len(value)} of {name!r}"
        for entry in value[:_MOST_LAYERS]:
            yield from _excess(entry, name)
    elif isinstance(value, int | float):
        most = _MOST_LAYERS if re.search(r"layers|depth|blocks|stages", name) else _LARGEST
        if not abs(value) <= most and not isinstance(value, float):
            yield f"{name!r} = {value}"


def kinds(mapping: str, fields: Mapping[str, Any], where: str) -> tuple[type[nn.Module], ...]:
    """The classes that transformers has for a config and a task.

    Args:
        mapping: what transformers calls the table of that task ("MODEL_MAPPING").
        fields: of the config.
        where: named in messages.
    """
    found = getattr(_tables(), mapping).get(type(config_of(fields, where)), ())
    return found if isinstance(found, tuple) else (found,)  # DeiT has two classifiers


def model_types(*tasks: str) -> set[str]:
    """The kinds of network that transformers knows for some tasks ("MASKED_LM")."""
    return {name for task in tasks for name in getattr(_tables(), f"MODEL_FOR_{task}_MAPPING_NAMES")}


def _tables() -> ModuleType:
    library()
    from transformers.models.auto import modeling_auto

    return modeling_auto


def with_classifier(task: str, fields: Mapping[str, Any], where: str) -> type[nn.Module] | None:
    """The class with a classifier, if that is what was saved."""
    architectures = fields.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else ""
    options = kinds(f"MODEL_FOR_{task}_CLASSIFICATION_MAPPING", fields, where)
    return next((kind for kind in options if kind.__name__ == named), None)


def config_of(fields: Mapping[str, Any], where: str) -> Any:
    transformers = library()
    try:
        with quiet():
            return transformers.AutoConfig.for_model(**fields)
    except Exception as error:  # a config's own checks raise errors of many classes
        raise SourceError(
            f"{where} is no config that transformers {transformers.__version__} reads ({first_line(error)}). "
            "Copy its config.json again, or install a newer one: pip install --upgrade transformers"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without the load reports and progress bars of transformers; we make a report of our own."""
    logging = library().logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def fresh(kind: type[nn.Module], fields: Mapping[str, Any], **settings: bool) -> nn.Module:
    """A network of a class of transformers with fresh weights."""
    with quiet():
        return kind(config_of(fields, kind.__name__), **settings)


def check_size(kind: type[nn.Module], fields: Mapping[str, Any], where: str, most: int = _MOST_PARAMETERS) -> None:
    """Count parameters before any memory is taken."""
    try:
        with torch.device("meta"), quiet():
            wanted = sum(p.numel() for p in kind(config_of(fields, where)).parameters())
    except SourceError:
        raise
    except Exception as error:  # what a wrong config does to a constructor is anybody's guess
        raise SourceError(
            f"{where} describes no network: {kind.__name__} cannot be built from its config ({first_line(error)}). "
            "Copy its config.json again"
        ) from error
    if wanted > most:
        raise SourceError(
            f"{where} describes a network of {wanted:,} parameters, and its weights hold far fewer values. "
            "Copy config.json and the weights again, from the same place"
        )
