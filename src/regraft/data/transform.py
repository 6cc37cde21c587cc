"""From an opened picture of any kind to the uint8 array that a network's InputSpec asks for.

Shape letters: C channels, H height, W width.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from regraft.data.from_spec import FromSpec
from regraft.spec import InputSpec

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
_ROTATED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_ORIENTATION = 0x0112
_CROP_AREA = (0.5, 1.0)  # of the picture; milder than ImageNet's 0.08: small sets show the whole object
_CROP_ASPECT = (3 / 4, 4 / 3)
_COLOUR = (0.8, 1.25)  # factor on brightness, contrast and saturation; grey pictures have no saturation

Box = tuple[float, float, float, float]  # left, top, right, bottom, as fractions of the upright picture


@dataclass(frozen=True)
class Transform(FromSpec[InputSpec]):
    """Resizes, crops and converts as the source was trained; the same picture always gives the same array.

    Pictures are turned upright by their EXIF tag, transparency is laid on white, 16 bits become 8, and colour
    follows the number of channels. View 0 is plain; each view k > 0 is one random crop, flip and small change of
    colour, fixed by the example's key and k (random-resized crop: Szegedy et al., 2014, arXiv:1409.4842, with a milder
    range).

    Args:
        spec: what the network expects.
        view: 0 plain, k > 0 the k-th augmented version.

    Example:
        >>> from PIL import Image
        >>> from regraft.spec import InputSpec
        >>> photo = Image.new("CMYK", (640, 480))
        >>> Transform(InputSpec(size=(3, 224, 224), crop_pct=0.875))(photo).shape
        (3, 224, 224)
    """

    name = "transform"
    views_version = 2

    @property
    def dtype(self) -> np.dtype:
        """Of a row."""
        return np.dtype(np.uint8)

    def __call__(self, image: Image.Image, key: str = "") -> np.ndarray:
        """The picture as uint8 (C, H, W), before mean and std.

        Args:
            image: opened, decoded or not.
            key: the example's content key; views above 0 depend on it.
        """
        chosen = random.Random(f"{key}:{self.view}") if self.view else None
        width, height = _upright_size(image)
        box = _random_box(chosen, width, height) if chosen else None
        size = _covering(box, self.spec) if box else _resized(width, height, self.spec)
        _draft(image, size)
        picture = plain(_upright(image), grey=self.spec.size[0] == 1)
        picture = self._cut_out(picture, box) if box else self._resize_and_crop(picture, size)
        if chosen:
            picture = _recoloured(ImageOps.mirror(picture) if chosen.random() < 0.5 else picture, chosen)
        values = _array(picture, self.spec.size[0])
        return values[::-1].copy() if self.spec.channel_order == "BGR" else values

    def _resize_and_crop(self, picture: Image.Image, size: tuple[int, int]) -> Image.Image:
        _, height, width = self.spec.size
        if picture.size != size:
            picture = picture.resize(size, _RESAMPLING[self.spec.interpolation])
        # The rounding of torchvision's CenterCrop, so that pixels agree with those the source was tested on.
        left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
        return picture.crop((left, top, left + width, top + height)) if size != (width, height) else picture

    def _cut_out(self, picture: Image.Image, box: Box) -> Image.Image:
        _, height, width = self.spec.size
        (w, h), (left, top, right, bottom) = picture.size, box
        pixels = (left * w, top * h, right * w, bottom * h)
        return picture.resize((width, height), _RESAMPLING[self.spec.interpolation], box=pixels)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if image.getexif().get(_ORIENTATION) in _ROTATED else (width, height)


def _upright(image: Image.Image) -> Image.Image:
    # exif_transpose copies even what is upright already.
    return image if image.getexif().get(_ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)


def _resized(width: int, height: int, spec: InputSpec) -> tuple[int, int]:
    """Width and height to resize the whole picture to, before the centre crop."""
    # Rounding as in timm: down, but the longer side to the nearest where the wanted picture is not square.
    high, wide = (math.floor(side / spec.crop_pct) for side in spec.size[1:])
    if spec.crop_mode == "squash":
        return wide, high
    fit = int if high == wide else round
    if width * high <= height * wide:
        return wide, fit(height * wide / width)
    return fit(width * high / height), high


def _random_box(chosen: random.Random, width: int, height: int) -> Box:
    """A part of the picture, in fractions of it."""
    area = chosen.uniform(*_CROP_AREA)
    aspect = math.exp(chosen.uniform(*map(math.log, _CROP_ASPECT))) * height / width
    w = min(1.0, math.sqrt(area * aspect))
    h = min(1.0, math.sqrt(area / aspect))
    left, top = chosen.uniform(0, 1 - w), chosen.uniform(0, 1 - h)
    return left, top, left + w, top + h


def _covering(box: Box, spec: InputSpec) -> tuple[int, int]:
    """Size of the whole picture at which the box has the wanted size."""
    _, height, width = spec.size
    return math.ceil(width / (box[2] - box[0])), math.ceil(height / (box[3] - box[1]))


def _recoloured(picture: Image.Image, chosen: random.Random) -> Image.Image:
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = change(picture).enhance(math.exp(chosen.uniform(*map(math.log, _COLOUR))))
    return picture


def _draft(image: Image.Image, size: tuple[int, int]) -> None:
    """Lets the JPEG decoder halve what stays at least twice as large as wanted: far less to decode."""
    side = 2 * max(size)  # the larger one for both: the picture may still be turned
    image.draft(None, (side, side))


def plain(image: Image.Image, *, grey: bool = False) -> Image.Image:
    """A picture of any mode as "L" if grey is wanted or all there is, else as "RGB"."""
    image = _eight_bits(image)
    if image.mode == "LAB":
        image = image.convert("RGB")  # Pillow makes nothing else of it
    if image.has_transparency_data:
        image = _on_white(image)
    mode = "L" if grey or image.mode in ("1", "L") else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode not in (*_GREY_16, "I", "F"):
        return image
    values = np.asarray(image).astype(np.float32)
    if image.mode in _GREY_16 or values.max() > 255:
        values = values / 257  # 65535 -> 255
    elif image.mode == "F" and values.max() <= 1:
        values = values * 255
    return Image.fromarray(np.rint(values.clip(0, 255)).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    flat = Image.alpha_composite(white, layer)
    return flat.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")


def _array(picture: Image.Image, channels: int) -> np.ndarray:
    """(C, H, W), writable."""
    values = np.asarray(picture)
    if values.ndim == 2:
        return np.repeat(values[None], channels, axis=0)
    return np.array(values.transpose(2, 0, 1), order="C")
