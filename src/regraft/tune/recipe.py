"""Recipe: what to train and how, in words that fit any network; small, frozen, a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

from regraft.errors import RecipeError, closest
from regraft.run import toml_value
from regraft.tune.rules import wrong_values


@dataclass(frozen=True)
class Recipe:
    """What is kept, what is trained, and how fast; resolved against one source by `resolve`.

    Patterns are regular expressions, looked for anywhere in a tensor's name (`re.search`): "layer[34]", "^conv1",
    "head". The new head's tensors begin with "head.", those of the source have the source's own names.

    Args:
        name: for people and reports.
        weights: start from the source's weights, or from fresh ones of the same architecture.
        restore: a pattern; only what matches keeps the source's values, all else starts anew. "" keeps all.
        drop_above: the last cut that is kept; the layers above it are dropped and the head reads there.
        replace: blocks to make anew, by name: "linear:64" (at every place), "conv:64" (3 x 3), or "drop".
        keep_source_head: deliver the source's own head too, frozen (`Network.source_logits`).
        head: start from the probe's solution (LP-FT: Kumar and others, 2022, arXiv:2202.10054), or from zero.
        head_layers: "linear", "mlp:256", "conv:64", "lstm:128" or "attention"; all but the first start fresh.
        cut: train what lies above this cut; "auto" chooses, by `train`, `freeze` and `lora_targets` where they are
            given, else by the number of examples; "input" is everything, "output" nothing but the head.
        unfreeze: train in so many steps, each one stage with parameters further down than the last, or evenly down to
            `cut`; "auto" is five, or as many as there are; 0 trains all that lies above the cut from the beginning.
            The epochs are shared out among the steps.
        taps: the activations that the head reads: "auto" (what the probe chose), "feature" (the classifier's
            own input), or cuts with a pooling grid such as "layer2.2@4", joined by "+".
        train: a pattern; what matches is trained, all else is frozen. "" trains all above the cut.
        freeze: a pattern; what matches is frozen, whatever `train` says.
        lora: rank of the adapters on linear layers, which are trained in place of the body's own tensors, and merged
            into them at the end; 0 is none (Hu and others, 2021, arXiv:2106.09685).
        lora_alpha: what the adapters add counts lora_alpha / lora times.
        lora_targets: a pattern over the paths of linear layers, such as "qkv|fc1"; "" adapts all above the cut.
        epochs: passes over the training rows; 0 leaves the start as it is.
        min_updates: epochs are added until there are this many optimizer steps; few examples need it.
        batch_size: examples per step.
        lr: rate of the topmost trained stage of the body.
        head_lr: rate of the head; of one that starts at the probe's solution and is wider than 128 features,
            128 / width of it.
        rates: pattern to rate; the first that matches counts, what none matches follows `lr` and `head_lr`.
        layer_decay: factor on the rate for each stage further down
            (Howard and Ruder, 2018, arXiv:1801.06146).
        weight_decay: on matrices and filters only; norms and biases have none.
        l2_sp: pull of what keeps the source's values back to them, in place of weight decay
            (Li and others, 2018, arXiv:1802.01483).
        optimizer: "adamw" (Loshchilov and Hutter, 2019, arXiv:1711.05101), "adam" or "sgd".
        momentum: of "sgd", Nesterov's.
        schedule: "cosine" or "linear" to zero, "onecycle" (Smith and Topin, 2018, arXiv:1708.07120), or "constant".
        warmup: share of the steps in which the rate rises, in [0, 1).
        batch_norm: "frozen" keeps the stored statistics; "train" uses and updates the batch's where the layer
            trains; "reestimate" measures them once on the training rows, above the cut, and then keeps them.
        dropout: whether the source's own dropout is on, in blocks that train.
        label_smoothing: in [0, 1).
        mixup: rows and labels at the cut are mixed with weights from Beta(mixup, mixup); 0 mixes nothing
            (Zhang and others, 2018, arXiv:1710.09412; above an inner cut: Verma and others, 2019, arXiv:1806.05236).
        noise: on the rows at the cut, in standard deviations of each channel.
        contrastive: share of the loss that draws the features of one class together and those of others apart, in
            [0, 1); few texts gain by it (supervised contrastive learning: Gunel and others, 2021, arXiv:2011.01403).
        class_weights: "balanced" lets each class count alike, however many examples it has.
        augment: of pixel rows; "flip-crop" is a random flip and a random crop after padding by an eighth.
        views: so many versions of each training picture (plain, and cropped, flipped, recoloured) are cached at the
            cut, and one is drawn for each epoch; 0 and 1 use the plain picture alone.
        average_views: predictions are the mean over so many views; 0 and 1 look at the plain picture alone, "auto"
            takes `views` if that is better by more than a standard error on validation.
        patience: stop after this many evaluations without a better one; 0 never stops.
        clip: largest norm of the gradient; 0 does not clip.
        clip_value: largest magnitude of each of its numbers; 0 does not clip.
        precision: of the forward pass; "bfloat16" is faster where the processor has instructions for it.
        average: "ema" evaluates and keeps a moving average of the weights; "soup" averages the best epochs as long
            as validation does not fall (Wortsman and others, 2022, arXiv:2203.05482).
        interpolate: share of the way back from the trained weights to the start, in [0, 1]; "auto" takes the best
            of 0, 1/4, 1/2, 3/4 and 1 on validation (WiSE-FT: Wortsman and others, 2021, arXiv:2109.01903).
        keep: the weights of the best epoch on validation (epoch 0 counts), or of the last one.

    Raises:
        RecipeError: some values are impossible; all of them are named at once.

    Example:
        >>> Recipe("mine", lr=1e-4).batch_norm
        'frozen'
    """

    name: str
    weights: Literal["pretrained", "random"] = "pretrained"
    restore: str = ""
    drop_above: str = ""
    replace: Mapping[str, str] = field(default_factory=dict, hash=False)
    keep_source_head: bool = False
    head: Literal["probe", "fresh"] = "probe"
    head_layers: str = "linear"
    cut: str = "auto"
    unfreeze: int | Literal["auto"] = 0
    taps: str = "auto"
    train: str = ""
    freeze: str = ""
    lora: int = 0
    lora_alpha: float = 16.0
    lora_targets: str = ""
    epochs: int = 20
    min_updates: int = 0
    batch_size: int = 32
    lr: float = 3e-4
    head_lr: float = 1e-3
    rates: Mapping[str, float] = field(default_factory=dict, hash=False)
    layer_decay: float = 0.75
    weight_decay: float = 0.05
    l2_sp: float = 0.0
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: float = 0.9
    schedule: Literal["cosine", "linear", "onecycle", "constant"] = "cosine"
    warmup: float = 0.1
    batch_norm: Literal["frozen", "train", "reestimate"] = "frozen"
    dropout: bool = False
    label_smoothing: float = 0.0
    mixup: float = 0.0
    noise: float = 0.0
    contrastive: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    augment: Literal["none", "flip-crop"] = "none"
    views: int = 0
    average_views: int | Literal["auto"] = 0
    patience: int = 0
    clip: float = 1.0
    clip_value: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    average: Literal["none", "ema", "soup"] = "none"
    interpolate: float | Literal["auto"] = 0.0
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        problems = list(wrong_values(self))
        if problems:
            raise RecipeError(
                f"recipe {self.name!r} cannot be used: " + "; ".join(problems) + ". "
                "Change them, or start from a named one: RECIPES['finetune']."
            )

    @property
    def most_averaged(self) -> int:
        """Views that predictions are the mean of, if "auto" finds that they help."""
        return self.views if self.average_views == "auto" else self.average_views

    def with_(self, **changes: Any) -> Recipe:
        """The same recipe with some values changed; a misspelt name is an error with its nearest match."""
        _refuse_unknown(changes)
        return replace(self, **changes)

    def overruled(self, assignments: Sequence[str]) -> Recipe:
        """The same recipe with values changed as a command line writes them.

        Args:
            assignments: such as "lr=1e-4"; what is no TOML value is a string, "train=layer[34]|head", and what stands
                for a name or a pattern is one whatever it looks like: "cut=1".

        Raises:
            RecipeError: no "=", an unknown name, or an impossible value.

        Example:
            >>> Recipe("mine").overruled(["lr=1e-4", "train=head"]).train
            'head'
        """
        return self.with_(**dict(map(_assignment, assignments))) if assignments else self

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
        return "".join(f"{name} = {toml_value(value)}\n" for name, value in self.to_dict().items())

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
            raise RecipeError(f"no recipe file {path}. A named recipe needs no file: --recipe finetune")
        try:
            recipe = cls.from_toml(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise RecipeError(
                f"{path} is no text in UTF-8 ({error}). Save it as UTF-8: iconv -t UTF-8 {path}"
            ) from error
        except OSError as error:
            told = f"the recipe file {path} cannot be read ({error.strerror})"
            raise RecipeError(f"{told}. A named recipe needs no file: --recipe finetune") from error
        return recipe if recipe.name != "unnamed" else replace(recipe, name=path.stem)


def _refuse_unknown(values: dict[str, Any]) -> None:
    known = [field.name for field in fields(Recipe)]
    wrong = [name for name in values if name not in known]
    if wrong:
        told = " ".join(f"{name!r} is no part of a recipe.{closest(name, known)}" for name in wrong)
        raise RecipeError(f"{told} Known: {', '.join(known)}.")


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise RecipeError(f"{text!r} gives no value. Write the name, an equals sign and the value: --set lr=1e-4")
    try:
        read = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value
    return name, read if isinstance(read, str) or get_type_hints(Recipe).get(name) is not str else value
