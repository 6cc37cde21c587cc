"""What `make demo` runs: a network that learned animals and vehicles reads handwritten digits.

Fifty labelled pictures, five of each digit; three seeds; everything it needs is in the package.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from statistics import mean

from regraft import Job, Outcome, transfer
from regraft.cli.terminal import table, table_console, terminal

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


def fit(recipe: str, seed: int, listener: object) -> Outcome:
    # The report of the first run shows the full comparison; the others only need their figures.
    evidence = "quick" if (recipe, seed) == ("auto", SEEDS[0]) else "off"
    out = OUT / f"{recipe}-seed{seed}"
    job = Job(data="digits", per_class=5, seed=seed, recipe=recipe, evidence=evidence, out=out)
    return transfer(job, audience=listener)  # type: ignore[arg-type]


def main() -> None:
    started = time.monotonic()
    fresh_folder()
    found: dict[str, list[float]] = {name: [] for name in WHAT}
    with terminal() as listener:
        for seed in SEEDS:
            for recipe in ("auto", "naive", "scratch"):
                listener.say(f"seed {seed}, recipe {recipe}")
                outcome = fit(recipe, seed, listener)
                found[recipe].append(outcome.metrics["test"]["accuracy"])
            controls = {control["name"]: control for control in outcome.evidence["controls"]}
            found["raw pixels"].append(controls["raw pixels"]["accuracy"])
    n = outcome.metrics["test"]["n"]
    shown = table("", "mean>", *(f"seed {seed}>" for seed in SEEDS), title=f"test accuracy on {n} digits")
    for name, what in WHAT.items():
        cells = (f"{100 * value:.1f} %" for value in (mean(found[name]), *found[name]))
        shown.add_row(what, *cells, style="bold" if name == "auto" else None)
    console = table_console()
    console.print(shown)
    console.print(f"{time.monotonic() - started:.0f} seconds. Open the report: {OUT}/auto-seed{SEEDS[0]}/report.html")


if __name__ == "__main__":
    main()
