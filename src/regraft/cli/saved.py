"""What the verbs that answer with a saved model have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from regraft.artifact import Classifier, load
from regraft.job import Device
from regraft.job import device as device_of


@dataclass(frozen=True)
class Use:
    """How a saved model is to be used.

    Args:
        device: where PyTorch works.
        trust_code: whether an architecture that is an arbitrary function may be called.
        source_head: whether the source's own head answers.
    """

    device: Device = field(default="cpu", metadata={"help": "Where PyTorch works."})
    trust_code: bool = field(
        default=False, metadata={"help": "Call the Python function that the model names as its architecture."}
    )
    source_head: bool = field(
        default=False, metadata={"help": "Answer with the source's own head, where it was kept (keep_source_head)."}
    )

    def load(self, folder: Path) -> Classifier:
        """The model in a folder, ready to answer."""
        model = load(folder, device=device_of(self.device), trust_code=self.trust_code)
        return model.source_head if self.source_head else model
