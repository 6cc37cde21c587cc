"""`regraft fit --recipe probe` beside a hand-written scikit-learn script: same images, accuracy and wall time.

Each is a fresh process, ours with an empty cache; they take turns, so that both see the same machine. Of ants_bees all
pictures but those of training and 40 of each class for validation are tested on: its own test split comes to 51, of
which one is two points.
"""

from __future__ import annotations

import json
import sys
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

from common import HERE, REGRAFT, scratch_folder, store, timed

sys.path.insert(0, str(HERE / "peers"))

from cells import Cell, write

from regraft.data import Dataset, read

# With how many seeds: ants_bees has few pictures.
CELLS = {
    Cell("ants_bees", 10, spare=40): 6,
    Cell("ants_bees", 40, spare=40): 6,
    Cell("sign_digits", 10): 3,
    Cell("sign_digits", 40): 3,
}


def image_list(data: Dataset, root: Path) -> dict[str, list[tuple[str, int]]]:
    return {
        split: [(str(root / example.name), example.label) for example in data.split(split).examples]
        for split in ("train", "test")
    }


def measure(cell: Cell, seed: int, work: Path) -> tuple[float, float, float, float, int]:
    """Accuracy of ours and of the script, seconds of each, and how many pictures were tested on."""
    root = write(cell, seed, work)
    images = work / "images.json"
    images.write_text(json.dumps(image_list(read(root), root)))
    flags = ["--recipe", "probe", "--seed", str(seed), "--evidence", "off", "--json"]
    ours = timed(
        [*REGRAFT, "fit", str(root), "--source", cell.source, *flags, "--out", str(work / "run")],
        cache=work / "cache",
    )
    theirs = timed([sys.executable, str(HERE / "by_hand.py"), cell.source, str(images)])
    n = ours.result["test"]["n"]
    assert n == theirs.result["n"]
    return ours.result["test"]["accuracy"], theirs.result["accuracy"], ours.seconds, theirs.seconds, n


def row(cell: Cell, n_seeds: int) -> list[object]:
    measured = []
    for seed in range(n_seeds):
        with scratch_folder() as work:
            measured.append(measure(cell, seed, work))
    ours, theirs, our_seconds, their_seconds, (n, *_) = zip(*measured, strict=True)
    gains = [100 * (a - b) for a, b in zip(ours, theirs, strict=True)]
    difference = f"{mean(gains):+.1f} ± {stdev(gains) / sqrt(n_seeds):.1f}"
    accuracies = [f"{100 * mean(ours):.1f} %", f"{100 * mean(theirs):.1f} %", difference]
    times = [mean(our_seconds), mean(their_seconds)]
    seconds = [f"{times[0]:.1f}", f"{times[1]:.1f}", f"{times[0] / times[1]:.2f}"]
    return [cell.data, cell.k, n, n_seeds, *accuracies, *seconds]


def main() -> None:
    header = ["data", "per class", "tested on", "seeds", "regraft probe", "by hand", "points, ± standard error"]
    header += ["seconds", "by hand, seconds", "time ratio"]
    note = "Test accuracy and whole-process wall time, mean over seeds."
    store("probe_vs_sklearn", header, [row(cell, n_seeds) for cell, n_seeds in CELLS.items()], note)


if __name__ == "__main__":
    main()
