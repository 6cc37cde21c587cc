"""`regraft probe`: what each depth of a source holds for a dataset."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table

from regraft.cli.flags import flags, json_option
from regraft.cli.terminal import print_result, table, table_console, terminal
from regraft.evidence.record import profile_rows
from regraft.job import Setting, examples, means, sources
from regraft.search import Prospect, describe_probe, look_at


@click.command()
@click.argument("data")
@flags(Setting)
@json_option
def command(data: str, as_json: bool, **chosen: Any) -> None:
    """Fit linear heads on every stage of a source, on DATA's training split, and judge them on validation.

    Nothing is trained by gradient and the test split is not looked at.
    """
    setting = Setting(data=data, **chosen)
    dataset = examples(setting)
    opened = sources(setting, dataset)
    with terminal() as listener, means(setting, listener) as work:
        found = [look_at(dataset, source, work) for source in opened]
    if as_json:
        print_result([_facts(prospect) for prospect in found])
        return
    for prospect in found:
        table_console().print(_table(prospect))


def _facts(prospect: Prospect) -> dict[str, Any]:
    tally = prospect.features.tally
    best = profile_rows(prospect.profile)
    return {
        "source": prospect.source.uri,
        "best": next(row for row in best if row["chosen"]),
        "profile": best,
        "notes": list(prospect.profile.notes),
        "cache_hits": tally.hits,
        "cache_computed": tally.computed,
        "seconds": round(tally.seconds, 3),
    }


def _table(prospect: Prospect) -> Table:
    profile = prospect.profile
    shown = table(
        *("stage", "grid>", "head", "validation>", "held out of training>", "± of both>"),
        title=f"{prospect.source.uri}: the best head of each stage",
        caption=f"best of all: {describe_probe(profile.best)}, {_percent(profile.best.val_accuracy)}",
    )
    for result in profile.per_stage():
        tap = result.candidate.taps[0]
        scores = (_percent(result.val_accuracy), _percent(result.cv_accuracy), f"{100 * result.se:.1f}")
        shown.add_row(tap.cut, str(tap.grid or 1), result.candidate.head, *scores)
    return shown


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f} %"
