"""What the values of a recipe must be, one by one and together."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from regraft.head import KINDS, NEED_PLACES, parse_layers

if TYPE_CHECKING:
    from regraft.tune.recipe import Recipe

MOST_VIEWS = 64  # of one picture

Rule = tuple[str, Callable[[Any], bool]]
"""What a value must be, in words, and the test of it."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_pattern(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        return re.compile(value) is not None
    except re.error:
        return False


def _are_rates(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_is_pattern(k) and _is_number(v) and v >= 0 for k, v in value.items())


def _are_blocks(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(k, str) and isinstance(v, str) and re.fullmatch(r"drop|(linear|conv):[1-9]\d{0,4}", v)
        for k, v in value.items()
    )


_TEXT: Rule = ("a string", lambda v: isinstance(v, str))
_SWITCH: Rule = ("true or false", lambda v: isinstance(v, bool))
_PATTERN: Rule = ("a regular expression over names of tensors, such as 'layer[34]|head'", _is_pattern)
_COUNT: Rule = ("a whole number, 0 or more", lambda v: _is_count(v) and v >= 0)
_VIEWS: Rule = (f"a whole number from 0 to {MOST_VIEWS}", lambda v: _is_count(v) and 0 <= v <= MOST_VIEWS)
_AMOUNT: Rule = ("a number, 0 or more", lambda v: _is_number(v) and v >= 0)
_SHARE: Rule = ("a share in [0, 1)", lambda v: _is_number(v) and 0 <= v < 1)

RULES: dict[str, Rule] = {
    "name": ("a string with something in it", lambda v: _TEXT[1](v) and bool(v.strip())),
    "restore": _PATTERN,
    "drop_above": ("the name of a cut", _TEXT[1]),
    "replace": ("a table of blocks and what replaces them, such as { layer4 = 'linear:64' }", _are_blocks),
    "keep_source_head": _SWITCH,
    "head_layers": (f"one of {', '.join(KINDS)}, such as 'mlp:256'", lambda v: parse_layers(v) is not None),
    "cut": ("the name of a cut", _TEXT[1]),
    "unfreeze": (f"{_COUNT[0]}, or 'auto'", lambda v: v == "auto" or _COUNT[1](v)),
    "taps": ("a string such as 'auto' or 'layer2.2@4'", _TEXT[1]),
    "train": _PATTERN,
    "freeze": _PATTERN,
    "lora": _COUNT,
    "lora_alpha": ("a number above 0", lambda v: _is_number(v) and v > 0),
    "lora_targets": ("a regular expression over paths of linear layers, such as 'qkv|fc1'", _is_pattern),
    "dropout": _SWITCH,
    "epochs": _COUNT,
    "min_updates": _COUNT,
    "batch_size": ("a whole number, 1 or more", lambda v: _is_count(v) and v >= 1),
    "lr": _AMOUNT,
    "head_lr": _AMOUNT,
    "rates": ("a table of patterns and rates, such as { 'layer4' = 1e-4, 'head' = 1e-3 }", _are_rates),
    "layer_decay": ("a number above 0, at most 1", lambda v: _is_number(v) and 0 < v <= 1),
    "weight_decay": _AMOUNT,
    "l2_sp": _AMOUNT,
    "momentum": _SHARE,
    "warmup": _SHARE,
    "label_smoothing": _SHARE,
    "mixup": _AMOUNT,
    "noise": _AMOUNT,
    "contrastive": _SHARE,
    "views": _VIEWS,
    "average_views": (f"{_VIEWS[0]}, or 'auto'", lambda v: v == "auto" or _VIEWS[1](v)),
    "patience": _COUNT,
    "clip": _AMOUNT,
    "clip_value": _AMOUNT,
    "interpolate": ("a share in [0, 1] or 'auto'", lambda v: v == "auto" or (_is_number(v) and 0 <= v <= 1)),
}


def wrong_values(recipe: Recipe) -> Iterator[str]:
    """Everything that is wrong with a recipe, in words; nothing if it can be used."""
    wrong = [*_not_among_choices(recipe), *_against_rules(recipe)]
    yield from wrong or _contradictions(recipe)


def _not_among_choices(recipe: Recipe) -> Iterator[str]:
    for name, hint in get_type_hints(type(recipe)).items():
        value = getattr(recipe, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            yield f"{name} = {value!r} is none of {', '.join(get_args(hint))}"


def _against_rules(recipe: Recipe) -> Iterator[str]:
    for name, (wanted, holds) in RULES.items():
        if not holds(getattr(recipe, name)):
            yield f"{name} = {getattr(recipe, name)!r} is not {wanted}"


def _contradictions(recipe: Recipe) -> Iterator[str]:
    if recipe.head == "probe" and recipe.head_layers != "linear":
        yield f"a probe is linear, so head_layers = {recipe.head_layers!r} needs head = 'fresh'"
    if recipe.head == "fresh" and not recipe.epochs:
        yield "epochs = 0 trains nothing, and a fresh head knows nothing: head must be 'probe', or epochs above 0"
    if recipe.head == "probe" and recipe.replace:
        yield "replace changes what a probe's head was fitted on, so head must be 'fresh'"
    if recipe.weights == "random" and (recipe.restore or recipe.l2_sp or recipe.interpolate):
        yield "restore, l2_sp and interpolate need the source's values, so weights must be 'pretrained'"
    if recipe.unfreeze and (recipe.train or recipe.freeze or not recipe.epochs):
        yield "unfreeze goes down stage by stage, so train and freeze must be empty and epochs above 0"
    if recipe.unfreeze and recipe.augment != "none":
        yield "augment changes pictures and unfreeze trains from what is cached of them, so unfreeze must be 0"
    if recipe.lora and (recipe.train or recipe.freeze or recipe.unfreeze):
        yield "lora trains the adapters and the head, so train and freeze must be empty and unfreeze 0"
    if recipe.lora_targets and not recipe.lora:
        yield "lora_targets says which layers are adapted, so lora must be their rank, such as 8"
    if recipe.average_views == "auto" and recipe.views < 2:
        yield "average_views = 'auto' averages over the recipe's views, so views must be 2 or more"
    if recipe.drop_above and recipe.keep_source_head:
        yield "keep_source_head needs the layers that drop_above drops"
    if recipe.replace and recipe.keep_source_head:
        yield "keep_source_head needs the layers that replace takes out"
    if recipe.contrastive and (recipe.mixup or recipe.head_layers.partition(":")[0] in NEED_PLACES):
        yield "contrastive compares one row of features for each example of one class: no mixup, no head on places"
    if recipe.drop_above and recipe.taps != "auto":
        yield "drop_above says where the head reads, so taps must be 'auto'"
