"""What `make demo` runs: a network that learned animals and vehicles reads handwritten digits.

Fifty labelled pictures, five of each digit; three seeds; everything it needs is in the package.
"""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from statistics import mean

import torch

from regraft import Job, Outcome, transfer
from regraft.cli.terminal import table, table_console, terminal
from regraft.data.decode import n_workers

Run = tuple[str, int]  # recipe and seed

OUT = Path("demo")
MARK = OUT / ".made-by-make-demo"
SEEDS = (0, 1, 2)
WHAT = {
    "auto": "regraft: decides what to reuse",
    "naive": "naive fine-tuning: new last layer, all layers trained",
    "scratch": "the same network from scratch",
    "raw pixels": "a linear model on raw pixels",
}


def fresh_folder() -> None:
    """Only a folder that an earlier demo made is replaced."""
    if OUT.exists() and not MARK.exists():
        sys.exit(f"{OUT}/ exists and was not made by the demo; move it away and run make demo again.")
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    MARK.touch()


def fit(recipe: str, seed: int, listener: object = None) -> Outcome:
    # The report of the first run shows the full comparison; the others only need their figures.
    evidence = "quick" if (recipe, seed) == ("auto", SEEDS[0]) else "off"
    out = OUT / f"{recipe}-seed{seed}"
    job = Job(data="digits", per_class=5, seed=seed, recipe=recipe, evidence=evidence, out=out)
    return transfer(job, audience=listener)  # type: ignore[arg-type]


def accuracy_in_a_worker(recipe: str, seed: int, threads: int) -> float:
    torch.set_num_threads(threads)
    return fit(recipe, seed).metrics["test"]["accuracy"]


@contextmanager
def side_by_side(asked: list[Run]) -> Iterator[dict[Future[float], Run]]:
    """Trainings that run beside what the block does. A network this small keeps one core busy, hardly two.

    Ctrl-C reaches the whole group of processes; the first one ends the others.
    """
    workers = min(n_workers(), len(asked))
    new, deaf = multiprocessing.get_context("spawn"), (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(workers, new, initializer=signal.signal, initargs=deaf) as pool:
        try:
            yield {pool.submit(accuracy_in_a_worker, *run, n_workers() // workers): run for run in asked}
        except KeyboardInterrupt:
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


def show(found: dict[Run, float], n: int) -> None:
    shown = table("", "mean>", *(f"seed {seed}>" for seed in SEEDS), title=f"test accuracy on {n} digits")
    for name, what in WHAT.items():
        of_seeds = [found[name, seed] for seed in SEEDS]
        cells = (f"{100 * value:.1f} %" for value in (mean(of_seeds), *of_seeds))
        shown.add_row(what, *cells, style="bold" if name == "auto" else None)
    table_console().print(shown)


def main() -> None:
    started = time.monotonic()
    fresh_folder()
    found: dict[Run, float] = {}
    n = 0
    asked = [(recipe, seed) for recipe in ("scratch", "naive") for seed in SEEDS]
    with terminal() as listener, side_by_side(asked) as running:
        listener.say("What regraft is compared with is trained meanwhile, and takes longer.")
        for seed in SEEDS:
            listener.say(f"seed {seed}, recipe auto")
            outcome = fit("auto", seed, listener)
            controls = {control["name"]: control for control in outcome.evidence["controls"]}
            found["auto", seed] = outcome.metrics["test"]["accuracy"]
            found["raw pixels", seed] = controls["raw pixels"]["accuracy"]
            n = outcome.metrics["test"]["n"]
        for done, training in enumerate(as_completed(running), start=1):
            recipe, seed = running[training]
            found[recipe, seed] = training.result()
            listener.say(f"seed {seed}, {WHAT[recipe]}: {100 * found[recipe, seed]:.1f} %")
            listener.progress("trainings to compare with", done, len(asked))
    show(found, n)
    report = f"{OUT}/auto-seed{SEEDS[0]}/report.html"
    table_console().print(f"{time.monotonic() - started:.0f} seconds. Open the report: {report}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped. make demo begins again.")
