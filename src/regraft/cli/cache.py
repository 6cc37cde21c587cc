"""`regraft cache`: what is kept of frozen layers."""

from __future__ import annotations

import datetime
from pathlib import Path

import click

from regraft.cache import clean as clean_caches
from regraft.cache import default_root, list_caches, parse_bytes
from regraft.cache import verify as verify_caches
from regraft.cli.flags import json_option
from regraft.cli.terminal import print_result, table, table_console

root_option = click.option(
    "--cache",
    "root",
    type=click.Path(path_type=Path),
    help="Folder of the feature cache.  [default: the user's]",
)


@click.group()
def command() -> None:
    """List, verify or clean the feature cache."""


@command.command("list")
@root_option
@json_option
def list_(root: Path | None, as_json: bool) -> None:
    """Every cache, the most recently used first."""
    found = list_caches(root or default_root())
    if as_json:
        rows = [{"folder": str(c.folder), "source": c.source, "tap": str(c.key.tap)} for c in found]
        sizes = [{"shape": list(c.shape), "rows": c.rows, "bytes": c.bytes, "made": c.made} for c in found]
        print_result([{**row, **size} for row, size in zip(rows, sizes, strict=True)])
        return
    title = f"{root or default_root()}: {sum(c.bytes for c in found) / 1e6:.1f} MB"
    shown = table("source", "tap", "row>", "rows>", "MB>", "last used>", title=title)
    for c in found:
        used = datetime.datetime.fromtimestamp(c.last_used).strftime("%Y-%m-%d %H:%M")
        shape = "×".join(map(str, c.shape))
        shown.add_row(c.source, str(c.key.tap), shape, str(c.rows), f"{c.bytes / 1e6:.1f}", used)
    table_console().print(shown)


@command.command()
@root_option
@click.option("--remove", is_flag=True, help="Remove what is damaged; the next pass computes it again.")
@json_option
def verify(root: Path | None, remove: bool, as_json: bool) -> None:
    """Read every row again and compare it with its checksum; exit status 2 if something is damaged."""
    report = verify_caches(root or default_root(), remove=remove)
    if as_json:
        damaged = [{"path": str(damage.path), "reason": damage.reason} for damage in report.damaged]
        print_result({"caches": report.caches, "shards": report.shards, "damaged": damaged})
    else:
        for damage in report.damaged:
            click.echo(f"{damage.path}: {damage.reason}")
        click.echo(f"{report.caches} caches, {report.shards} shards, {len(report.damaged)} damaged")
    if report.damaged and not remove:
        click.echo("Remove them: regraft cache verify --remove", err=True)
        raise SystemExit(2)


@command.command()
@root_option
@click.option("--max-size", help="Keep this much, the most recently used: 500M, 20G. Without it all goes.")
@json_option
def clean(root: Path | None, max_size: str | None, as_json: bool) -> None:
    """Remove caches, those unused for longest first."""
    limit = None if max_size is None else parse_bytes(max_size)
    report = clean_caches(root or default_root(), limit, all=limit is None)
    if as_json:
        removed = [str(folder) for folder in report.removed]
        print_result({"removed": removed, "bytes": report.bytes, "kept_bytes": report.kept_bytes})
        return
    freed, kept = f"{report.bytes / 1e6:.1f} MB freed", f"{report.kept_bytes / 1e6:.1f} MB kept"
    click.echo(f"{len(report.removed)} caches removed, {freed}, {kept}")
