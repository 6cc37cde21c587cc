"""Supervised pretraining: a related set with labels and an architecture become a source.

Shape letters: N pictures, B pictures of one batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regraft.data import Dataset, Transform, load_pixels
from regraft.errors import DataError, RunError
from regraft.run import make_folder, write_atomic
from regraft.source import build, make_source, write_source
from regraft.source.arch import canonical_arch
from regraft.source.request import Request
from regraft.spec import InputOverride, InputSpec
from regraft.tune.history import History
from regraft.tune.loop import Event, train
from regraft.tune.plan import Plan, plan_whole
from regraft.tune.recipe import Recipe
from regraft.tune.rows import ArrayRows

# One cycle needs a fraction of the epochs of a stepped rate (Smith and Topin, 2018, arXiv:1708.07120).
# Rate 0.2 at batch 256 is the usual 0.1 at 128 of He and others (2015, arXiv:1512.03385).
SUPERVISED = Recipe(
    "supervised",
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
class Pictures:
    """One split as pixels.

    Args:
        pixels: uint8 (N, C, H, W).
        labels: (N,).
    """

    pixels: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class About:
    """What pictures are of, as the card says it.

    Args:
        data: name of the training set.
        classes: names, in the order of the labels.
    """

    data: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Training:
    """What is to be trained from fresh weights, and how.

    Args:
        arch: `regraft:NAME`, `timm:NAME` or `python:pkg.mod:callable`; takes `num_classes`.
        arch_args: keyword arguments of the architecture beside num_classes.
        input: what the network expects, or what of it is to be otherwise; needed where the architecture does not say
            it.
        recipe: how to train; None takes `SUPERVISED`, in bfloat16 where the processor multiplies it natively.
        epochs: passes over the train split; None takes the recipe's.
        seed: of initialisation, order and augmentation.
        device: "cpu" or "cuda".
        compiled: compile the network first; takes a minute, then saves about a quarter.
        licence: of the weights, for the card.
        command: the command line that makes them again, for the card.
    """

    arch: str
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
        arch_args: with num_classes.
        input: what the network expects.
        recipe: how to train.
    """

    asked: Training
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


@dataclass(frozen=True)
class _Run:
    """What was trained, and how it went."""

    resolved: _Resolved
    about: About
    plan: Plan
    history: History
    metrics: dict[str, Any]


def pretrain_supervised(
    data: Dataset,
    training: Training,
    *,
    out: Path,
    resume: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Path:
    """Train an architecture from fresh weights on labelled pictures; the result is a source.

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

    References: SGD with one cycle: Smith and Topin, 2018, arXiv:1708.07120.
    """
    _check_out(out, resume=resume)
    if not data.task.one_of:
        raise DataError(f"{data.name} is a {data.task.kind} task; pretraining needs classes: --task classification")
    resolved = _resolve(training, len(data.classes))
    make_folder(out)
    splits = {name: _decoded(data.split(name), resolved.input) for name in ("train", "val", "test")}
    present = {name: pictures for name, pictures in splits.items() if len(pictures.labels)}
    return _carry_out(resolved, present, About(data.name, data.classes), out, on_event)


def pretrain_pixels(
    splits: dict[str, Pictures],
    about: About,
    training: Training,
    *,
    out: Path,
    on_event: Callable[[Event], None] | None = None,
) -> Path:
    """The same for pictures that are already decoded.

    Args:
        splits: "train", and "val" and "test" where there are such.
        about: what they are of.
        training: see `pretrain_supervised`.
        out: folder of the new source; a checkpoint in it is resumed.
        on_event: see `regraft.tune.train`.

    Returns:
        The folder.
    """
    return _carry_out(_resolve(training, len(about.classes)), splits, about, out, on_event)


def _resolve(training: Training, n_classes: int) -> _Resolved:
    """Every choice that was left open, made; what cannot work is refused before any picture is decoded."""
    recipe = training.recipe or SUPERVISED.with_(precision=fast_precision(training.device))
    if training.epochs is not None:
        recipe = replace(recipe, epochs=training.epochs)
    arch_args = {**training.arch_args, "num_classes": n_classes}
    return _Resolved(training, arch_args, _input_of(training, arch_args), recipe)


def _carry_out(
    resolved: _Resolved,
    splits: dict[str, Pictures],
    about: About,
    out: Path,
    on_event: Callable[[Event], None] | None,
) -> Path:
    """Train, measure, write the folder."""
    asked, recipe = resolved.asked, resolved.recipe
    body, _ = build(asked.arch, resolved.arch_args, seed=asked.seed)
    network = PixelNetwork(body, resolved.input)
    rows = ArrayRows(splits["train"].pixels, splits["train"].labels, augment=recipe.augment, seed=asked.seed)
    val = _rows(splits.get("val"))
    plan = plan_whole(recipe, network, source=asked.arch, n_classes=len(about.classes), n_train=len(rows))
    if asked.compiled:
        body.compile(dynamic=False)
    checkpoint = out / CHECKPOINT
    history = train(
        plan, network, rows, val, seed=asked.seed, device=asked.device, checkpoint=checkpoint, on_event=on_event
    )
    metrics = {"n_train": len(rows), "val_accuracy": history.kept.val_accuracy, **_tested(network, splits)}
    _write_folder(out, body, _Run(resolved, about, plan, history, metrics))
    checkpoint.unlink(missing_ok=True)
    return out


def _tested(network: nn.Module, splits: dict[str, Pictures]) -> dict[str, Any]:
    if "test" not in splits:
        return {}
    return {"test_accuracy": accuracy(network, splits["test"]), "n_test": len(splits["test"].labels)}


def _write_folder(out: Path, body: nn.Module, run: _Run) -> None:
    asked = run.resolved.asked
    source = make_source(
        str(out),
        canonical_arch(asked.arch),
        run.resolved.arch_args,
        body,
        run.resolved.input,
        classes=run.about.classes,
        licence=asked.licence,
        origin=f"regraft pretrain, supervised, on {run.about.data}",
    )
    write_source(out, source)
    _write_card(out, run)


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
            f"Pass it: pretrain_supervised(data, Training({training.arch!r}, input=InputSpec(size=(3, 32, 32))), ...)."
        )
    return found


def _check_out(out: Path, *, resume: bool) -> None:
    if out.is_dir() and any(out.iterdir()) and not (resume and (out / CHECKPOINT).is_file()):
        hint = "pass resume=True to go on with it, or " if (out / CHECKPOINT).is_file() else ""
        raise RunError(f"{out} is not empty, and nothing is overwritten: {hint}take a new folder: out=Path('new').")


def _decoded(data: Dataset, spec: InputSpec) -> Pictures:
    return Pictures(load_pixels(data, Transform(spec)), data.labels)


def _rows(pictures: Pictures | None) -> ArrayRows | None:
    return ArrayRows(pictures.pixels, pictures.labels) if pictures is not None else None


@torch.no_grad()
def accuracy(network: nn.Module, pictures: Pictures) -> float:
    """Fraction of pictures whose likeliest class is right, in float32."""
    right = 0
    for first in range(0, len(pictures.labels), 500):
        logits = network(torch.from_numpy(pictures.pixels[first : first + 500]).float())
        right += int((logits.argmax(1).numpy() == pictures.labels[first : first + 500]).sum())
    return right / len(pictures.labels)


def _write_card(out: Path, run: _Run) -> None:
    """README.md, and the figures in config.json."""
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    write_atomic(out / "config.json", json.dumps({**config, "metrics": run.metrics}, indent=1) + "\n")
    write_atomic(out / "README.md", _card(run))


def _card(run: _Run) -> str:
    asked, spec, metrics = run.resolved.asked, run.resolved.input, run.metrics
    figures = [f"| training pictures | {metrics['n_train']:,} |"]
    if metrics["val_accuracy"] is not None:
        figures.append(f"| validation accuracy, last epoch | {metrics['val_accuracy']:.2%} |")
    if "test_accuracy" in metrics:
        figures.append(f"| test accuracy, {metrics['n_test']:,} pictures | {metrics['test_accuracy']:.2%} |")
    parameters = run.plan.n_params("trained")
    lines = [
        *("---", f"license: {asked.licence or 'unknown'}", "library_name: regraft", "---", ""),
        f"# {run.plan.source} trained on {run.about.data}",
        "",
        f"{parameters:,} parameters, {len(run.about.classes)} classes: {', '.join(run.about.classes)}. "
        f"Input {spec.size}, mean {spec.mean}, std {spec.std}.",
        "",
        *("| | |", "|---|---|", *figures, ""),
        "The test pictures were looked at once, after the last epoch; the validation ones steered nothing.",
        "",
        "## How it was made",
        "",
        *((f"    {asked.command}", "") if asked.command else ()),
        f"{run.plan.n_epochs} epochs, {run.plan.updates:,} updates, "
        f"{run.history.rows[-1].seconds / 60:.0f} minutes on "
        f"{torch.get_num_threads()} threads, PyTorch {torch.__version__.split('+')[0]}.",
        "",
        *("```toml", run.resolved.recipe.to_toml().strip(), "```", ""),
        *("| epoch | training loss | validation loss | validation accuracy |", "|---|---|---|---|"),
        *(_epoch_line(row) for row in run.history.rows[1:]),
        "",
    ]
    return "\n".join(lines)


def _epoch_line(row: Any) -> str:
    cells = (row.train_loss, row.val_loss, row.val_accuracy)
    return f"| {row.epoch} | " + " | ".join("" if cell is None else f"{cell:.4f}" for cell in cells) + " |"
