"""`regraft plan`: a fit without the training."""

from __future__ import annotations

from typing import Any

import click

from regraft.cli.flags import flags, json_option
from regraft.cli.terminal import print_result, table_console, terminal
from regraft.data import Dataset
from regraft.job import Job, examples, means, sources
from regraft.search import Means, Tally, look_at, plan_of, traced_source
from regraft.source import Source
from regraft.tune import Plan, Recipe, check_cuts, check_views


@click.command()
@click.argument("data")
@flags(Job)
@json_option
def command(data: str, as_json: bool, **chosen: Any) -> None:
    """Print every parameter group that a fit on DATA would have, with its rate and state, and what it would cost.

    The frozen pass and the probes are run, because they choose where the head reads; they stay in the cache. Without
    --recipe, fit searches; what is printed is then its way to fine-tune from the best probe.
    """
    job = Job(data=data, **chosen)
    recipe = job.chosen_recipe
    dataset = examples(job)
    opened = sources(job, dataset)
    with terminal() as listener, means(job, listener) as work:
        plans = [_plan(dataset, source, recipe, work) for source in opened]
    if as_json:
        print_result([plan.to_dict() for plan, _ in plans])
        return
    for plan, tally in plans:
        table_console().print(plan.table())
        click.echo(_spent(tally))
    if recipe is None:
        click.echo("Without --recipe, fit searches: the probe, then trainings such as this one, as the time allows.")


def _plan(data: Dataset, source: Source, recipe: Recipe | None, work: Means) -> tuple[Plan, Tally]:
    traced = traced_source(source, work.root)
    if recipe is not None:
        check_cuts(recipe, traced)
        check_views(recipe, source)
    prospect = look_at(data, source, work, traced)
    return plan_of(prospect, recipe, len(data.classes)), prospect.features.tally


def _spent(tally: Tally) -> str:
    """What the frozen pass cost, which fit need not pay again."""
    if not tally.computed:
        return "The features of all stages were in the cache already."
    size = f"{tally.bytes / 1e6:.1f} MB"
    return f"The features of all stages took {tally.seconds:.1f} s and {size} of the cache, where fit finds them."
