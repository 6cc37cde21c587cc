"""What auto chose, and what the best of everything that we have would have been on the test split.

    python benchmarks/peers/regret.py [--cells NAME ...] [--seeds N ...]

Every idea that auto can have is trained in full, whatever its price, and so is every recipe with a name; the best of
each stage's probes is judged too. The oracle chooses among them by *test* accuracy, which auto never reads: the best of
many on one small split is flattered, so some regret is luck that no search could have had. Auto's own figure is that of
`run.py`, for the same seed. Each line of benchmarks/results/regret.jsonl is one trial, or says that a cell has all of
its trials; a trial that is there is not made again, so the search can be stopped and made in pieces. Lines of ideas
that the search no longer has (each depth at a second rate) stay, and the oracle may choose them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from cells import CELLS, Cell, write
from common import HERE, machine, scratch_folder
from results import AUTO, Table, markdown
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
    table, rows, regrets = Table(RESULTS.lines().values()), [], []
    for cell in CELLS:
        auto = table.default(cell, AUTO)
        for seed, run in sorted(auto.runs.items()) if auto else ():
            found = [line for line in lines() if (line["cell"], line["seed"]) == (cell, seed)]
            tried = [line for line in found if line["trial"] != ALL]
            if not tried:
                continue
            oracle = max(tried, key=lambda line: line["test"])
            by_validation = max(tried, key=lambda line: line["val"])
            regrets.append(100 * (oracle["test"] - run.accuracy))
            shown = [run.accuracy, oracle["test"], by_validation["test"]]
            numbers = [f"{100 * accuracy:.1f}" for accuracy in shown]
            finished = any(line["trial"] == ALL for line in found)
            n_tried = f"{len(tried)}" if finished else f"{len(tried)}, not all"
            rows.append([cell, str(seed), n_tried, *numbers, f"{regrets[-1]:+.1f}", oracle["trial"]])
    if regrets:
        rows.append(["mean", "", "", "", "", "", f"{mean(regrets):+.1f}", ""])
    header = ["cell", "seed", "trials", "auto", "oracle", "best on validation", "regret, points", "the oracle's choice"]
    text = f"# regret\n\nMade by `python benchmarks/peers/regret.py`; {machine()}. Test accuracy, %.\n\n"
    REPORT.write_text(text + markdown(header, rows) + "\n", encoding="utf-8")
    print(REPORT.read_text(encoding="utf-8"))


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
