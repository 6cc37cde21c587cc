"""Image encoders of Hugging Face's transformers, from folders in its layout.

B batch, C channels, H height, W width, L tokens, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regraft.errors import SourceError
from regraft.source.files import read_json
from regraft.source.source import LoadReport, Source
from regraft.source.transformers.hub import config_of, fresh, kinds, model_types, plain_fields, with_classifier
from regraft.source.transformers.saved import Saved, mixed_in
from regraft.spec import InputSpec, Interpolation

_RESAMPLE: dict[int, Interpolation] = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_LARGEST = 1 << 21  # pixels on a side
_OF_A_PAIR = "_vision_model"  # how transformers calls what sees, of a pair that matches pictures with texts


def open_image(saved: Saved) -> Source:
    """An image encoder of transformers as a source.

    Args:
        saved: what describes the input is its `preprocessor_config.json`.

    Raises:
        SourceError: a kind of network that is not read, or weights that do not fit.
    """
    kind, arch_args = image_class(saved.fields, str(saved.folder)), {"config": saved.fields}
    spec = saved.request.input_or(input_of(saved.folder, saved.fields))
    if saved.weights is None:
        return saved.source(kind, arch_args, saved.built(kind, arch_args), spec, None)
    model, pooler, report = _filled(saved, kind)
    return saved.source(kind, arch_args if pooler else arch_args | {"pooler": False}, model, spec, report)


def build_image(kind: type[nn.Module], fields: dict[str, Any], arch_args: dict[str, Any]) -> nn.Module:
    """An image encoder with fresh weights; without its pooling layer where `arch_args` says so."""
    settings = {} if arch_args.get("pooler", True) else {"add_pooling_layer": False}
    return mixed_in(ImageEncoder, fresh(kind, fields, **settings))


def seeing(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The config of the network that sees, where a config describes a pair that matches pictures with texts (CLIP).

    Args:
        fields: of the config; any other comes back as it is.
        where: named in messages.
    """
    pair = fields["model_type"] in model_types("ZERO_SHOT_IMAGE_CLASSIFICATION") and "vision_config" in fields
    if not pair or with_classifier("IMAGE", fields, where):
        return dict(fields)
    return plain_fields(config_of(fields, where).vision_config.to_dict(), where)


def image_class(fields: Mapping[str, Any], where: str) -> type[nn.Module]:
    """The class that a config describes: with its classifier if that is what was saved.

    Raises:
        SourceError: it describes no image encoder.
    """
    if kind := with_classifier("IMAGE", fields, where):
        return kind
    bare, name = kinds("MODEL_MAPPING", fields, where), fields["model_type"]
    if not bare or not (name in model_types("IMAGE") or name.endswith(_OF_A_PAIR)):
        raise SourceError(
            f"{where} is a network of the kind {name!r}, expected an image encoder of transformers "
            "(vit, convnext, dinov2, clip, swin, resnet and others) or a text encoder (bert, roberta, gpt2 and "
            "others), for example load_source('hf:facebook/dinov2-base')"
        )
    return bare[0]


class ImageEncoder(nn.Module):
    """Mixed into a class of transformers: pixels in, one tensor out; all names stay transformers' own."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to logits (B, K), or to features (B, D)."""
        found = super().forward(pixel_values=pixels)  # type: ignore[misc]
        if getattr(found, "logits", None) is not None:
            return found.logits
        if getattr(found, "pooler_output", None) is not None:
            return found.pooler_output.flatten(1)
        return _pooled(found.last_hidden_state)


def _pooled(hidden: torch.Tensor) -> torch.Tensor:
    """The mean over places: (B, L, D) or (B, D, H, W) to (B, D)."""
    return hidden.mean(1) if hidden.dim() == 3 else hidden.mean((2, 3))


def _filled(saved: Saved, kind: type[nn.Module]) -> tuple[nn.Module, bool, LoadReport]:
    """The network with its weights; whether it has a pooler; and what became of every tensor."""
    tensors = saved.tensors(kind)
    model, report = saved.loaded(kind, tensors)
    # Self-supervised encoders are saved without the layer that pools their class token; a random one is of no use.
    pooler = not any(name.startswith("pooler.") for name in report.missing)
    if not pooler:
        model, report = saved.loaded(kind, tensors, add_pooling_layer=False)
    saved.check_fit(kind, report)
    return mixed_in(ImageEncoder, model), pooler, report


def input_of(folder: Path, fields: Mapping[str, Any]) -> InputSpec | None:
    """The input that a folder's preprocessor describes; None where there is no preprocessor.

    Raises:
        SourceError: it describes none that makes sense.
    """
    settings = _preprocessor(folder)
    if settings is None:
        return None
    try:
        return _input(settings, int(fields.get("num_channels") or 3))
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise SourceError(
            f"{folder / 'preprocessor_config.json'} lacks something or has a wrong value: {error!r}. Copy it again, or "
            "say the input yourself: load_source(uri, input=InputSpec(size=(3, 224, 224)))"
        ) from error


def _preprocessor(folder: Path) -> dict[str, Any] | None:
    if (folder / "preprocessor_config.json").is_file():
        return read_json(folder / "preprocessor_config.json")
    if (folder / "processor_config.json").is_file():
        inner = read_json(folder / "processor_config.json").get("image_processor")
        return inner if isinstance(inner, dict) else None
    return None


def _input(settings: Mapping[str, Any], channels: int) -> InputSpec:
    """As transformers' image processors read these fields."""
    (height, width), resized, squashed = _sizes(settings)
    if not all(1 <= side <= _LARGEST for side in (height, width, resized)):
        raise ValueError(f"sizes {height}, {width}, {resized}")
    mean, std = _scaling(settings, channels)
    return InputSpec(
        size=(channels, height, width),
        mean=mean,
        std=std,
        interpolation=_RESAMPLE.get(settings.get("resample", 2), "bicubic"),
        crop_pct=min(min(height, width) / resized, 1.0),
        crop_mode="squash" if squashed else "center",
        channel_order="BGR" if settings.get("do_flip_channel_order") else "RGB",
    )


def _sizes(settings: Mapping[str, Any]) -> tuple[tuple[int, int], int, bool]:
    """(height, width) of the network's input, the side resized to before cropping, whether the shape is squashed."""
    size, crop = _sides(settings["size"]), settings.get("crop_size")
    by_edge = isinstance(settings["size"], Mapping) and "shortest_edge" in settings["size"]
    if "crop_pct" in settings and by_edge:  # ConvNeXt's rule: from 384 on, the whole picture is squashed
        return (size, int(size[0] / settings["crop_pct"]), False) if size[0] < 384 else (size, size[0], True)
    if settings.get("do_center_crop") and crop:
        return _sides(crop), min(size), False
    return size, min(size), not by_edge


def _sides(size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping):
        edge = size.get("shortest_edge")
        return (int(edge), int(edge)) if edge else (int(size["height"]), int(size["width"]))
    height, width = size if isinstance(size, list) else (size, size)
    return int(height), int(width)


def _scaling(settings: Mapping[str, Any], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std for pixels of 0..1, where the settings speak of pixels times `rescale_factor`."""
    factor = 255 * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 255.0
    offset = 1.0 if settings.get("rescale_offset") else 0.0
    normal = settings.get("do_normalize", True)
    mean = _numbers(settings["image_mean"] if normal else 0.0, channels)
    std = _numbers(settings["image_std"] if normal else 1.0, channels)
    if not all(deviation > 0 for deviation in std):
        raise ValueError(f"image_std {std}")
    return tuple(_rounded((m + offset) / factor) for m in mean), tuple(_rounded(s / factor) for s in std)


def _numbers(values: Any, channels: int) -> tuple[float, ...]:
    numbers = tuple(map(float, values)) if isinstance(values, list) else (float(values),) * channels
    if len(numbers) != channels:
        raise ValueError(f"{len(numbers)} numbers for {channels} channels")
    return numbers


def _rounded(value: float) -> float:
    """Without the last digits, which multiplying by 255 and by its inverse leaves behind."""
    return round(value, 9)
