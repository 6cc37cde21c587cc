"""A saved model as one ONNX file, for programs without Python, PyTorch or regraft.

    input   "rows", prepared examples: of pictures uint8 (B, C, H, W), resized and cropped; of texts int32 (B, T), token
            numbers, padded with -1; of recordings as the input's spec says. B is free, and so is T.
    output  "probabilities" (B, K) of classes or labels, or "values" (B, K), numbers in their own units
    metadata "regraft": JSON with input (the spec of the preparation), classes, task, views, and digest of the weights

Normalisation is inside; decoding, resizing and tokenising are not. The file is written when an interpreter that shares
no code with PyTorch gives the probabilities of the self-test's examples again.

Shape letters: B examples of a batch, C channels, H and W pixels, T tokens, K outputs.
"""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft.artifact.bundle import TOLERANCE, VERSION, selftest_examples
from regraft.artifact.classifier import Classifier
from regraft.cut.graph import inputs_of
from regraft.data import Task
from regraft.errors import BundleError, MissingExtra, first_line
from regraft.run import write_atomic

_PURPOSE = "write .onnx files"
_CHECKED = 2  # examples: the interpreter is slow
METADATA = "regraft"
_INSTEAD = "The bundle itself answers: regraft predict MODEL_DIR INPUT"


class Answering(nn.Module):
    """A network with its last step: from prepared rows to what people read."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, task: Task) -> None:
        super().__init__()
        self.network = network
        self.task = task
        if task.numeric:
            self.register_buffer("mean", torch.tensor(task.mean))
            self.register_buffer("std", torch.tensor(task.std))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(B, …) to (B, K)."""
        return self.said(self.network(rows))

    def said(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, K) as probabilities, or as numbers in their own units."""
        if self.task.numeric:
            return scores * self.std + self.mean
        return scores.softmax(1) if self.task.one_of else scores.sigmoid()


def export_onnx(model: Classifier, path: Path) -> Path:
    """Write a model as an ONNX file; the network is the bundle's, on the CPU.

    Args:
        model: a loaded model.
        path: of the file; nothing may be there.

    Raises:
        BundleError: something is there already, or the file would give other answers than the model.
        MissingExtra: the packages onnx and onnxscript are not installed.
    """
    onnx = _onnx()
    if path.exists():
        raise BundleError(f"{path} is there already. Choose another name: regraft export … --out OTHER.onnx")
    rows = torch.from_numpy(selftest_examples(model.bundle)[0])
    answering = Answering(model.network.cpu(), model.bundle.task).eval()
    proto = _translated(answering, rows, ragged=model.bundle.input.ragged)
    onnx.helper.set_model_props(proto, {METADATA: json.dumps(_metadata(model), ensure_ascii=False)})
    _check(proto, answering, rows[:_CHECKED])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, proto.SerializeToString())
    return path


def _onnx() -> Any:
    try:
        import onnx
        import onnx.reference
        import onnxscript  # noqa: F401  (PyTorch's exporter is written in it)
    except ImportError as error:
        raise MissingExtra(error.name or "onnxscript", "export", _PURPOSE) from error
    return onnx


def _translated(answering: Answering, rows: torch.Tensor, *, ragged: bool) -> Any:
    free: dict[int, Any] = {0: torch.export.Dim.DYNAMIC}
    if ragged:
        free[1] = torch.export.Dim.AUTO  # a table of positions bounds the length
    output = "values" if answering.task.numeric else "probabilities"
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's, about its own parts
            program = torch.onnx.export(
                answering, inputs_of(rows, ragged=ragged)[0], dynamo=True, verbose=False, dynamic_shapes=(free,),
                input_names=["rows"], output_names=[output],
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        raise BundleError(f"PyTorch cannot write this network as ONNX ({_root(error)}). {_INSTEAD}") from error
    assert program is not None
    return program.model_proto


def _root(error: Exception) -> str:
    """What went wrong first, in a line."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return first_line(error)


def _metadata(model: Classifier) -> dict[str, Any]:
    bundle = model.bundle
    return {
        "version": VERSION,
        "input": bundle.input.to_dict(),
        "classes": bundle.classes,
        "task": bundle.task.to_dict(),
        "views": bundle.views,
        "digest": bundle.digest,
    }


def _check(proto: Any, answering: Answering, rows: torch.Tensor) -> None:
    from onnx.reference import ReferenceEvaluator

    with torch.no_grad():
        expected = answering(rows).numpy()
    (found,) = ReferenceEvaluator(proto).run(None, {"rows": rows.numpy()})
    worst = float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max()))
    if not worst <= TOLERANCE:
        raise BundleError(
            f"the ONNX file would give other answers than the model, by up to {worst:.2g} (allowed: {TOLERANCE:g}), "
            f"and is not written. {_INSTEAD}"
        )
