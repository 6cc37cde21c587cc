"""`timm:NAME`: networks of PyTorch Image Models, weights from the Hugging Face hub.

Wightman: PyTorch Image Models, 2019, https://github.com/huggingface/pytorch-image-models
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import nn

from regraft.digest import digest_state
from regraft.errors import MissingExtra, SourceError, closest, first_line
from regraft.offline import is_offline
from regraft.source.arch import ARCHITECTURES, build
from regraft.source.request import Request
from regraft.source.source import Source, make_source
from regraft.source.transformers.hub import kept_file
from regraft.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec

_INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise MissingExtra("timm", "timm", "open networks of timm") from error
    return timm


def timm_names() -> list[str]:
    """Names to suggest; none where timm is not installed."""
    try:
        return _timm().list_models()
    except MissingExtra:
        return []


def build_timm(name: str, arch_args: dict[str, Any]) -> tuple[nn.Module, InputSpec]:
    """An architecture of timm with fresh weights; never touches the network."""
    model = _create(name, arch_args, pretrained=False)
    return model, input_of(model.pretrained_cfg, arch_args)


ARCHITECTURES.add("timm", build_timm)


def open_timm(name: str, request: Request) -> Source:
    """`timm:NAME` as a source.

    Raises:
        SourceError: no such network, one without pretrained weights, or the download failed.
        MissingExtra: timm is not installed.
    """
    request.without_arch()
    arch = f"timm:{name}"
    if request.random_weights:
        model, spec = build(arch, seed=request.seed)
        return make_source(request.uri, arch, {}, model, request.input_or(spec))
    model = _pretrained(name)
    card = model.pretrained_cfg
    return make_source(
        request.uri,
        arch,
        {},
        model,
        request.input_or(input_of(card)),
        classes=label_names(card.get("label_names")),
        licence=card.get("license") or "",
        origin=card.get("hf_hub_id") or card.get("url") or "",
    )


def _pretrained(name: str) -> Any:
    _check_has_weights(name)
    try:
        return _create(name, _kept(name) if is_offline() else {}, pretrained=True)
    except (MissingExtra, SourceError):
        raise
    except Exception as error:  # hub, HTTP and file-system errors of several libraries
        raise _unreachable(name, first_line(error)) from error


def _kept(name: str) -> dict[str, Any]:
    """What makes timm read the file that an earlier download left, and ask nobody.

    Raises:
        SourceError: there is none.
    """
    card = _timm().models.get_pretrained_cfg(name)
    if card.hf_hub_id:
        weights = card.hf_hub_filename or "pytorch_model.bin"
        safe = weights.replace("pytorch_model.bin", "model.safetensors")  # which timm prefers too
        path = kept_file(card.hf_hub_id, (safe, weights))
    else:
        path = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(card.url).path).name)
    if path is None or not path.is_file():
        raise _unreachable(name, "they are not on this machine, and REGRAFT_OFFLINE forbids the network")
    return {"pretrained_cfg_overlay": {"file": str(path)}}


def _unreachable(name: str, why: str) -> SourceError:
    return SourceError(
        f"the weights of timm:{name} could not be fetched ({why}). They are downloaded "
        "once from the Hugging Face hub into its cache ($HF_HOME, else ~/.cache/huggingface); "
        "REGRAFT_OFFLINE=1 and HF_HUB_OFFLINE=1 forbid the download. Without a network, copy a folder with "
        "config.json and model.safetensors from a machine that has one (timm.models.save_for_hf writes it) and pass "
        f"the folder: load_source('path/to/{name}')"
    )


def _check_has_weights(name: str) -> None:
    timm = _timm()
    _check_name(name)
    if not timm.is_model_pretrained(name):
        tagged = [option for option in timm.list_models(pretrained=True) if option.split(".")[0] == name]
        others = tagged or timm.list_models(pretrained=True)
        raise SourceError(
            f"timm has no pretrained weights for {name!r}.{closest(name, others)} "
            f"For the bare architecture: load_source('timm:{name}', random_weights=True)"
        )


def _check_name(name: str) -> None:
    timm = _timm()
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise SourceError(
            f"timm has no network {base!r}.{closest(base, timm.list_models())} "
            "All names: python -c 'import timm; print(timm.list_models())'"
        )
    tags = [option.partition(".")[2] for option in timm.list_pretrained(base)] if tag else []
    if tag and tag not in tags:
        raise SourceError(
            f"timm has no weights {tag!r} for {base}.{closest(tag, tags)} It has: "
            f"{', '.join(f'timm:{base}.{option}' for option in tags) or 'none'}"
        )


def _create(name: str, arch_args: Mapping[str, Any], *, pretrained: bool) -> Any:
    timm = _timm()
    _check_name(name)
    try:
        return timm.create_model(name, pretrained=pretrained, **arch_args)
    except (TypeError, AssertionError) as error:
        raise SourceError(
            f"timm:{name} cannot be built with {dict(arch_args)}: {first_line(error)}. "
            f"Without arguments it can: build('timm:{name}')"
        ) from error


def at_its_size(source: Source) -> Source:
    """A network of timm that sees one size of pictures alone, made to see its input's; any other source as it is.

    Position embeddings are resampled as timm does it.
    """
    if not source.arch.startswith("timm:") or not hasattr(source.model, "set_input_size"):
        return source
    sides = source.input.size[1:]
    model: Any = source.model
    if sides == input_of(model.pretrained_cfg, source.arch_args).size[1:]:
        return source
    model.set_input_size(img_size=sides)
    arch_args = source.arch_args | {"img_size": list(sides)}
    return replace(source, arch_args=arch_args, weights_digest=digest_state(model.state_dict()))


def label_names(labels: Any) -> tuple[str, ...]:
    """Class names in the order of the outputs; none where a card names only some of them.

    Example:
        >>> label_names({"1": "dog", "0": "cat"}), label_names({"7": "cat"}), label_names(None)
        (('cat', 'dog'), (), ())
    """
    if not isinstance(labels, Mapping):
        return tuple(labels or ())
    by_index = {int(index): str(name) for index, name in labels.items()}
    return tuple(by_index[i] for i in range(len(by_index))) if max(by_index) < len(by_index) else ()


def input_of(card: Mapping[str, Any], arch_args: Mapping[str, Any] | None = None) -> InputSpec:
    """The input that a pretrained card of timm describes.

    Args:
        card: timm's `pretrained_cfg`.
        arch_args: what the network was built with; its `in_chans` and `img_size` go before the card's.

    Example:
        >>> input_of({"input_size": [3, 160, 160], "crop_pct": 0.9, "interpolation": "bilinear"}).size
        (3, 160, 160)
    """
    size = _input_size(card, arch_args or {})
    interpolation = card.get("interpolation")
    crop_mode = card.get("crop_mode")
    return InputSpec(
        size=size,
        mean=_channels(card.get("mean") or IMAGENET_MEAN, size[0]),
        std=_channels(card.get("std") or IMAGENET_STD, size[0]),
        # timm's "random" and "lanczos" have no twin here; bicubic is timm's own default.
        interpolation=interpolation if interpolation in _INTERPOLATIONS else "bicubic",
        crop_pct=min(float(card.get("crop_pct") or 1.0), 1.0),  # a few cards pad instead of cropping
        # "border" pads the short side where "center" would cut the long one; six cards of timm use it.
        crop_mode="squash" if crop_mode == "squash" else "center",
    )


def _input_size(card: Mapping[str, Any], arch_args: Mapping[str, Any]) -> tuple[int, int, int]:
    channels, height, width = card.get("input_size") or (3, 224, 224)
    side = arch_args.get("img_size") or (height, width)
    height, width = (side, side) if isinstance(side, int) else side
    return arch_args.get("in_chans") or channels, height, width


def _channels(values: Any, channels: int) -> tuple[float, ...]:
    """One number per channel; a card for grey pictures may still give three."""
    values = tuple(float(value) for value in values)
    return values if len(values) == channels else (sum(values) / len(values),) * channels
