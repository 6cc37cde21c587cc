"""regraft beside its peers: same pictures, same weights, same seeds.

    python benchmarks/peers/run.py [--cells NAME ...] [--peers NAME ...] [--seeds N ...]
                                   [--defaults] [--quiet] [--fresh]

Every run is a process of its own and becomes a line of benchmarks/results/peers.jsonl when it ends; a run that is
there is not made again, so the comparison can be stopped and made in pieces. `--quiet` says that nothing else runs:
contestants take turns cell by cell, at their defaults, and their times go into the table. The peers need an
environment of their own, made by `benchmarks/peers/setup.sh`.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cells import CELLS, Cell, write
from common import HERE, REGRAFT, machine, scratch_folder, timed
from contestants import CONTESTANTS, Contestant
from results import SEEDS, Line, Results, Table

PEERS = HERE / "peers"
RESULTS = Results(HERE / "results" / "peers.jsonl")
REPORT = HERE / "results" / "peers.md"
PYTHON = os.environ.get("PEERS_PYTHON", str(HERE / "out" / "peers-venv" / "bin" / "python"))
WORK = HERE / "out" / "peers"

NOTE = """Made by `python benchmarks/peers/run.py`; {machine}.

Every contestant reads the same folder (training pictures, validation, test), starts from the same weights and is
measured on the same test pictures. "default" is what the peer's documentation shows; "best of" picks the setting
with the best *test* accuracy in each cell, in the peer's favour. Ours run at their defaults ({commits}) and choose on
validation.
Standard errors are over test pictures, paired. In ants_bees {n_ants} pictures are tested on: its folder val, and those
that regraft holds back from its folder train; 40 of each class that were not drawn for training are validated on.
Keras' two-stage guide is left out: its weights come from the network alone and are not the ones the others start
from. Runs of the peers with one seed are compared with ours of the same seed."""


@dataclass(frozen=True)
class Run:
    """What is to be done once."""

    cell: Cell
    contestant: Contestant
    setting: str
    seed: int
    quiet: bool

    @property
    def key(self) -> tuple[str, str, str, int, bool]:
        """As of the line that it becomes."""
        return self.cell.name, self.contestant.name, self.setting, self.seed, self.quiet


def planned(asked: argparse.Namespace) -> Iterator[Run]:
    """In order: the cheapest contestant first; where times count, all contestants of a cell one after the other."""
    cells, contestants = [CELLS[name] for name in asked.cells], [CONTESTANTS[name] for name in asked.peers]
    seeds = asked.seeds
    if asked.quiet:
        yield from (Run(cell, who, "default", seed, True) for cell in cells for seed in seeds for who in contestants)
        return
    for who in contestants:
        for seed in seeds[: who.n_seeds]:
            settings = ["default"] if asked.defaults else list(who.settings)
            yield from (Run(cell, who, setting, seed, False) for cell in cells for setting in settings)


def carry_out(run: Run) -> Line:
    """Make a run; what it leaves behind is gone afterwards but for its line."""
    folder = write(run.cell, run.seed, WORK)
    with scratch_folder() as work:
        result, seconds, facts = _ours(run, folder, work) if run.contestant.ours else _peer(run, folder)
    accuracy = result.count("1") / len(result)
    return Line(*run.key, accuracy, result, round(seconds, 2), commit(), facts)


def _ours(run: Run, folder: Path, work: Path) -> tuple[str, float, dict]:
    """Each with an empty cache: what auto tries depends on the time that was spent before it."""
    flags = ["--source", run.cell.source, *run.cell.flags, *run.contestant.flags, "--seed", str(run.seed)]
    done = timed([*REGRAFT, "fit", str(folder), *flags, "--json", "--out", str(work / "run")], cache=work / "cache")
    with (work / "run" / "predictions.csv").open(encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["name"])
    right = "".join("1" if row["truth"] == row["predicted"] else "0" for row in rows)
    metrics = done.result
    facts = {"delivered": metrics["delivered"], "cut": metrics["cut"], "val": metrics["val"]["accuracy"]}
    return right, done.seconds, facts


def _peer(run: Run, folder: Path) -> tuple[str, float, dict]:
    script = PEERS / run.contestant.script
    how = "timed" if run.quiet else "untimed"
    done = timed([PYTHON, str(script), str(folder), run.contestant.name, run.setting, how])
    return done.result["right"], done.seconds, {}


def commit() -> str:
    """Of this repository, and whether the package was changed since."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(HERE), *words], capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", "../src") else "")


def write_report() -> None:
    """Print the table of all runs so far and keep it."""
    lines = RESULTS.lines().values()
    n_ants = next((len(line.right) for line in lines if line.cell.startswith("ants")), "few")
    commits = ", ".join(sorted({line.commit for line in lines if CONTESTANTS[line.contestant].ours})) or "no commit yet"
    note = NOTE.format(machine=machine(), n_ants=n_ants, commits=commits)
    text = f"# peers\n\n{note}\n\n{Table(lines).report()}\n"
    REPORT.write_text(text, encoding="utf-8")
    print(text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="*", default=list(CELLS), choices=list(CELLS), metavar="NAME")
    parser.add_argument("--peers", nargs="*", default=list(CONTESTANTS), choices=list(CONTESTANTS), metavar="NAME")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--quiet", action="store_true", help="nothing else runs: the times count")
    parser.add_argument("--defaults", action="store_true", help="leave out the peers' other settings")
    parser.add_argument("--fresh", action="store_true", help="make the runs again that are there already")
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    there = {} if asked.fresh else RESULTS.lines()
    for run in planned(asked):
        if run.key in there:
            continue
        try:
            line = carry_out(run)
        except SystemExit as failure:  # the others can still run; this one is tried again next time
            print(f"{time.strftime('%H:%M:%S')} {run.key} failed:\n{failure}", file=sys.stderr, flush=True)
            continue
        RESULTS.append(line)
        shown = f"{100 * line.accuracy:.1f} % in {line.seconds:.0f} s"
        print(f"{time.strftime('%H:%M:%S')} {run.key}: {shown} {line.facts or ''}", file=sys.stderr, flush=True)
    write_report()


if __name__ == "__main__":
    main()
