"""What it gives the probes to stretch quiet features less: the same heads with and without it.

    python benchmarks/moderated.py [--cells NAME ...] [--seeds N ...]

The cells of benchmarks/peers, fitted on training pictures and chosen on validation as `regraft probe` does; test
accuracy of what would be delivered.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import numpy as np
import torch
from common import HERE, scratch_folder, store

sys.path.insert(0, str(HERE / "peers"))

from cells import CELLS, Cell, write

from regraft.data import read
from regraft.probe import ProbeResult, depth_profile, taps_wanted
from regraft.probe.rows import Block, moderated, standardise
from regraft.search import Features, Means, traced_source
from regraft.source import load_source

HOW: tuple[Callable[[np.ndarray], Block], ...] = (standardise, moderated)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="*", default=list(CELLS), choices=list(CELLS), metavar="NAME")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    asked = parser.parse_args()
    with scratch_folder() as work:
        found = [[CELLS[name], *both(CELLS[name], asked.seeds, work)] for name in asked.cells]
    rows = [[cell.name, f"{plain:.1f}", f"{drawn:.1f}", f"{drawn - plain:+.1f}"] for cell, plain, drawn in found]
    plain, drawn = (fmean(row[i] for row in found) for i in (1, 2))
    rows.append(["mean", f"{plain:.1f}", f"{drawn:.1f}", f"{drawn - plain:+.1f}"])
    store("moderated", ["cell", "standardised, %", "moderated, %", "points"], rows, f"Seeds {asked.seeds}.")


def both(cell: Cell, seeds: list[int], work: Path) -> tuple[float, ...]:
    """Test accuracy in percent, mean over seeds, for each of `HOW`."""
    right: list[list[float]] = [[] for _ in HOW]
    for seed in seeds:
        source = replace(load_source(cell.source), input=cell.input)
        data, means = read(write(cell, seed, work)), Means(work / "cache", seed=seed)
        traced = traced_source(source, means.root)
        features = Features(data, source, traced, means)
        features.fill(taps_wanted(traced, len(features.labels("train"))))
        for how, reached in zip(HOW, right, strict=True):
            with patch("regraft.probe.bench.moderated", how):
                y_train, y_val = features.labels("train"), features.labels("val")
                profile = depth_profile(features, y_train, y_val, traced, len(data.classes), seed=seed)
            reached.append(100 * accuracy(profile.best, features))
    return tuple(map(fmean, right))


@torch.no_grad()
def accuracy(best: ProbeResult, features: Features) -> float:
    """On the test split."""
    y = features.labels("test")
    rows = [features(tap, "test").reshape(len(y), -1) for tap in best.candidate.taps]
    scores = best.fitted.head(torch.from_numpy(np.concatenate(rows, axis=1).astype(np.float32)))
    return float((scores.argmax(1).numpy() == y).mean())


if __name__ == "__main__":
    main()
