"""What auto chose, and what the best of everything that we have would have been on the test split.

    python benchmarks/peers/regret.py [--cells NAME ...] [--seeds N ...]

Every idea that auto can have is trained in full, whatever its price, and so is every recipe with a name; the best of
each stage's probes is judged too. The oracle chooses among them by *test* accuracy, which auto never reads: the best of
many on one small split is flattered, so some regret is luck that no search could have had. Auto's own figures, in the
time that it gives itself and with `--time-limit 10m`, are those of `run.py`, for the same seed. Each line of
benchmarks/results/regret.jsonl is one trial, or says that a cell has all of its trials; a trial that is there is not
made again, so the search can be stopped and made in pieces. Lines of ideas that the search no longer has (each depth at
a second rate) stay, and the oracle may choose them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from cells import CELLS, Cell, write
from common import HERE, machine, scratch_folder
from results import AUTO, PATIENT, Table, markdown
from run import RESULTS, WORK

from regraft.job import Job, examples, means, sources
from regraft.run import Silent
from regraft.search import Means, Prospect, describe_probe, look_at, probe_trial, train_trial
from regraft.search.ideas import has_views, ideas, viewed
from regraft.search.starts import probe_for, with_values
from regraft.search.trial import Trial, right
from regraft.tune import RECIPES

LOG = HERE / "results" / "regret.jsonl"
REPORT = HERE / "results" / "regret.md"
ALL = "all are made"  # in the place of a trial's name
NAMED = ("finetune", "gradual")  # naive and scratch are far below, in every cell of `run.py`
Make = Callable[[], Trial]


def trials(prospect: Prospect, used: Means) -> Iterator[tuple[str, Make]]:
    """Everything that can be done with a source short of training it anew, by name; made when it is called."""
    n_classes = len(prospect.features.data.classes)
    profile = prospect.profile
    for name, result in {describe_probe(r): r for r in (*profile.per_stage(), profile.single, profile.best)}.items():
        recipe = RECIPES["probe"].with_(name=f"probe: {name}")
        yield recipe.name, lambda r=result, recipe=recipe: probe_trial(prospect, recipe, n_classes, _full(prospect, r))
    for idea in (idea for deeper in ideas(prospect, n_classes) for idea in deeper):
        views_left = has_views(prospect) and not idea.recipe.views
        for one in (idea, viewed(idea, prospect)) if views_left else (idea,):
            yield one.name, lambda o=one: train_trial(prospect, o.recipe, n_classes, used, probe=o.probe)
    for name in NAMED:
        probe = probe_for(prospect, RECIPES[name])
        yield name, lambda n=name, p=probe: train_trial(prospect, RECIPES[n], n_classes, used, probe=p)


def _full(prospect: Prospect, result: Any) -> Any:
    return result if result is prospect.profile.best else with_values(prospect, result)


def make(cell: Cell, seed: int, cache: Path) -> None:
    """All trials of a cell that are not there yet."""
    known = {line["trial"] for line in lines() if (line["cell"], line["seed"]) == (cell.name, seed)}
    if ALL in known:
        return
    spec = cell.input if cell.side else None
    given = {"input_size": spec.size, "mean": spec.mean, "std": spec.std} if spec else {}
    job = Job(data=str(write(cell, seed, WORK)), source=(cell.source,), seed=seed, cache=cache, **given)
    data = examples(job)
    with means(job, Silent()) as used:
        prospect = look_at(data, *sources(job, data), used)
        for name, trial in trials(prospect, used):
            if name in known:
                continue
            began = time.perf_counter()
            made = trial()
            accuracies = {"val": made.val_accuracy, "test": float(right(made, "test").mean())}
            seconds = round(time.perf_counter() - began, 1)
            keep({"cell": cell.name, "seed": seed, "trial": name, **accuracies, "seconds": seconds})
    keep({"cell": cell.name, "seed": seed, "trial": ALL})


def keep(line: dict[str, Any]) -> None:
    """Add a line to the log."""
    with LOG.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)


def lines() -> list[dict[str, Any]]:
    """All trials so far."""
    return [json.loads(line) for line in LOG.read_text(encoding="utf-8").splitlines()] if LOG.is_file() else []


def write_report() -> None:
    """Print the table of all cells so far and keep it."""
    table = Table(RESULTS.lines().values())
    found = [row for cell in CELLS for row in _rows(cell, table)]
    rows = [row for row, _ in found]
    if found:
        means = [_mean(of_one) for of_one in zip(*(regrets for _, regrets in found), strict=True)]
        rows.append(["mean", *[""] * 5, *map(_points, means), "", ""])
    header = ["cell", "seed", "trials", "auto", "auto, 10 min", "oracle", "auto's regret, points", "of 10 min"]
    header += ["best on validation", "the oracle's choice"]
    text = f"# regret\n\nMade by `python benchmarks/peers/regret.py`; {machine()}. Test accuracy, %.\n\n"
    REPORT.write_text(text + markdown(header, rows) + "\n", encoding="utf-8")
    print(REPORT.read_text(encoding="utf-8"))


def _rows(cell: str, table: Table) -> Iterator[tuple[list[str], list[float | None]]]:
    """For each seed what the table says, and the regrets in it: of auto, and of auto with ten minutes."""
    autos = [table.default(cell, name) for name in (AUTO, PATIENT)]
    for seed in sorted(autos[0].runs) if autos[0] else ():
        found = [line for line in lines() if (line["cell"], line["seed"]) == (cell, seed)]
        tried = [line for line in found if line["trial"] != ALL]
        if not tried:
            continue
        oracle = max(tried, key=lambda line: line["test"])
        by_validation = max(tried, key=lambda line: line["val"])
        reached = [auto.runs[seed].accuracy if auto and seed in auto.runs else None for auto in autos]
        regrets = [None if one is None else oracle["test"] - one for one in reached]
        n_tried = f"{len(tried)}" if len(found) > len(tried) else f"{len(tried)}, not all"
        shown = [f"{100 * one:.1f}" if one is not None else "–" for one in (*reached, oracle["test"])]
        chosen = [f"{100 * by_validation['test']:.1f}", oracle["trial"]]
        yield [cell, str(seed), n_tried, *shown, *map(_points, regrets), *chosen], regrets


def _mean(regrets: Iterable[float | None]) -> float | None:
    known = [one for one in regrets if one is not None]
    return mean(known) if known else None


def _points(difference: float | None) -> str:
    return "–" if difference is None else f"{100 * difference:+.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="*", default=list(CELLS), choices=list(CELLS), metavar="NAME")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    asked = parser.parse_args()
    for cell in (CELLS[name] for name in asked.cells):
        for seed in asked.seeds:
            with scratch_folder() as cache:
                make(cell, seed, cache)
    write_report()


if __name__ == "__main__":
    main()
