"""Where the frozen layers run, and how it is made sure that they say what PyTorch says.

A runtime is anything with `run(rows)`. PyTorch's is here; OpenVINO's is in `openvino_cpu`.
`docs/cache.md` has the figures behind each choice.

Shape letters: B examples of a batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import nn

from regraft.cache.key import BFLOAT16, FLOAT32
from regraft.cut import rows_at_once
from regraft.errors import CacheError, MissingExtra, first_line
from regraft.spec import Spec

# The largest difference to PyTorch that a runtime may show, as a fraction of a tap's standard deviation.
# Two ways to sum in float32 differ by about 1e-5 of it; a wrong conversion, or bfloat16 in secret, by over
# 1e-2.
TOLERANCE = 1e-3
CHECKED = 8  # examples of the first batch

# OpenVINO takes about a second to convert a network, and then saves 10 to 20 ms per 224x224 picture on two
# cores: it pays from about 64 such pictures, or as many smaller ones as have as many pixels.
_PAYS_FROM_PIXELS = 64 * 224 * 224


class Runtime(Protocol):
    """Something that runs a network forward."""

    def run(self, rows: np.ndarray) -> list[np.ndarray]:
        """Prepared rows (B, …) to one array (B, …) for each tap."""
        ...


class TorchRuntime:
    """PyTorch: channels-last, float32 on a CPU and bfloat16 where the device is faster with it.

    Works on a copy of the network, because the memory format and the device of a module are changed in place.

    Args:
        model: prepared rows to a tuple of tensors.
        device: where to run.
        compiled: use `torch.compile`, which takes long to begin with; for tens of thousands of pictures.
    """

    def __init__(self, model: nn.Module, device: str = "cpu", *, compiled: bool = False) -> None:
        self._device = torch.device(device)
        moved = copy.deepcopy(model).eval().to(self._device)
        moved = moved.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._model: Callable[[torch.Tensor], tuple[torch.Tensor, ...]] = torch.compile(moved) if compiled else moved
        self._at_once = rows_at_once(moved)

    def run(self, rows: np.ndarray) -> list[np.ndarray]:
        """Prepared rows (B, …) to one float32 array (B, …) for each tap."""
        parts = [self._run(rows[first : first + self._at_once]) for first in range(0, max(1, len(rows)), self._at_once)]
        return [np.concatenate(of_tap) for of_tap in zip(*parts, strict=True)] if len(parts) > 1 else parts[0]

    def _run(self, rows: np.ndarray) -> list[np.ndarray]:
        x = torch.from_numpy(rows).to(self._device)
        x = x.to(memory_format=torch.channels_last) if x.ndim == 4 else x
        low = numerics(str(self._device)) == BFLOAT16
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=low):
            return [out.float().contiguous().cpu().numpy() for out in self._model(x)]


@dataclass(frozen=True)
class Chosen:
    """A runtime ready to run.

    Args:
        runtime: it.
        name: "torch" or "openvino".
        fallback_reason: why it is not the one that was wanted; empty if it is.
    """

    runtime: Runtime
    name: str
    fallback_reason: str = ""


def numerics(device: str) -> str:
    """The class of arithmetic on a device, which is a part of the cache's key."""
    return BFLOAT16 if torch.device(device).type == "cuda" else FLOAT32


def choose(wanted: str, device: str, n: int, spec: Spec) -> Literal["torch", "openvino"]:
    """The runtime to try.

    Args:
        wanted: "torch" or "openvino" are taken as they are; "auto" decides.
        device: on anything but a CPU, "auto" is "torch".
        n: examples to compute.
        spec: what one of them is; "auto" is "torch" for all but pictures.

    Example:
        >>> from regraft.spec import InputSpec
        >>> large, small = (InputSpec((3, side, side)) for side in (224, 32))
        >>> choose("auto", "cpu", 1000, large), choose("auto", "cpu", 1000, small)
        ('openvino', 'torch')
    """
    if wanted == "torch" or wanted == "openvino":
        return wanted
    if wanted != "auto":
        raise CacheError(f"unknown runtime {wanted!r}. Use runtime='auto', 'torch' or 'openvino'")
    pays = len(spec.size) == 3 and n * spec.size[-1] * spec.size[-2] >= _PAYS_FROM_PIXELS
    return "openvino" if torch.device(device).type == "cpu" and pays else "torch"


def build(model: nn.Module, name: str, device: str, size: tuple[int, ...]) -> Chosen:
    """A runtime of that name, or PyTorch with the reason why not.

    Args:
        model: prepared rows to a tuple of tensors.
        name: "torch" or "openvino".
        device: where PyTorch runs.
        size: (C, H, W) of one picture.
    """
    if name == "torch":
        return Chosen(TorchRuntime(model, device), "torch")
    from regraft.cache.openvino_cpu import OpenVINORuntime

    try:
        return Chosen(OpenVINORuntime(model, size), "openvino")
    except MissingExtra as error:
        return Chosen(TorchRuntime(model, device), "torch", str(error))
    except Exception as error:  # an engine that cannot take a network may fail in any way; PyTorch can
        reason = f"OpenVINO could not convert the network ({type(error).__name__}: {first_line(error)})"
        return Chosen(TorchRuntime(model, device), "torch", reason)


def checked(chosen: Chosen, model: nn.Module, device: str, taps: list[str], rows: np.ndarray) -> Chosen:
    """The runtime if it agrees with PyTorch on some examples, else PyTorch with the reason.

    Args:
        chosen: the runtime to check.
        model: what it was built from.
        device: where PyTorch runs.
        taps: names for the message.
        rows: prepared, (B, …); the first `CHECKED` are looked at.
    """
    if chosen.name == "torch":
        return chosen
    sample = rows[:CHECKED]
    with torch.inference_mode():
        reference = [out.numpy() for out in model(torch.from_numpy(sample))]
    reason = _disagreement(chosen, taps, reference, sample)
    return Chosen(TorchRuntime(model, device), "torch", reason) if reason else chosen


def _disagreement(chosen: Chosen, taps: list[str], reference: list[np.ndarray], sample: np.ndarray) -> str:
    try:
        outputs = chosen.runtime.run(sample)
    except RuntimeError as error:
        return f"{chosen.name} could not run the network ({first_line(error)})"
    for name, theirs, ours in zip(taps, outputs, reference, strict=True):
        if theirs.shape != ours.shape:
            return f"{chosen.name} gives shape {theirs.shape} at {name}, PyTorch {ours.shape}"
        if not np.array_equal(np.isnan(theirs), np.isnan(ours)):  # which mark the places beyond an example's end
            return f"{chosen.name} differs from PyTorch in what is not a number at {name}"
        difference = float(np.nanmax(np.abs(theirs - ours))) / max(float(np.nanstd(ours)), 1e-6)
        # Not "difference > TOLERANCE": that is false for a NaN.
        if not difference <= TOLERANCE:
            return f"{chosen.name} differs from PyTorch by {difference:.2g} standard deviations at {name}"
    return ""
