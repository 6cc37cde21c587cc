"""Artifacts: the delivered model as one folder.

Comes in: a trained `Network`, the source it came from, class names and a few pictures.
Goes out: a folder of safetensors, JSON and text, and from it a `Classifier` that answers on pictures.
Laws: a reloaded model gives the saved probabilities, or does not load; nothing in the folder is run as code; an
exported file gives the model's answers, or is not written; a served model answers as `predict` does.
"""

from regraft.artifact.classifier import Classifier, Prediction, Upload, load
from regraft.artifact.export import export_onnx
from regraft.artifact.hugging_face import export_hf
from regraft.artifact.saving import Delivery, Results, save, write_card
from regraft.artifact.serve import LARGEST_MB, application, listening, run_server

__all__ = [
    "LARGEST_MB",
    "Classifier",
    "Delivery",
    "Prediction",
    "Results",
    "Upload",
    "application",
    "export_hf",
    "export_onnx",
    "listening",
    "load",
    "run_server",
    "save",
    "write_card",
]
