"""`regraft pretrain`: a network trained on a related set, to be a source."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import click

from regraft.cli.flags import flags, json_option
from regraft.cli.process import resumable
from regraft.cli.terminal import print_result, terminal
from regraft.data import read, read_unlabelled
from regraft.job import SEED, Device, Opening, device, input_spec
from regraft.pretrain import OBJECTIVES, ONE_CYCLE, Training, pretrain
from regraft.run import read_object
from regraft.tune import Event
from regraft.values import RULE, Rule, number, whole


@dataclass(frozen=True)
class Pretraining(Opening):
    """What `pretrain` is to do.

    Args:
        objective: what the network learns.
        out: folder of the new source.
        epochs: passes over the training split; None takes the recipe's.
        val_fraction: share of the training pictures that is held out to be watched.
        precision: of the forward pass.
        licence: of the weights, for the card.
        seed: of all that is drawn.
        device: where PyTorch works.
        skip_bad: leave out unreadable pictures.
        resume: continue an interrupted run.
    """

    objective: str = field(
        default="supervised",
        metadata={
            "help": "What the network learns: the labels (supervised); without them which way up a picture is "
            "(rotation) or whether its tiles are in order (corrupted).",
            RULE: Rule(f"one of {', '.join(OBJECTIVES)}", "rotation", lambda name: name in OBJECTIVES),
        },
    )
    out: Path = field(default=Path("source"), metadata={"help": "Folder of the new source."})
    epochs: int | None = field(
        default=None,
        metadata={
            "help": f"Passes over the training split.  [default: {ONE_CYCLE.epochs}]",
            RULE: whole(1, such_as=str(ONE_CYCLE.epochs)),
        },
    )
    val_fraction: float = field(
        default=0.04,
        metadata={
            "help": "Share of the training pictures to be watched.",
            RULE: number("a share from 0 to 0.79", "0.04", lambda v: 0 <= v < 0.8),
        },
    )
    precision: Literal["float32", "bfloat16"] = field(
        default="float32", metadata={"help": "bfloat16 is faster where the processor has instructions for it."}
    )
    licence: str = field(default="", metadata={"help": "Of the weights, for the card."})
    seed: int = field(default=0, metadata={"help": "Of all that is drawn.", RULE: SEED})
    device: Device = field(default="auto", metadata={"help": "Where PyTorch works."})
    skip_bad: bool = field(default=False, metadata={"help": "Leave out pictures that cannot be read."})
    resume: bool = field(default=False, metadata={"help": "Continue an interrupted run."})

    def __post_init__(self) -> None:
        super().__post_init__()
        device(self.device)


@click.command()
@click.argument("data")
@flags(Pretraining)
@json_option
def command(data: str, as_json: bool, **chosen: Any) -> None:
    """Train an architecture (--arch) from fresh weights on DATA; --source can then name the new folder.

    DATA is what fit takes; for objectives without labels also a folder with pictures below it, in whatever folders.
    """
    asked = Pretraining(**chosen)
    if asked.arch is None:
        raise click.UsageError("say which network to train, for example --arch regraft:cifar10-resnet20")
    reader = read if OBJECTIVES[asked.objective].labelled else read_unlabelled
    pictures = reader(data, skip_bad=asked.skip_bad, val_fraction=asked.val_fraction)
    with terminal() as listener, resumable("--resume"):

        def tell(event: Event) -> None:
            listener.progress("pretraining", event.updates, event.n_updates)
            if event.kind == "epoch" and event.row.val_accuracy is not None:
                listener.say(f"epoch {event.epoch}: {100 * event.row.val_accuracy:.1f} % on validation")

        training = Training(
            asked.arch,
            asked.objective,
            input=input_spec(asked),
            recipe=ONE_CYCLE.with_(precision=asked.precision),
            epochs=asked.epochs,
            seed=asked.seed,
            device=device(asked.device),
            licence=asked.licence,
            command="regraft " + " ".join(sys.argv[1:]),
        )
        folder = pretrain(pictures, training, out=asked.out, resume=asked.resume, on_event=tell)
    if as_json:
        print_result({"source": str(folder), **read_object(folder / "config.json")["metrics"]})
    else:
        click.echo(folder)
