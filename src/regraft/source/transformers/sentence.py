"""Folders of sentence-transformers: which of their files is what, and how a text becomes one row.

    modules.json                 [{"path": "", "type": "….Transformer"}, {"path": "1_Pooling", "type": "….Pooling"}, …]
    sentence_bert_config.json    {"max_seq_length": 256, "do_lower_case": false}, beside the transformer
    1_Pooling/config.json        {"pooling_mode_mean_tokens": true, …}

Reimers & Gurevych: Sentence-BERT, 2019, arXiv 1908.10084.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.errors import SourceError
from regraft.source.files import read_json
from regraft.source.pooling import POOLINGS

_READ = "a Transformer, then a Pooling, and at most a Normalize"
_SILENT = ("Dropout",)  # has no effect once trained


@dataclass(frozen=True)
class Reading:
    """How a text becomes one row.

    Args:
        pooling: names in `POOLINGS`; empty if the folder does not say it.
        normalise: whether rows are scaled to length 1.
        length: most tokens; None if the folder does not say it.
        lowercase: whether texts are made lower case before the tokenizer sees them.
    """

    pooling: tuple[str, ...] = ()
    normalise: bool = False
    length: int | None = None
    lowercase: bool = False


def transformer_folder(folder: Path) -> Path:
    """Where `config.json`, the weights and the tokenizer lie: the folder itself, or one that modules.json names."""
    modules = _modules(folder)
    return _inside(folder, modules[0]) if modules else folder


def reading(folder: Path) -> Reading:
    """What a folder says of its sentence encoder; nothing for folders of transformers alone.

    Raises:
        SourceError: modules that are not read, or settings that make no sense.
    """
    modules = _modules(folder)
    if not modules:
        return Reading()
    kinds = [_kind(module) for module in modules]
    kept = [kind for kind in kinds if kind not in _SILENT]
    if kept not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise SourceError(
            f"{folder / 'modules.json'} lists {', '.join(kinds)}, expected {_READ}. The transformer alone can be "
            f"read, with the mean over its tokens: load_source('hf:FOLDER') of a copy of {folder} without modules.json"
        )
    settings = _optional(_inside(folder, modules[0]) / "sentence_bert_config.json")
    length = settings.get("max_seq_length")
    return Reading(
        pooling=_pooling(_inside(folder, modules[kinds.index("Pooling")])),
        normalise="Normalize" in kinds,
        length=length if isinstance(length, int) and length > 0 else None,
        lowercase=bool(settings.get("do_lower_case")),
    )


def _modules(folder: Path) -> list[dict[str, Any]]:
    """In the order in which they are applied; none where there is no modules.json."""
    path = folder / "modules.json"
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise SourceError(f"{path} is not valid JSON ({error}). Copy it again, then pass {folder}") from error
    whole = isinstance(found, list) and found and all(isinstance(m, dict) and "type" in m for m in found)
    if not whole or _kind(found[0]) != "Transformer":
        raise SourceError(f"{path} lists no modules that start with a Transformer, expected {_READ}. Copy it again")
    return found


def _kind(module: Mapping[str, Any]) -> str:
    return str(module["type"]).rpartition(".")[2]


def _inside(folder: Path, module: Mapping[str, Any]) -> Path:
    name = str(module.get("path") or "")
    if name and not re.fullmatch(r"[\w-][\w.-]*", name):
        raise SourceError(
            f"{folder / 'modules.json'} names the folder {name!r}, expected one that lies beside it. Put it there, "
            f"then pass {folder}"
        )
    return folder / name


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _pooling(folder: Path) -> tuple[str, ...]:
    """The ways of pooling, in the order of `POOLINGS`."""
    settings = read_json(folder / "config.json")
    named = settings.get("pooling_mode") or []
    wanted = {str(way) for way in (named if isinstance(named, list) else [named])}
    wanted |= {
        _WAYS.get(key, key) for key, value in settings.items() if key.startswith("pooling_mode_") and value is True
    }
    if not wanted or not wanted <= POOLINGS.keys():
        unknown = sorted(wanted - POOLINGS.keys()) or "none"
        raise SourceError(
            f"{folder / 'config.json'} asks for the pooling {unknown}, expected one or several of "
            f"{', '.join(POOLINGS)}. Copy the folder again, then pass {folder.parent}"
        )
    return tuple(way for way in POOLINGS if way in wanted)


_WAYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
