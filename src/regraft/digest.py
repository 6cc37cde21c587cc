"""Content digests: the same bytes give the same name, on every machine."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch


def digest_bytes(data: bytes | memoryview) -> str:
    """SHA-256 of some bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 of a plain value, whatever the order of its keys."""
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def digest_state(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, whatever their order or device."""
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


@lru_cache
def digest_package(name: str) -> str:
    """SHA-256 over the Python files of a package and of those in it, for results that depend on how they were computed.

    Args:
        name: an importable package ("regraft.probe").
    """
    found = importlib.util.find_spec(name)
    assert found is not None and found.origin is not None, f"{name} is no package"
    folder = Path(found.origin).parent
    files = sorted(folder.rglob("*.py"))
    return digest_json([[file.relative_to(folder).as_posix(), digest_file(file)] for file in files])
