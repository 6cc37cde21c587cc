"""`torchvision:NAME`: image classifiers of torchvision, weights from PyTorch's own server.

TorchVision maintainers and contributors: TorchVision, 2016, https://github.com/pytorch/vision
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import nn

from regraft.errors import MissingExtra, SourceError, closest
from regraft.source.arch import ARCHITECTURES, build
from regraft.source.checkpoint import fill
from regraft.source.download import fetch
from regraft.source.request import Request
from regraft.source.source import Source, make_source
from regraft.spec import InputSpec, Interpolation

_INTERPOLATIONS: dict[str, Interpolation] = {"nearest": "nearest", "bilinear": "bilinear", "bicubic": "bicubic"}
# Side branches that only training reads; without init_weights, torchvision warns at every call.
_ALWAYS = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}
# Both were trained elsewhere on pixels from -1 to 1, and translate from ImageNet's mean and std by themselves.
_TRANSLATES = tuple(_ALWAYS)


def _models() -> ModuleType:
    try:
        import torchvision.models
    except ImportError as error:
        raise MissingExtra("torchvision", "torchvision", "open networks of torchvision") from error
    return torchvision.models


def torchvision_names() -> list[str]:
    """Image classifiers to suggest; none where torchvision is not installed."""
    try:
        models = _models()
    except MissingExtra:
        return []
    return models.list_models(module=models)


def build_torchvision(name: str, arch_args: dict[str, Any]) -> tuple[nn.Module, InputSpec]:
    """An architecture of torchvision with fresh weights; never touches the network."""
    base, weights = _find(name)
    shaped = _ALWAYS.get(base, {}) | arch_args
    try:
        model = _models().get_model(base, weights=None, **shaped)
    except (TypeError, ValueError, AssertionError, NotImplementedError) as error:
        raise SourceError(
            f"torchvision:{name} cannot be built with {arch_args}: {error}. "
            f"Without arguments it can: build('torchvision:{name}')"
        ) from error
    return model, input_of(weights, arch_args)


ARCHITECTURES.add("torchvision", build_torchvision)


def open_torchvision(name: str, request: Request) -> Source:
    """`torchvision:NAME`, or `torchvision:NAME.WEIGHTS` where there are several, as a source.

    Raises:
        SourceError: no such network or weights, or the download failed.
        MissingExtra: torchvision is not installed.
    """
    request.without_arch()
    base, weights = _find(name)
    arch, arch_args = f"torchvision:{base}", _shape_of(base, weights)
    model, _ = build(arch, arch_args, seed=request.seed)
    spec = request.input_or(input_of(weights))
    if request.random_weights:
        return make_source(request.uri, arch, arch_args, model, spec)
    report = fill(model, fetch(weights.url))
    return make_source(
        request.uri,
        arch,
        arch_args,
        model,
        spec,
        classes=tuple(weights.meta.get("categories") or ()),
        licence=weights.meta.get("license") or "",
        origin=weights.url,
        report=report,
    )


def _find(name: str) -> tuple[str, Any]:
    """The architecture's name and torchvision's entry for its weights, the recommended ones by default."""
    base, _, tag = name.partition(".")
    models = _models()
    names = models.list_models(module=models)
    if base not in names:
        raise SourceError(
            f"torchvision has no image classifier {base!r}.{closest(base, names)} "
            "All names: python -c 'import torchvision.models as m; print(m.list_models(module=m))'"
        )
    weights = models.get_model_weights(base)
    tags = list(weights.__members__)
    if tag and tag not in tags:
        raise SourceError(
            f"torchvision has no weights {tag!r} for {base}.{closest(tag, tags)} It has: "
            f"{', '.join(f'torchvision:{base}.{option}' for option in tags)}"
        )
    return base, weights[tag or "DEFAULT"]


def _shape_of(base: str, weights: Any) -> dict[str, Any]:
    """The arguments with which torchvision builds the network that these weights fit."""
    if base in _TRANSLATES:
        return {"transform_input": True}
    side = weights.meta["min_size"][0]
    return {"image_size": side} if base.startswith("vit_") and side != 224 else {}


def input_of(weights: Any, arch_args: Mapping[str, Any] | None = None) -> InputSpec:
    """The input that torchvision's entry for some weights describes.

    Args:
        weights: a member of a `WeightsEnum`.
        arch_args: what the network was built with; its `image_size` goes before the entry's.
    """
    preset = weights.transforms()
    resized, side = preset.resize_size[0], preset.crop_size[0]
    wanted = (arch_args or {}).get("image_size") or side
    return InputSpec(
        size=(3, wanted, wanted),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=_INTERPOLATIONS[preset.interpolation.value],
        crop_pct=min(side / resized, 1.0),
    )
