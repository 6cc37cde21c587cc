"""`regraft fit`: the whole job, from examples to a saved model with its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from regraft.cli.flags import flags
from regraft.cli.process import resumable
from regraft.cli.terminal import print_result, table, table_console, terminal
from regraft.evidence.measures import WORDS, in_words, mean_merit
from regraft.job import Job
from regraft.transfer import Outcome, transfer


@click.command()
@click.argument("data")
@flags(Job)
@click.option("--json", "as_json", is_flag=True, help="Print metrics.json and nothing else on standard output.")
@click.pass_obj
def command(began: float, data: str, as_json: bool, **chosen: Any) -> None:
    """Find out what to reuse of a source for DATA, train the rest, and save a model with its report.

    DATA is a folder of class folders, a .csv, .jsonl or .parquet file, or the built-in `digits`.
    """
    job = Job(data=data, **chosen)
    with terminal() as listener, resumable("--resume" if job.out else "--out RUN_FOLDER --resume"):
        run = transfer(job, audience=listener, began=began)
    if as_json:
        print_result(run.metrics)
    else:
        _print_summary(run)


def _print_summary(run: Outcome) -> None:
    test, evidence = run.metrics["test"], run.evidence
    kind = run.metrics.get("task", "classification")
    title = f"{run.metrics['data']} · test split, {test['n']} examples"
    shown = table("", f"{WORDS[kind]['measure']}>", "95 % interval>", title=title)
    shown.add_row("this model", *_accuracy(mean_merit(test), test["ci95"]), style="bold")
    for control in evidence["controls"]:
        shown.add_row(control["what"], *_accuracy(control["accuracy"], control["ci95"]))
    console = table_console()
    console.print(shown)
    if told := in_words(kind, test):
        console.print(f"{told}.", soft_wrap=True)
    console.print(evidence["sentence"], soft_wrap=True)
    for label, path in (("model ", run.folder / "model"), ("report", run.folder / "report.html")):
        console.print(f"{label}  {Path(path)}", soft_wrap=True)


def _accuracy(value: float, interval: Sequence[float] | None) -> tuple[str, str]:
    return f"{100 * value:.1f} %", f"{100 * interval[0]:.1f} – {100 * interval[1]:.1f}" if interval else "–"
