"""Supervised pretraining: a related set with labels and an architecture become a source.

Shape letters: N pictures, B pictures of one batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regraft.data import Dataset, Transform, load_pixels
from regraft.errors import DataError, RunError
from regraft.run import write_atomic
from regraft.source import build, make_source, write_source
from regraft.source.arch import canonical_arch
from regraft.spec import InputSpec
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
    """What the card says beside the figures.

    Args:
        data: name of the training set.
        classes: names, in the order of the labels.
        licence: of the weights.
        command: the command line that makes them again.
    """

    data: str
    classes: tuple[str, ...]
    licence: str = ""
    command: str = ""


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

    about: About
    input: InputSpec
    plan: Plan
    history: History
    metrics: dict[str, Any]


def pretrain_supervised(
    data: Dataset,
    arch: str,
    *,
    out: Path,
    epochs: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    recipe: Recipe | None = None,
    arch_args: dict[str, Any] | None = None,
    input: InputSpec | None = None,
    licence: str = "",
    command: str = "",
    resume: bool = False,
    compiled: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Path:
    """Train an architecture from fresh weights on labelled pictures; the result is a source.

    Pictures are decoded once and held in memory as uint8 (CIFAR-10: 184 MB).

    Args:
        data: its train split is learnt from; val is watched; test is measured once, after the last epoch.
        arch: `regraft:NAME`, `timm:NAME` or `python:pkg.mod:callable`; takes `num_classes`.
        out: folder of the new source, which `load_source` opens.
        epochs: passes over the train split; None takes the recipe's.
        seed: of initialisation, order and augmentation.
        device: "cpu" or "cuda".
        recipe: how to train; None takes `SUPERVISED`, in bfloat16 where the processor multiplies it natively.
        arch_args: keyword arguments of the architecture beside num_classes.
        input: what the network expects; needed where the architecture does not say it.
        licence: of the weights, for the card.
        command: the command line that makes them again, for the card.
        resume: go on from the checkpoint in `out`.
        compiled: compile the network first; takes a minute, then saves about a quarter.
        on_event: see `regraft.tune.train`.

    Raises:
        RunError: `out` is not empty, or the architecture does not say what input it expects.

    References: SGD with one cycle: Smith and Topin, 2018, arXiv:1708.07120.
    """
    _check_out(out, resume=resume)
    recipe = recipe or SUPERVISED.with_(precision=fast_precision(device))
    if not data.task.one_of:
        raise DataError(f"{data.name} is a {data.task.kind} task; pretraining needs classes: --task classification")
    spec = input_of(arch, arch_args, len(data.classes), input)
    splits = {name: _decoded(data.split(name), spec) for name in ("train", "val", "test")}
    return pretrain_pixels(
        arch,
        {name: pictures for name, pictures in splits.items() if len(pictures.labels)},
        About(data.name, data.classes, licence, command),
        out=out,
        seed=seed,
        device=device,
        recipe=recipe if epochs is None else replace(recipe, epochs=epochs),
        arch_args=arch_args,
        input=spec,
        compiled=compiled,
        on_event=on_event,
    )


def pretrain_pixels(
    arch: str,
    splits: dict[str, Pictures],
    about: About,
    *,
    out: Path,
    seed: int = 0,
    device: str = "cpu",
    recipe: Recipe = SUPERVISED,
    arch_args: dict[str, Any] | None = None,
    input: InputSpec | None = None,
    compiled: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Path:
    """The same for pictures that are already decoded.

    Args:
        arch: see `pretrain_supervised`.
        splits: "train", and "val" and "test" where there are such.
        about: for the card.
        out: folder of the new source; a checkpoint in it is resumed.
        seed: see `pretrain_supervised`.
        device: see `pretrain_supervised`.
        recipe: see `pretrain_supervised`.
        arch_args: see `pretrain_supervised`.
        input: see `pretrain_supervised`.
        compiled: see `pretrain_supervised`.
        on_event: see `regraft.tune.train`.

    Returns:
        The folder.
    """
    spec = input_of(arch, arch_args, len(about.classes), input)
    arguments = _arguments(arch_args, len(about.classes))
    body, _ = build(arch, arguments, seed=seed)
    network = PixelNetwork(body, spec)
    rows = ArrayRows(splits["train"].pixels, splits["train"].labels, augment=recipe.augment, seed=seed)
    plan = plan_whole(recipe, network, source=arch, n_classes=len(about.classes), n_train=len(rows))
    if compiled:
        body.compile(dynamic=False)
    checkpoint = out / CHECKPOINT
    val = _rows(splits.get("val"))
    history = train(plan, network, rows, val, seed=seed, device=device, checkpoint=checkpoint, on_event=on_event)
    metrics: dict[str, Any] = {"n_train": len(rows), "val_accuracy": history.kept.val_accuracy}
    if "test" in splits:
        metrics |= {"test_accuracy": accuracy(network, splits["test"]), "n_test": len(splits["test"].labels)}
    source = make_source(str(out), canonical_arch(arch), arguments, body, spec)
    origin = f"regraft pretrain, supervised, on {about.data}"
    write_source(out, replace(source, classes=about.classes, licence=about.licence, origin=origin))
    _write_card(out, _Run(about, spec, plan, history, metrics))
    checkpoint.unlink(missing_ok=True)
    return out


def fast_precision(device: str) -> str:
    """bfloat16 where matrix units take it (CUDA, AMX): 2.4 times the speed on AMX; elsewhere it is emulated."""
    native = device.startswith("cuda") or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"


def input_of(arch: str, arch_args: dict[str, Any] | None, n_classes: int, input: InputSpec | None) -> InputSpec:
    """What an architecture expects: as told, else as it says itself.

    Raises:
        RunError: neither, or something else than pictures.
    """
    found = input or build(arch, _arguments(arch_args, n_classes))[1]
    if not isinstance(found, InputSpec):
        raise RunError(
            f"{arch} does not say what pictures it expects. "
            f"Pass it: pretrain_supervised(data, {arch!r}, input=InputSpec(size=(3, 32, 32)), ...)."
        )
    return found


def _arguments(arch_args: dict[str, Any] | None, n_classes: int) -> dict[str, Any]:
    return {**(arch_args or {}), "num_classes": n_classes}


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
    recipe, metrics = run.plan.recipe, run.metrics
    figures = [f"| training pictures | {metrics['n_train']:,} |"]
    if metrics["val_accuracy"] is not None:
        figures.append(f"| validation accuracy, last epoch | {metrics['val_accuracy']:.2%} |")
    if "test_accuracy" in metrics:
        figures.append(f"| test accuracy, {metrics['n_test']:,} pictures | {metrics['test_accuracy']:.2%} |")
    parameters = run.plan.n_params("trained")
    lines = [
        *("---", f"license: {run.about.licence or 'unknown'}", "library_name: regraft", "---", ""),
        f"# {run.plan.source} trained on {run.about.data}",
        "",
        f"{parameters:,} parameters, {len(run.about.classes)} classes: {', '.join(run.about.classes)}. "
        f"Input {run.input.size}, mean {run.input.mean}, std {run.input.std}.",
        "",
        *("| | |", "|---|---|", *figures, ""),
        "The test pictures were looked at once, after the last epoch; the validation ones steered nothing.",
        "",
        "## How it was made",
        "",
        *((f"    {run.about.command}", "") if run.about.command else ()),
        f"{run.plan.n_epochs} epochs, {run.plan.updates:,} updates, "
        f"{run.history.rows[-1].seconds / 60:.0f} minutes on "
        f"{torch.get_num_threads()} threads, PyTorch {torch.__version__.split('+')[0]}.",
        "",
        *("```toml", recipe.to_toml().strip(), "```", ""),
        *("| epoch | training loss | validation loss | validation accuracy |", "|---|---|---|---|"),
        *(_epoch_line(row) for row in run.history.rows[1:]),
        "",
    ]
    return "\n".join(lines)


def _epoch_line(row: Any) -> str:
    cells = (row.train_loss, row.val_loss, row.val_accuracy)
    return f"| {row.epoch} | " + " | ".join("" if cell is None else f"{cell:.4f}" for cell in cells) + " |"
