"""Pretraining: pictures and an architecture become a source.

Shape letters: N pictures, B pictures of one batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regraft.data import SPLITS, Dataset, Transform, load_pixels
from regraft.errors import RunError
from regraft.pretrain.card import Made, card
from regraft.pretrain.objectives import OBJECTIVES, Objective
from regraft.run import make_folder, write_atomic
from regraft.source import build, make_source, write_source
from regraft.source.arch import canonical_arch
from regraft.source.request import Request
from regraft.spec import InputOverride, InputSpec
from regraft.tune import Event, History, Plan, Recipe, Rows, batches, plan_whole, train

# One cycle needs a fraction of the epochs of a stepped rate (Smith and Topin, 2018, arXiv:1708.07120).
# Rate 0.2 at batch 256 is the usual 0.1 at 128 of He and others (2015, arXiv:1512.03385).
ONE_CYCLE = Recipe(
    "one-cycle",
    weights="random",
    head="fresh",
    cut="input",
    taps="feature",
    epochs=14,
    batch_size=256,
    lr=0.2,
    head_lr=0.2,
    layer_decay=1.0,
    weight_decay=5e-4,
    optimizer="sgd",
    schedule="onecycle",
    warmup=0.25,
    batch_norm="train",
    dropout=True,
    augment="flip-crop",
    clip=0.0,
    keep="last",
)

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Training:
    """What is to be trained from fresh weights, and how.

    Args:
        arch: `regraft:NAME`, `timm:NAME` or `python:pkg.mod:callable`; takes `num_classes`.
        objective: one of `OBJECTIVES`.
        arch_args: keyword arguments of the architecture beside num_classes.
        input: what the network expects, or what of it is to be otherwise; needed where the architecture does not say
            it.
        recipe: how to train; None takes `ONE_CYCLE`, in bfloat16 where the processor multiplies it natively.
        epochs: passes over the train split; None takes the recipe's.
        seed: of initialisation, order and augmentation.
        device: "cpu" or "cuda".
        compiled: compile the network first; takes a minute, then saves about a quarter.
        licence: of the weights, for the card.
        command: the command line that makes them again, for the card.
    """

    arch: str
    objective: str = "supervised"
    arch_args: dict[str, Any] = field(default_factory=dict)
    input: InputSpec | InputOverride | None = None
    recipe: Recipe | None = None
    epochs: int | None = None
    seed: int = 0
    device: str = "cpu"
    compiled: bool = False
    licence: str = ""
    command: str = ""


@dataclass(frozen=True)
class _Resolved:
    """A training with nothing left to be chosen.

    Args:
        asked: what it was made of.
        objective: what is learnt.
        classes: names of the network's outputs.
        arch_args: with num_classes.
        input: what the network expects.
        recipe: how to train.
    """

    asked: Training
    objective: Objective
    classes: tuple[str, ...]
    arch_args: dict[str, Any]
    input: InputSpec
    recipe: Recipe


class PixelNetwork(nn.Module):
    """A network that takes pixels 0..255 as they are stored.

    Args:
        body: takes normalised pixels (B, C, H, W).
        spec: whose mean and std normalise.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, body: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", 255 * torch.tensor(spec.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("scale", 255 * torch.tensor(spec.std).view(-1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) in 0..255 to logits (B, K)."""
        return self.body((pixels - self.mean) / self.scale)


def pretrain(
    data: Dataset,
    training: Training,
    *,
    out: Path,
    resume: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Path:
    """Train an architecture from fresh weights on pictures; the result is a source.

    Pictures are decoded once and held in memory as uint8 (CIFAR-10: 184 MB).

    Args:
        data: its train split is learnt from; val is watched; test is measured once, after the last epoch.
        training: what is to be trained, and how.
        out: folder of the new source, which `load_source` opens.
        resume: go on from the checkpoint in `out`.
        on_event: see `regraft.tune.train`.

    Returns:
        The folder.

    Raises:
        RunError: `out` is not empty, or the architecture does not say what input it expects.
        DataError: the objective cannot learn from such data.

    References: SGD with one cycle: Smith and Topin, 2018, arXiv:1708.07120.
    """
    _check_out(out, resume=resume)
    resolved = _resolve(training, data)
    make_folder(out)
    rows = {split: _rows(data.split(split), split, resolved) for split in SPLITS if data.split(split).examples}
    body, _ = build(training.arch, resolved.arch_args, seed=training.seed)
    network = PixelNetwork(body, resolved.input)
    plan, history = _learn(network, rows, resolved, out / CHECKPOINT, on_event)
    metrics = {"n_train": len(data.split("train")), "val_accuracy": history.kept.val_accuracy}
    if "test" in rows:
        metrics |= {"test_accuracy": accuracy(network, rows["test"]), "n_test": len(data.split("test"))}
    made = Made(
        data.name, resolved.objective.about, resolved.classes, resolved.input, training.licence, training.command,
        plan, history, metrics,
    )  # fmt: skip
    _write_folder(out, body, resolved, made)
    (out / CHECKPOINT).unlink(missing_ok=True)
    return out


def _learn(
    network: PixelNetwork,
    rows: dict[str, Rows],
    resolved: _Resolved,
    checkpoint: Path,
    on_event: Callable[[Event], None] | None,
) -> tuple[Plan, History]:
    """Train the network on the rows of "train"; those of "val" are watched."""
    asked, n_classes, n_train = resolved.asked, len(resolved.classes), len(rows["train"])
    plan = plan_whole(resolved.recipe, network, source=asked.arch, n_classes=n_classes, n_train=n_train)
    if asked.compiled:
        network.body.compile(dynamic=False)
    history = train(
        plan, network, rows["train"], rows.get("val"), seed=asked.seed, device=asked.device, checkpoint=checkpoint,
        on_event=on_event,
    )  # fmt: skip
    return plan, history


def _resolve(training: Training, data: Dataset) -> _Resolved:
    """Every choice that was left open, made; what cannot work is refused before any picture is decoded."""
    objective = OBJECTIVES[training.objective]
    recipe = training.recipe or ONE_CYCLE.with_(precision=fast_precision(training.device))
    if training.epochs is not None:
        recipe = replace(recipe, epochs=training.epochs)
    classes = objective.classes(data)
    arch_args = {**training.arch_args, "num_classes": len(classes)}
    spec = _input_of(training, arch_args)
    objective.check(data, spec)
    return _Resolved(training, objective, classes, arch_args, spec, recipe)


def _rows(data: Dataset, split: str, resolved: _Resolved) -> Rows:
    """One split as the loop sees it; training rows are augmented as the recipe says."""
    pixels = load_pixels(data, Transform(resolved.input))
    augment = resolved.recipe.augment if split == "train" else "none"
    return resolved.objective.rows(pixels, data.labels, augment=augment, seed=resolved.asked.seed)


def _write_folder(out: Path, body: nn.Module, resolved: _Resolved, made: Made) -> None:
    """The source, its card, and the figures in config.json."""
    asked = resolved.asked
    source = make_source(
        str(out),
        canonical_arch(asked.arch),
        resolved.arch_args,
        body,
        resolved.input,
        classes=resolved.classes,
        licence=asked.licence,
        origin=f"regraft pretrain, {asked.objective}, on {made.data}",
    )
    write_source(out, source)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    write_atomic(out / "config.json", json.dumps({**config, "metrics": made.metrics}, indent=1) + "\n")
    write_atomic(out / "README.md", card(made))


def fast_precision(device: str) -> str:
    """bfloat16 where matrix units take it (CUDA, AMX): 2.4 times the speed on AMX; elsewhere it is emulated."""
    native = device.startswith("cuda") or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"


def _input_of(training: Training, arch_args: dict[str, Any]) -> InputSpec:
    """What an architecture expects: as told, else as it says itself.

    Raises:
        RunError: neither, or something else than pictures.
    """
    said = None if isinstance(training.input, InputSpec) else build(training.arch, arch_args)[1]
    request = Request(training.arch, input=training.input)
    found = request.picture_or(said if isinstance(said, InputSpec) else None)
    if found is None:
        raise RunError(
            f"{training.arch} does not say what pictures it expects. "
            f"Pass it: pretrain(data, Training({training.arch!r}, input=InputSpec(size=(3, 32, 32))), ...)."
        )
    return found


def _check_out(out: Path, *, resume: bool) -> None:
    if out.is_dir() and any(out.iterdir()) and not (resume and (out / CHECKPOINT).is_file()):
        hint = "pass resume=True to go on with it, or " if (out / CHECKPOINT).is_file() else ""
        raise RunError(f"{out} is not empty, and nothing is overwritten: {hint}take a new folder: out=Path('new').")


@torch.no_grad()
def accuracy(network: nn.Module, rows: Rows, batch_size: int = 500) -> float:
    """Fraction of rows whose likeliest class is right, in float32."""
    right = sum(
        int((network(rows.batch(part, 0)).argmax(1).numpy() == rows.labels[part]).sum())
        for part in batches(rows, batch_size)
    )
    return right / len(rows)
