"""Recipe: what to train and how, in words that fit any network; small, frozen, a TOML file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from regraft.errors import RecipeError, closest
from regraft.registry import Registry

CHOICES: dict[str, tuple[str, ...]] = {
    "weights": ("pretrained", "random"),
    "head": ("probe", "fresh"),
    "optimizer": ("adamw", "sgd"),
    "schedule": ("cosine", "onecycle", "constant"),
    "batch_norm": ("frozen", "train"),
    "augment": ("none", "flip-crop"),
    "precision": ("float32", "bfloat16"),
    "keep": ("best", "last"),
}


@dataclass(frozen=True)
class Recipe:
    """What is kept, what is trained, and how fast; resolved against one source by `resolve`.

    Args:
        name: for people and reports.
        weights: start from the source's weights, or from fresh ones of the same architecture.
        head: start from the probe's solution (LP-FT: Kumar and others, 2022, arXiv:2202.10054), or from zero.
        cut: train what lies above this cut; "auto" chooses by the number of examples, "input" is everything,
            "output" nothing but the head.
        taps: the activations that the head reads: "auto" (what the probe chose), "feature" (the classifier's
            own input), or cuts with a pooling grid such as "layer2.2@4", joined by "+".
        epochs: passes over the training rows; 0 leaves the start as it is.
        min_updates: epochs are added until there are this many optimizer steps; few examples need it.
        batch_size: examples per step.
        lr: rate of the topmost trained stage of the body.
        head_lr: rate of the head; of one that starts at the probe's solution and is wider than 128 features,
            128 / width of it.
        layer_decay: factor on the rate for each stage further down
            (Howard and Ruder, 2018, arXiv:1801.06146).
        weight_decay: on matrices and filters only; norms and biases have none.
        optimizer: "adamw" (Loshchilov and Hutter, 2019, arXiv:1711.05101), or "sgd" with Nesterov
            momentum 0.9.
        schedule: "cosine" to zero, "onecycle" (Smith and Topin, 2018, arXiv:1708.07120), or "constant".
        warmup: share of the steps in which the rate rises, in [0, 1).
        batch_norm: "frozen" keeps the stored statistics; "train" uses and updates the batch's.
        dropout: whether the source's own dropout is on.
        label_smoothing: in [0, 1).
        augment: of pixel rows; "flip-crop" is a random flip and a random crop after padding by an eighth.
        patience: stop after this many evaluations without a better one; 0 never stops.
        clip: largest norm of the gradient; 0 does not clip.
        precision: of the forward pass; "bfloat16" is faster where the processor has instructions for it.
        keep: the weights of the best epoch on validation (epoch 0 counts), or of the last one.

    Raises:
        RecipeError: some values are impossible; all of them are named at once.

    Example:
        >>> Recipe("mine", lr=1e-4).batch_norm
        'frozen'
    """

    name: str
    weights: Literal["pretrained", "random"] = "pretrained"
    head: Literal["probe", "fresh"] = "probe"
    cut: str = "auto"
    taps: str = "auto"
    epochs: int = 20
    min_updates: int = 0
    batch_size: int = 32
    lr: float = 3e-4
    head_lr: float = 1e-3
    layer_decay: float = 0.75
    weight_decay: float = 0.05
    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["cosine", "onecycle", "constant"] = "cosine"
    warmup: float = 0.1
    batch_norm: Literal["frozen", "train"] = "frozen"
    dropout: bool = False
    label_smoothing: float = 0.0
    augment: Literal["none", "flip-crop"] = "none"
    patience: int = 0
    clip: float = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        problems = list(_wrong_values(self))
        if problems:
            raise RecipeError(
                f"recipe {self.name!r} cannot be used: " + "; ".join(problems) + ". "
                "Change them, or start from a named one: RECIPES['finetune']."
            )

    def with_(self, **changes: Any) -> Recipe:
        """The same recipe with some values changed; a misspelt name is an error with its nearest match."""
        _refuse_unknown(changes)
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """The inverse of `to_dict`; what is left out keeps its default."""
        _refuse_unknown(values)
        return cls(**{"name": "unnamed", **values})

    def to_toml(self) -> str:
        """The recipe as a TOML file.

        Example:
            >>> Recipe.from_toml(Recipe("mine").to_toml()) == Recipe("mine")
            True
        """
        # A string, number or boolean reads the same in TOML as in JSON.
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in self.to_dict().items())

    @classmethod
    def from_toml(cls, text: str) -> Recipe:
        """A recipe from the text of a TOML file.

        Raises:
            RecipeError: the text is no TOML, or names or values are wrong.
        """
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(f"this recipe is not TOML: {error}. A line looks like: lr = 0.0003") from error
        return cls.from_dict(values)

    @classmethod
    def from_file(cls, path: str | Path) -> Recipe:
        """A recipe from a TOML file; without a name of its own it is called after the file."""
        path = Path(path)
        if not path.is_file():
            raise RecipeError(f"no recipe file {path}. Known recipes: {', '.join(RECIPES)}.")
        recipe = cls.from_toml(path.read_text(encoding="utf-8"))
        return recipe if recipe.name != "unnamed" else replace(recipe, name=path.stem)


def _refuse_unknown(values: dict[str, Any]) -> None:
    known = [field.name for field in fields(Recipe)]
    wrong = [name for name in values if name not in known]
    if wrong:
        told = " ".join(f"{name!r} is no part of a recipe.{closest(name, known)}" for name in wrong)
        raise RecipeError(f"{told} Known: {', '.join(known)}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# what a value must be, in words, and the test of it
_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": ("a string", lambda v: isinstance(v, str)),
    "cut": ("the name of a cut", lambda v: isinstance(v, str)),
    "taps": ("a string such as 'auto' or 'layer2.2@4'", lambda v: isinstance(v, str)),
    "dropout": ("true or false", lambda v: isinstance(v, bool)),
    "epochs": ("a whole number, 0 or more", lambda v: _is_count(v) and v >= 0),
    "min_updates": ("a whole number, 0 or more", lambda v: _is_count(v) and v >= 0),
    "batch_size": ("a whole number, 1 or more", lambda v: _is_count(v) and v >= 1),
    "patience": ("a whole number, 0 or more", lambda v: _is_count(v) and v >= 0),
    "lr": ("a number, 0 or more", lambda v: _is_number(v) and v >= 0),
    "head_lr": ("a number, 0 or more", lambda v: _is_number(v) and v >= 0),
    "layer_decay": ("a number above 0, at most 1", lambda v: _is_number(v) and 0 < v <= 1),
    "weight_decay": ("a number, 0 or more", lambda v: _is_number(v) and v >= 0),
    "warmup": ("a share in [0, 1)", lambda v: _is_number(v) and 0 <= v < 1),
    "label_smoothing": ("a share in [0, 1)", lambda v: _is_number(v) and 0 <= v < 1),
    "clip": ("a number, 0 or more", lambda v: _is_number(v) and v >= 0),
}


def _wrong_values(recipe: Recipe):
    for name, options in CHOICES.items():
        value = getattr(recipe, name)
        if value not in options:
            yield f"{name} = {value!r} is none of {', '.join(options)}.{closest(str(value), options)}"
    for name, (wanted, holds) in _RULES.items():
        if not holds(getattr(recipe, name)):
            yield f"{name} = {getattr(recipe, name)!r} is not {wanted}"


RECIPES: Registry[Recipe] = Registry("recipe", RecipeError)

# The head alone, in closed form: nothing is trained by gradient.
RECIPES.add("probe", Recipe("probe", cut="output", epochs=0))

# For 50 to 2,000 examples. The head starts at the probe's solution and low stages hardly move, because
# large early steps distort features that few examples cannot rebuild; 200 updates because an epoch of
# 50 examples is two.
RECIPES.add("finetune", Recipe("finetune", min_updates=200, patience=5))

# The control: every layer from fresh weights, with rates that suit them. Measured on the digits at 5 per class with
# ResNet-20: this reaches 85 %, AdamW at 2e-3 for 400 updates 73 %; a weak control would flatter transfer.
RECIPES.add(
    "scratch",
    Recipe(
        "scratch",
        weights="random",
        head="fresh",
        cut="input",
        taps="feature",
        epochs=40,
        min_updates=800,
        batch_size=16,
        optimizer="sgd",
        lr=0.05,
        head_lr=0.05,
        layer_decay=1.0,
        weight_decay=5e-4,
        batch_norm="train",
        dropout=True,
    ),
)

# What tutorials do: a fresh head on the last layer, the whole network, Adam at 1e-3 throughout.
RECIPES.add(
    "naive",
    Recipe(
        "naive",
        head="fresh",
        cut="input",
        taps="feature",
        epochs=25,
        min_updates=200,
        lr=1e-3,
        head_lr=1e-3,
        layer_decay=1.0,
        weight_decay=0.0,
        schedule="constant",
        warmup=0.0,
        batch_norm="train",
        dropout=True,
        clip=0.0,
        keep="last",
    ),
)
