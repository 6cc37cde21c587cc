"""`regraft rank`: which of several sources to reuse for a dataset."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table

from regraft.cli.flags import flags, json_option
from regraft.cli.terminal import print_result, table, table_console, terminal
from regraft.job import Setting, examples, means, open_source, readable
from regraft.search import Ranked, rank

_SCORES = ("LogME", "H-score", "NCE", "LEEP")


@click.command()
@click.argument("data")
@flags(Setting)
@json_option
def command(data: str, as_json: bool, **chosen: Any) -> None:
    """Order sources by what probes find in them for DATA; ties go to the cheaper.

    Nothing is trained by gradient and the test split is not looked at.
    """
    setting = Setting(data=data, **chosen)
    dataset = examples(setting)
    readable(setting, dataset)
    with terminal() as listener, means(setting, listener) as work:
        ranked = rank(dataset, setting.sources, lambda uri: open_source(uri, setting, dataset), work)
    if as_json:
        print_result([each.to_dict() for each in ranked])
        return
    console = table_console()
    console.print(_table(ranked))
    for place, each in enumerate(ranked, 1):
        console.print(f"{place}. {each.source}: {each.reason}.", highlight=False)
        for reason in each.fitness.reasons:
            console.print(f"   {each.fitness.verdict}: {reason}", highlight=False)


def _table(ranked: list[Ranked]) -> Table:
    shown = table(
        *("source", "fits", "probe, %>", "ms/example>", "parameters>", *(f"{s}>" for s in _SCORES), "licence")
    )
    for each in ranked:
        accuracy = f"{100 * each.accuracy:.1f} ± {100 * each.se:.1f}" if each.reads else "–"
        cost = f"{1000 * each.seconds:.1f}" if each.reads else "–"
        scores = (f"{each.scores[name]:.2f}" if name in each.scores else "–" for name in _SCORES)
        shown.add_row(
            each.source, each.fitness.verdict, accuracy, cost, f"{each.n_params:,}", *scores, each.licence or "unknown"
        )
    return shown
