"""Weight files as tensors: safetensors, and PyTorch's pickles without running what they carry."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from regraft.errors import SourceError

TORCH_SUFFIXES = (".pt", ".pth", ".th", ".bin", ".ckpt", ".tar")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
_CONVERT = (
    "python -c \"import torch, safetensors.torch as s; c = torch.load('{path}', weights_only=False); "
    "s.save_file(c['state_dict'], 'weights.safetensors')\""
)


@dataclass(frozen=True)
class Checkpoint:
    """What a weight file holds.

    Args:
        groups: where the tensors lie ("" is the top level, "state_dict", "ema.model") to name to tensor.
        ignored: entries that are not tensors, for people.
    """

    groups: Mapping[str, Mapping[str, torch.Tensor]]
    ignored: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a weight file onto the CPU.

    Args:
        path: `.safetensors`, or PyTorch's own format in its zip or older form.

    Raises:
        SourceError: no such file, another format, a damaged file, or a pickle that wants to run code.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "net.pt"
        >>> torch.save({"epoch": 3, "state_dict": {"module.bias": torch.zeros(2)}}, path)
        >>> found = read_checkpoint(path)
        >>> list(found.groups), found.ignored
        (['state_dict'], ('epoch',))
    """
    if not path.is_file():
        raise SourceError(
            f"there is no weight file at {path}. Pass a file that ends in {', '.join(SUFFIXES)}"
        )
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes). Copy or download it again, then pass {path}")
    if path.suffix == ".safetensors":
        return Checkpoint({"": _read_safetensors(path)})
    return _sort_out(_read_torch(path), path)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, ValueError) as error:
        raise SourceError(
            f"{path} is not a whole safetensors file ({error}). Copy or download it again, then pass {path}"
        ) from error


def _read_torch(path: Path) -> Any:
    try:
        # Training scripts leave their parsed arguments in checkpoints; a Namespace only holds values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise _explain(path, str(error)) from error


def _explain(path: Path, text: str) -> SourceError:
    unsafe = re.search(r"Unsupported global: GLOBAL (\S+)|Unsupported class (\S+)", text)
    if unsafe:
        wanted = unsafe.group(1) or unsafe.group(2)
        return SourceError(
            f"{path} is a pickle that wants to use {wanted}, which could run any code, so it was not opened. "
            "Expected a checkpoint of plain tensors. If you trust its maker, convert it once on a machine where "
            f"that may run: {_CONVERT.format(path=path)} and pass weights.safetensors"
        )
    if "TorchScript" in text:
        return SourceError(
            f"{path} is a TorchScript program, expected a checkpoint of plain tensors. Save its weights: "
            f"torch.save(torch.jit.load('{path}').state_dict(), 'weights.pt') and pass weights.pt"
        )
    return SourceError(
        f"{path} cannot be read as a PyTorch checkpoint: it is damaged, cut short, or of another format "
        f"({text.splitlines()[0][:160] if text else 'no reason given'}). Copy or download it again; formats read "
        f"today: {', '.join(SUFFIXES)}. Then pass {path}"
    )


def _sort_out(content: Any, path: Path) -> Checkpoint:
    if not isinstance(content, Mapping):
        raise SourceError(
            f"{path} holds a {type(content).__name__}, expected a state_dict (names to tensors). "
            "Save one: torch.save(model.state_dict(), 'weights.pt') and pass weights.pt"
        )
    groups: dict[str, dict[str, torch.Tensor]] = {}
    ignored: list[str] = []
    for where, name, value in _walk(content, ""):
        if isinstance(value, torch.Tensor):
            groups.setdefault(where, {})[name] = value
        else:
            ignored.append(f"{where}.{name}" if where else name)
    if not groups:
        raise SourceError(
            f"{path} holds no tensors, only {', '.join(ignored[:5]) or 'nothing'}; expected a state_dict. "
            "Save one: torch.save(model.state_dict(), 'weights.pt') and pass weights.pt"
        )
    return Checkpoint(groups, tuple(ignored))


def _walk(content: Mapping[Any, Any], where: str) -> Iterator[tuple[str, str, Any]]:
    """(group, name, value) of everything; an optimizer's state is one entry, not weights."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value and "optim" not in str(key):
            yield from _walk(value, f"{where}.{key}" if where else str(key))
        else:
            yield where, str(key), value
