"""Supervised pretraining: a related set with labels and an architecture become a source.

Shape letters: N pictures, B pictures of one batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from regraft.errors import RunError
from regraft.source.arch import build, canonical_arch
from regraft.spec import InputSpec
from regraft.tune.history import History
from regraft.tune.loop import Event, train
from regraft.tune.plan import Plan, plan_whole
from regraft.tune.recipe import Recipe
from regraft.tune.rows import ArrayRows

# SGD with one cycle reaches in 20 epochs what steps need 100 for (Smith and Topin, 2018, arXiv:1708.07120);
# rate 0.2 at batch 256 and weight decay 5e-4 are the usual 0.1 at 128 of He and others (2015, arXiv:1512.03385).
SUPERVISED = Recipe(
    "supervised",
    weights="random",
    head="fresh",
    cut="input",
    taps="feature",
    epochs=15,
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

    arch: str
    arch_args: dict[str, Any]
    network: PixelNetwork
    input: InputSpec
    plan: Plan
    history: History
    seconds: float
    about: About
    metrics: dict[str, Any] = field(default_factory=dict)


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
    """Train an architecture from fresh weights on pictures that are already decoded.

    Args:
        arch: see `regraft.source.build`.
        splits: "train", and "val" and "test" where there are such.
        about: for the card.
        out: folder of the new source; a checkpoint in it is resumed.
        seed: of initialisation, order and augmentation.
        device: "cpu" or "cuda".
        recipe: how to train.
        arch_args: keyword arguments of the architecture beside num_classes.
        input: what the network expects; needed where the architecture does not say it.
        compiled: compile the network first; pays on long runs.
        on_event: see `regraft.tune.train`.

    Returns:
        The folder, which `load_source` opens.
    """
    arguments = {**(arch_args or {}), "num_classes": len(about.classes)}
    body, spec = build(arch, arguments, seed=seed)
    spec = input or spec
    if spec is None:
        raise RunError(
            f"{arch} does not say what input it expects. Pass it: input=InputSpec(size=(3, 224, 224))."
        )
    network = PixelNetwork(body, spec)
    training = ArrayRows(splits["train"].pixels, splits["train"].labels, augment=recipe.augment, seed=seed)
    plan = plan_whole(recipe, network, source=arch, n_classes=len(about.classes), n_train=len(training))
    if compiled:
        body.compile(dynamic=False)
    checkpoint = out / "checkpoint.pt"
    val = _rows(splits.get("val"))
    history = train(
        plan, network, training, val, seed=seed, device=device, checkpoint=checkpoint, on_event=on_event
    )
    metrics: dict[str, Any] = {"n_train": len(training), "val_accuracy": history.kept.val_accuracy}
    if "test" in splits:
        metrics |= {"test_accuracy": accuracy(network, splits["test"]), "n_test": len(splits["test"].labels)}
    seconds = history.rows[-1].seconds
    run = _Run(canonical_arch(arch), arguments, network, spec, plan, history, seconds, about, metrics)
    _write_source(out, run)
    checkpoint.unlink(missing_ok=True)
    return out


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


def _write_source(out: Path, run: _Run) -> None:
    """The folder layout that `load_source` opens: config.json, model.safetensors, README.md."""
    out.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in run.network.body.state_dict().items()}
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    config = {
        "format": "regraft-source",
        "arch": run.arch,
        "arch_args": run.arch_args,
        "input": run.input.to_dict(),
        "classes": list(run.about.classes),
        "licence": run.about.licence,
        "origin": f"regraft pretrain, supervised, on {run.about.data}",
        "metrics": run.metrics,
    }
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (out / "README.md").write_text(_card(run), encoding="utf-8")


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
        f"# {run.arch} trained on {run.about.data}",
        "",
        f"{parameters:,} parameters, {len(run.about.classes)} classes: {', '.join(run.about.classes)}. "
        f"Input {run.input.size}, mean {run.input.mean}, std {run.input.std}.",
        "",
        *("| | |", "|---|---|", *figures, ""),
        "The test pictures were looked at once, after the last epoch; the validation pictures steered nothing.",
        "",
        "## How it was made",
        "",
        *((f"    {run.about.command}", "") if run.about.command else ()),
        f"{run.plan.n_epochs} epochs, {run.plan.updates:,} updates, {run.seconds / 60:.0f} minutes on "
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
