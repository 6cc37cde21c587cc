"""What every peer's script shares: the cell it is given, the network with its weights, the pictures, the answer.

B batch, C channels, H height, W width.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchvision import transforms
from torchvision.datasets import ImageFolder


@dataclass(frozen=True)
class Task:
    """A cell as a peer gets it: `python SCRIPT.py FOLDER CONTESTANT SETTING timed|untimed`.

    Where time does not count, a script may leave out what does not change its answer.
    """

    folder: Path
    contestant: str
    setting: str
    timed: bool

    @classmethod
    def given(cls) -> Task:
        """From the command line; all random numbers start from the cell's seed."""
        task = cls(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] == "timed")
        torch.manual_seed(task.seed)
        sys.stdout = sys.stderr  # libraries print; the answer has standard output to itself
        return task

    @cached_property
    def cell(self) -> dict[str, Any]:
        """Content of cell.json."""
        return json.loads((self.folder / "cell.json").read_text(encoding="utf-8"))

    @property
    def seed(self) -> int:
        """Of the subset and of all that is drawn."""
        return self.cell["seed"]

    @property
    def source(self) -> str:
        """Folder in timm's layout, or the embedded network."""
        return self.cell["source"]

    @property
    def side(self) -> int:
        """Of the pictures that the network is fed with."""
        return self.cell["input"]["size"][1]

    @cached_property
    def classes(self) -> list[str]:
        """Sorted, as torchvision and fastai number them."""
        return sorted(path.name for path in (self.folder / "train").iterdir())

    def pictures(self, split: str, *, augment: transforms.Compose | None = None) -> ImageFolder:
        """A split, prepared as the source was trained, or by another transform."""
        return ImageFolder(str(self.folder / split), augment or self.plain)

    @property
    def plain(self) -> transforms.Compose:
        """Resize, crop in the middle, normalise."""
        spec = self.cell["input"]
        mode = transforms.InterpolationMode(spec["interpolation"])
        squash = spec["crop_mode"] == "squash"
        size: Any = (self.side, self.side) if squash else round(self.side / spec["crop_pct"])
        return transforms.Compose([transforms.Resize(size, mode), transforms.CenterCrop(self.side), *self._to_tensor])

    def random(self, *steps: Any) -> transforms.Compose:
        """Random resized crops, and what else is given, then normalised."""
        return transforms.Compose([transforms.RandomResizedCrop(self.side), *steps, *self._to_tensor])

    @property
    def _to_tensor(self) -> list[Any]:
        spec = self.cell["input"]
        return [transforms.ToTensor(), transforms.Normalize(spec["mean"], spec["std"])]

    def network(self, *, random: bool = False, n_out: int | None = None) -> tuple[nn.Module, nn.Module]:
        """The pretrained network with a fresh last layer for the task's classes, and that layer.

        Args:
            random: fresh weights everywhere.
            n_out: outputs; 0 leaves features.
        """
        n_out = len(self.classes) if n_out is None else n_out
        if self.source.startswith("regraft:"):
            return _embedded(self.source, n_out, random)
        import timm

        model = timm.create_model(f"local-dir:{self.source}", pretrained=not random, num_classes=n_out)
        return model, model.get_classifier()

    def answer(self, predicted: list[int]) -> None:
        """Print which test pictures, sorted by path, were right."""
        truth = [label for _, label in self.pictures("test").samples]
        assert len(predicted) == len(truth)
        right = [p == t for p, t in zip(predicted, truth, strict=True)]
        print(json.dumps({"right": "".join("1" if r else "0" for r in right)}), file=sys.__stdout__)


def _embedded(uri: str, n_out: int, random: bool) -> tuple[nn.Module, nn.Module]:
    """A network that comes with regraft, which here only opens the file."""
    from regraft.source import load_source

    model = load_source(uri, random_weights=random).model
    model.linear = nn.Linear(model.linear.in_features, n_out) if n_out else nn.Identity()
    return model, model.linear


class EmbeddedTrunk(nn.Module):
    """The embedded ResNet below its pooling, for libraries that bring their own head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) to (B, C, H / 4, W / 4)."""
        m = self.model
        return m.layer3(m.layer2(m.layer1(F.relu(m.bn1(m.conv1(x))))))


@torch.inference_mode()
def predictions(model: nn.Module, pictures: ImageFolder) -> list[int]:
    """The class of each picture, in order."""
    # Larger batches take longer: ../forward_batches.py.
    loader = torch.utils.data.DataLoader(pictures, batch_size=8, num_workers=2)
    model.eval()
    return [int(label) for pixels, _ in loader for label in model(pixels).argmax(1)]
