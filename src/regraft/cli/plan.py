"""`regraft plan`: a fit without the training."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table

from regraft.cli.flags import flags, json_option
from regraft.cli.terminal import print_result, table, table_console, terminal
from regraft.job import Fitting, examples, means, sources
from regraft.search import Forecast, Search, Tally, forecast
from regraft.transfer import clock_of
from regraft.tune import in_time


@click.command()
@click.argument("data")
@flags(Fitting)
@json_option
@click.pass_obj
def command(began: float, data: str, as_json: bool, **chosen: Any) -> None:
    """Print every parameter group that a fit on DATA would have, with its rate and state, and what it would cost.

    Where a recipe's head starts from a probe, the frozen pass and the probes are run, because they choose where the
    head reads; they stay in the cache. Without --recipe, fit searches; what is printed is then its way to fine-tune
    from the best probe, and what it would try.
    """
    asked = Fitting(data=data, **chosen)
    recipe = asked.chosen_recipe
    dataset = examples(asked)
    opened = sources(asked, dataset)
    with terminal() as listener, means(asked, listener) as work:
        found = [forecast(dataset, source, recipe, work, clock_of(asked, began)) for source in opened]
    if as_json:
        print_result([each.to_dict() for each in found])
        return
    for each in found:
        _print(each)


def _print(found: Forecast) -> None:
    console = table_console()
    console.print(found.plan.table())
    click.echo(f"In all about {in_time(found.seconds)}, with frozen passes, looks at validation and early stopping.")
    if found.tally.computed:
        click.echo(_spent(found.tally))
    if found.search is None:
        return
    if found.search.first_round:
        console.print(_first_round(found.search))
    else:
        click.echo(
            "Without --recipe, fit delivers the best probe here: no training is expected to fit the "
            f"{in_time(found.search.seconds)} that the search has. --time-limit 5m gives it more."
        )


def _spent(tally: Tally) -> str:
    """What the frozen pass cost, which fit need not pay again."""
    size = f"{tally.bytes / 1e6:.1f} MB"
    return f"The features of all stages took {tally.seconds:.1f} s and {size} of the cache, where fit finds them."


def _first_round(search: Search) -> Table:
    title = f"Without --recipe, fit searches for about {in_time(search.seconds)}"
    caption = "the best third of these go on after short runs; delivered is what is surely better than the best probe"
    shown = table("training", "parameters trained>", "seconds>", title=title, caption=caption)
    for idea in search.first_round:
        shown.add_row(idea.name, f"{idea.plan.n_params('trained'):,}", f"{idea.seconds:.0f}")
    return shown
