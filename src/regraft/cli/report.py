"""`regraft report`: a run's report, written again from its files; of several runs, one page that compares them."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from regraft.cli.flags import json_option
from regraft.cli.terminal import print_result
from regraft.evidence import render

COMPARISON = Path("comparison.html")


@click.command()
@click.argument("run_dirs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN_DIR...")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"The page that compares several runs.  [default: {COMPARISON}]",
)
@json_option
def command(run_dirs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Write report.html and report.md of RUN_DIR again; of several, one page beside one another."""
    if len(run_dirs) == 1:
        if out is not None:
            raise click.UsageError(
                f"--out is for a page that compares several runs; the report of one is written into its folder: "
                f"regraft report {shlex.quote(str(run_dirs[0]))}"
            )
        page = render(run_dirs[0])
    else:
        from regraft.evidence.compare import compare

        page = compare(run_dirs, out or COMPARISON)
    if as_json:
        print_result({"report": str(page)})
    else:
        click.echo(page)
