"""Frozen layers on OpenVINO: the only file that imports it.

Two things are done another way than OpenVINO's guide does them. The network is handed to its PyTorch front
end directly, as a TorchScript trace of the graph: `openvino.convert_model` does the same after examining its
arguments for seconds. And its telemetry is left out: `import openvino` and `convert_model` report to a
server on the internet unless a file in the home folder or a continuous-integration variable says otherwise.
We write no such file; we keep the telemetry package from being imported, for which OpenVINO has a stub of
its own.

Shape letters: B examples of a batch, C channels, H and W pixels.
"""

from __future__ import annotations

import sys
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft.errors import MissingExtra

_TELEMETRY = "openvino_telemetry"
# Pixels in one request. One picture of 224x224 at a time keeps its activations in the processor's caches: on two
# quiet cores 5.8 ms (MobileNetV2) and 20 ms (ResNet-18), against 7.1 and 26 ms with eight. Tiny pictures need
# company to hide the cost of a request.
_REQUEST_PIXELS = 224 * 224
_MAX_REQUEST = 32


def openvino() -> ModuleType:
    """The openvino package, imported without its telemetry.

    Raises:
        MissingExtra: it is not installed.
    """
    blocked = _TELEMETRY not in sys.modules
    if blocked:
        # Makes its import fail: see above.
        sys.modules[_TELEMETRY] = None  # pyright: ignore[reportArgumentType]
    try:
        import openvino
        import openvino.frontend.pytorch
    except ImportError as error:
        raise MissingExtra("openvino", "openvino", "run frozen layers faster on a CPU") from error
    finally:
        if blocked:
            del sys.modules[_TELEMETRY]
    return openvino


class OpenVINORuntime:
    """A network on all cores of the CPU, in float32: each stream computes a few pictures at a time.

    The network is converted for a fixed number of pictures, which every architecture allows (a traced
    transformer has the batch size written into it); the last request of a batch is filled up, its surplus
    dropped.

    Args:
        model: (B, C, H, W) uint8 pixels to a tuple of tensors.
        size: (C, H, W) of one picture.
        precision: "f32", or "bf16", which is faster where the processor has it, and fails the check.

    Raises:
        MissingExtra: OpenVINO is not installed.
    """

    def __init__(self, model: nn.Module, size: tuple[int, ...], *, precision: str = "f32") -> None:
        ov = openvino()
        self._chunk = max(1, min(_MAX_REQUEST, _REQUEST_PIXELS // (size[-1] * size[-2])))
        converted = _convert(ov, model, torch.zeros((self._chunk, *size), dtype=torch.uint8))
        settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
        compiled = ov.Core().compile_model(converted, "CPU", settings)
        self._n_outputs = len(compiled.outputs)
        self._results: dict[int, list[np.ndarray]] = {}
        self._queue = ov.AsyncInferQueue(compiled)
        self._queue.set_callback(self._keep)

    def run(self, rows: np.ndarray) -> list[np.ndarray]:
        """(B, C, H, W) uint8 pixels to one float32 array (B, …) for each tap."""
        starts = range(0, len(rows), self._chunk)
        for start in starts:
            self._queue.start_async({0: self._filled(rows[start : start + self._chunk])}, start)
        self._queue.wait_all()
        results = [self._results.pop(start) for start in starts]
        return [np.concatenate([r[i] for r in results])[: len(rows)] for i in range(self._n_outputs)]

    def _filled(self, rows: np.ndarray) -> np.ndarray:
        surplus = self._chunk - len(rows)
        return np.pad(rows, [(0, surplus), (0, 0), (0, 0), (0, 0)]) if surplus else rows

    def _keep(self, request: Any, start: int) -> None:
        # The request's memory is used again for the next pictures.
        self._results[start] = [request.get_output_tensor(i).data.copy() for i in range(self._n_outputs)]


def _convert(ov: ModuleType, model: nn.Module, example: torch.Tensor) -> Any:
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # PyTorch recommends torch.export over its tracer; OpenVINO takes five times as long to convert that. One
    # message is silenced for good, because `catch_warnings` would undo what other threads do meanwhile.
    warnings.filterwarnings("ignore", r".*torch\.jit\.trace.* is (deprecated|not supported)")
    with torch.no_grad():
        traced = torch.jit.trace(model, example, check_trace=False)
        # The front end calls back into these two; it does not keep them alive itself.
        decoder, manager = TorchScriptPythonDecoder(traced), FrontEndManager()
        front_end = manager.load_by_framework("pytorch")
        converted = front_end.convert(front_end.load(decoder))
    parameter = converted.get_parameters()[0]
    parameter.set_partial_shape(ov.PartialShape(list(example.shape)))
    parameter.set_element_type(ov.Type.u8)
    converted.validate_nodes_and_infer_types()
    return converted
