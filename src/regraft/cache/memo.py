"""Results that follow from a network or from its features, kept so that they need not be made again.

    ROOT/memo/profile-4be1….safetensors     a kind, and the first digits of the digest of its key

Arrays lie in the file as safetensors keeps them, everything else as JSON in its header: nothing in it is code. A file
that cannot be read counts as not there. The digest of the code that made a result belongs in its key
(`regraft.digest.digest_package`), so that no version reads what another one meant.
"""

from __future__ import annotations

import json
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from regraft.digest import digest_json

FOLDER = "memo"
_FACTS = "facts"


def recall(root: Path, kind: str, key: Any) -> tuple[Any, dict[str, np.ndarray]] | None:
    """What was remembered under a key: plain values, and arrays by name; None if nothing was.

    Args:
        root: folder of the caches.
        kind: of result, a word.
        key: everything that the result depends on, as plain values.
    """
    path = _path(root, kind, key)
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads((file.metadata() or {})[_FACTS])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        os.utime(path)
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    return facts, arrays


def remember(root: Path, kind: str, key: Any, facts: Any, arrays: dict[str, np.ndarray] | None = None) -> None:
    """Keep a result under its key; a disk that is full or closed keeps nothing, and nothing is lost by it.

    Args:
        root: folder of the caches.
        kind: of result, a word.
        key: everything that the result depends on, as plain values.
        facts: plain values.
        arrays: by name.
    """
    path = _path(root, kind, key)
    part = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        solid = {name: np.ascontiguousarray(values) for name, values in (arrays or {}).items()}
        save_file(solid, part, metadata={_FACTS: json.dumps(facts)})
        part.replace(path)
    except (OSError, SafetensorError):
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _path(root: Path, kind: str, key: Any) -> Path:
    return root / FOLDER / f"{kind}-{digest_json(key)[:32]}.safetensors"
