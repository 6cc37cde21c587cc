"""Small frozen values that several stages share.

Shape letters: C channels, H height, W width (pixels).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Modality = Literal["image"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]
CropMode = Literal["center", "squash"]
ChannelOrder = Literal["RGB", "BGR"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputSpec:
    """What a network expects as input, in timm's terms.

    Args:
        size: (C, H, W); C is 1 or 3.
        mean: one number per channel, for pixels scaled to 0..1, in the network's own order of channels.
        std: one number per channel.
        interpolation: how pictures are resized.
        crop_pct: side of the crop as a fraction of the resized short side, in (0, 1].
        crop_mode: "center" keeps the aspect ratio and crops the middle; "squash" resizes both sides.
        modality: the kind of input.
        channel_order: in which the network wants colours; networks of Caffe want blue first.
    """

    size: tuple[int, int, int]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Interpolation = "bicubic"
    crop_pct: float = 1.0
    crop_mode: CropMode = "center"
    modality: Modality = "image"
    channel_order: ChannelOrder = "RGB"

    def __post_init__(self) -> None:
        channels = self.size[0]
        if len(self.mean) != channels or len(self.std) != channels:
            raise ValueError(f"mean and std need one number per channel ({channels}): {self.mean}, {self.std}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they go into JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> InputSpec:
        """The inverse of `to_dict`; lists become tuples."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)
