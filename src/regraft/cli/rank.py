"""`regraft rank`: which of several sources to reuse for a dataset."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from regraft.cli.flags import flags, json_option
from regraft.cli.terminal import print_result, table, table_console, terminal
from regraft.engine import engine_of
from regraft.job import Ranking, examples, means, open_source, readable
from regraft.search import Clock, Ranked, race, rank, refuse_if_none_fits

_SHARE = 0.9  # of the time limit: what is left is for the pass to a cut, and for clocks that differ
_SCORES = ("LogME", "H-score", "NCE", "LEEP")


@click.command()
@click.argument("data")
@flags(Ranking)
@json_option
@click.pass_obj
def command(began: float, data: str, as_json: bool, **chosen: Any) -> None:
    """Order sources by what probes find in them for DATA; ties go to the cheaper.

    The test split is not looked at, and nothing is trained by gradient but in a race, which --time-limit asks for.
    """
    asked = Ranking(data=data, **chosen)
    dataset = examples(asked)
    readable(asked, dataset)

    opened = partial(open_source, opening=asked, data=dataset)
    with terminal() as listener, engine_of(asked.engine) as engine, means(asked, listener, engine) as work:
        ranked = rank(dataset, asked.sources, opened, work)
        refuse_if_none_fits(ranked)
        if asked.time_limit and len(ranked) > 1:
            clock = Clock(began, asked.time_limit, _SHARE)
            with tempfile.TemporaryDirectory() as folder:
                ranked = race(ranked, dataset, opened, work, folder=Path(folder), clock=clock, share=1.0)
    if as_json:
        print_result([each.to_dict() for each in ranked])
        return
    console = table_console()
    console.print(_table(ranked))
    for place, each in enumerate(ranked, 1):
        console.print(f"{place}. {each.source}: {each.reason}.", highlight=False)
        for reason in each.fitness.reasons if each.fitness.verdict != "refuses" else ():  # said already
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
