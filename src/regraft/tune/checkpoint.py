"""Checkpoints: written beside the old one and renamed, so that a kill leaves one of them, never half."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import IO, Any

import torch

from regraft.errors import RunError, first_line
from regraft.run import damaged


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace a checkpoint in one step.

    Raises:
        OSError: the disk is full; the checkpoint that was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            _save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _save(state: dict[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:  # PyTorch ends its archive even where a write failed, and says only that it could not
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def read_checkpoint(path: Path, *, made_for: str) -> dict[str, Any] | None:
    """The state in a checkpoint; None if there is none.

    Args:
        path: the file.
        made_for: digest of what the run is (plan, seed, labels).

    Raises:
        RunError: the checkpoint belongs to another run, or is damaged.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise RunError(damaged(path, first_line(error))) from error
    if state["made_for"] != made_for:
        raise RunError(
            f"{path} was written by another run (its plan, seed or labels differ). "
            "Resume with the same settings and data, or begin anew: --out NEW_FOLDER"
        )
    return state
