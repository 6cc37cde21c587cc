"""What auto chose, and what the best of all that it tried would have been on the test split.

    python benchmarks/peers/regret.py CELL [SEED ...]

The search is made again and every trial is measured on the test split, which the search itself never reads, and so
is the best probe of every stage. Regret is the best of these on the test split minus what was chosen: the best of
many on one small split is flattered, so some regret is luck that no search could have had.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cells import CELLS, Cell, write
from common import scratch_folder
from results import markdown
from run import WORK

from regraft.job import Job, examples, means, sources
from regraft.run import Silent
from regraft.search import Clock, Prospect, decide, describe_probe, look_at, probe_trial
from regraft.search.ideas import with_values
from regraft.search.trial import Trial, right
from regraft.tune import RECIPES


def judged(cell: Cell, seed: int, work: Path) -> list[list[str]]:
    """A row for each trial, best on the test split first."""
    spec = cell.input if cell.side else None
    given = {"input_size": spec.size, "mean": spec.mean, "std": spec.std} if spec else {}
    job = Job(data=str(write(cell, seed, WORK)), source=(cell.source,), seed=seed, cache=work / "cache", **given)
    clock, data = Clock(time.monotonic()), examples(job)
    with means(job, Silent()) as used:
        prospect = look_at(data, *sources(job), used)
        decision = decide(prospect, None, len(data.classes), used, folder=work / "run", clock=clock)
        trials = [*((t, t is decision.chosen) for t in decision.trials), *((t, False) for t in _stages(prospect))]
        rows = [[100 * right(t, "test").mean(), 100 * t.val_accuracy, t.name, "chosen" if c else ""] for t, c in trials]
    rows.sort(key=lambda row: -row[0])
    return [[cell.name, str(seed), name, f"{val:.1f}", f"{test:.1f}", chosen] for test, val, name, chosen in rows]


def _stages(prospect: Prospect) -> Iterator[Trial]:
    """The best probe of every stage, and the best that is no average."""
    n_classes = len(prospect.features.data.classes)
    for result in [prospect.profile.single, *prospect.profile.per_stage()]:
        recipe = RECIPES["probe"].with_(name=f"probe: {describe_probe(result)}")
        yield probe_trial(prospect, recipe, n_classes, with_values(prospect, result))


def main() -> None:
    cell, seeds = CELLS[sys.argv[1]], [int(seed) for seed in sys.argv[2:]] or [0]
    for seed in seeds:
        with scratch_folder() as work:
            rows = judged(cell, seed, work)
        chosen = next(row for row in rows if row[-1])
        print(markdown(["cell", "seed", "trial", "validation, %", "test, %", ""], rows))
        print(json.dumps({"cell": cell.name, "seed": seed, "regret": float(rows[0][4]) - float(chosen[4])}), flush=True)


if __name__ == "__main__":
    main()
