"""`regraft report`: a run's report, written again from its files."""

from __future__ import annotations

from pathlib import Path

import click

from regraft.evidence import render


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
def command(run_dir: Path) -> None:
    """Write report.html and report.md of RUN_DIR again."""
    click.echo(render(run_dir))
