"""The command line: one file per verb, flags taken from the dataclass that holds the intent.

In comes what a person types; out goes a result on standard output (with `--json` nothing else), progress on
standard error, and an exit status: 0 done, 2 the input is wrong (one message, no traceback), 1 a defect.
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import NoReturn

import click

from regraft.cli.machine import refusal
from regraft.cli.messages import in_the_shell
from regraft.cli.process import Stopped, leave, prepare
from regraft.errors import RegraftError
from regraft.started import STARTED

VERBS = {
    "fit": "Find out what to reuse, train the rest, and save a model with its report.",
    "predict": "Classify files with a saved model.",
    "inspect": "Show a source's layers and cuts, or a dataset's counts and problems.",
    "probe": "Fit linear heads on every stage of a source and show what each depth holds.",
    "rank": "Order several sources by what they hold for a dataset.",
    "plan": "Show what a fit would train and freeze, and what it would cost; trains nothing.",
    "export": "Write a saved model as ONNX, or for transformers.",
    "serve": "Answer over HTTP with a saved model.",
    "report": "Write a run's report again.",
    "cache": "List, verify or clean the feature cache.",
    "pretrain": "Train a network to be a source.",
}


class LazyGroup(click.Group):
    """Loads a verb when it is called: none waits for what another one imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        return importlib.import_module(f"regraft.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=LazyGroup)
@click.version_option(package_name="regraft")
def cli() -> None:
    """Transfer learning that decides what to reuse and proves that it paid off."""


def run() -> NoReturn:
    """Entry point of the `regraft` command."""
    prepare()
    try:
        main()
    except SystemExit as ended:
        leave(int(ended.code or 0))
    raise AssertionError("main ends in SystemExit")


def main(arguments: list[str] | None = None) -> None:
    """A command in this process; always ends in SystemExit."""
    try:
        began = STARTED if arguments is None else time.monotonic()
        sys.exit(cli.main(arguments, standalone_mode=False, obj=began) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except RegraftError as error:
        click.echo(f"error: {in_the_shell(str(error))}", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):  # ahead of RuntimeError, which Abort is
        stopped = Stopped("Frozen layers that were computed are in the cache: the same command finds them.")
        stopped.show()
        sys.exit(stopped.exit_code)
    except (OSError, MemoryError, RuntimeError) as error:
        if (message := refusal(error)) is None:
            raise
        click.echo(f"error: {message}", err=True)
        sys.exit(2)
