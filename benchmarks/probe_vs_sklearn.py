"""`regraft fit --recipe probe` beside a hand-written scikit-learn script: same images, accuracy and wall time.

Each is a fresh process, ours with an empty cache; they take turns, so that both see the same machine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean

from common import DATA, HERE, REGRAFT, scratch_folder, store, timed

from regraft.data import Dataset, read

SOURCE = DATA / "weights" / "mobilenetv2_100_imagenet"
CELLS = [("ants_bees", 10), ("ants_bees", 40), ("sign_digits", 10), ("sign_digits", 40)]
SEEDS = (0, 1, 2)


def image_list(data: Dataset, root: Path) -> dict[str, list[tuple[str, int]]]:
    return {
        split: [(str(root / example.name), example.label) for example in data.split(split).examples]
        for split in ("train", "test")
    }


def cell(name: str, k: int, seed: int, work: Path) -> tuple[float, float, float, float]:
    root = DATA / "datasets" / name
    images = work / "images.json"
    images.write_text(json.dumps(image_list(read(root).per_class(k, seed), root)))
    flags = ["--recipe", "probe", "--per-class", str(k), "--seed", str(seed), "--evidence", "off", "--json"]
    ours = timed(
        [*REGRAFT, "fit", str(root), "--source", str(SOURCE), *flags, "--out", str(work / "run")],
        cache=work / "cache",
    )
    theirs = timed([sys.executable, str(HERE / "by_hand.py"), str(SOURCE), str(images)])
    assert ours.result["test"]["n"] == theirs.result["n"]
    return ours.result["test"]["accuracy"], theirs.result["accuracy"], ours.seconds, theirs.seconds


def main() -> None:
    rows = []
    for name, k in CELLS:
        measured = []
        for seed in SEEDS:
            with scratch_folder() as work:
                measured.append(cell(name, k, seed, work))
        ours, theirs, our_seconds, their_seconds = (mean(column) for column in zip(*measured, strict=True))
        row = [f"{100 * ours:.1f} %", f"{100 * theirs:.1f} %", f"{our_seconds:.1f}", f"{their_seconds:.1f}"]
        rows.append([name, k, *row, f"{our_seconds / their_seconds:.2f}"])
    header = ["data", "per class", "regraft probe", "by hand", "seconds", "by hand, seconds", "time ratio"]
    store("probe_vs_sklearn", header, rows, f"Test accuracy and whole-process wall time, mean of seeds {SEEDS}.")


if __name__ == "__main__":
    main()
