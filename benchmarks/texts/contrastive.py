"""Which rates, how many updates and how many layers contrastive tuning of a text encoder wants: told by validation.

    python benchmarks/texts/contrastive.py [--seeds 3 4 5 6] [--k 128]

rt_polarity with MiniLM, which has six layers; the 1,066 sentences of the validation split. The
seeds are others than those of `run.py`, whose test split is never read here. Every run is a line of
benchmarks/results/contrastive.jsonl; a run that is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import HERE, scratch_folder, store
from run import TEXTS, minilm

from regraft.data import read
from regraft.search import Means, look_at, train_trial
from regraft.source import load_source
from regraft.tune import RECIPES

LINES = HERE / "results" / "contrastive.jsonl"
FIRST = "encoder.layer.0"
FALLING = "1e-4, three quarters of it for each layer further down, 64 updates"
ABOVE_THE_FIRST = "5e-5 in all layers, 96 updates"
EVERYWHERE = {"lr": 5e-5, "layer_decay": 1.0}
WAYS: dict[str, dict[str, Any]] = {
    FALLING: {"lr": 1e-4, "layer_decay": 0.75, "epochs": 8},
    "5e-5 in all layers, 64 updates": {**EVERYWHERE, "epochs": 8},
    ABOVE_THE_FIRST: {**EVERYWHERE, "epochs": 12},
    "5e-5 in all layers, 160 updates": {**EVERYWHERE, "epochs": 20},
    "the same, 96 updates, above the third layer": {**EVERYWHERE, "epochs": 12, "cut": "encoder.layer.2"},
    "the same, 96 updates, above the fifth layer": {**EVERYWHERE, "epochs": 12, "cut": "encoder.layer.4"},
    "the same, 96 updates, the whole network": {**EVERYWHERE, "epochs": 12, "cut": "input"},
}


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.is_file() else []


def run(way: str, k: int, seed: int, root: Path) -> dict[str, Any]:
    means = Means(root, seed=seed)
    prospect = look_at(read(TEXTS).per_class(k, seed), load_source(minilm()), means)
    recipe = RECIPES["contrastive"].with_(name=way, patience=0, min_updates=0, **{"cut": FIRST, **WAYS[way]})
    began = time.perf_counter()
    trial = train_trial(prospect, recipe, 2, means, probe=None)
    assert trial.history is not None
    found = {"val": trial.val_accuracy, "updates": trial.history.rows[-1].updates, "kept": trial.history.kept.updates}
    return {"way": way, "k": k, "seed": seed, **found, "seconds": round(time.perf_counter() - began, 1)}


def write_report(k: int) -> None:
    found = {(line["way"], line["seed"]): 100 * line["val"] for line in lines() if line["k"] == k}
    rows = []
    for way in WAYS:
        seeds = sorted(seed for made, seed in found if made == way)
        other = ABOVE_THE_FIRST if WAYS[way].get("cut", FIRST) != FIRST else FALLING
        ahead = [found[way, s] - found[other, s] for s in seeds]
        error = stdev(ahead) / len(ahead) ** 0.5 if len(ahead) > 1 else 0.0
        each = ", ".join(f"{found[way, s]:.1f} ({s})" for s in seeds)
        rows.append((way, each, f"{mean(ahead):+.1f} ± {error:.1f}" if ahead else "–"))
    note = (
        f"rt_polarity, {k} per class, MiniLM, above its first layer where nothing else is said; validation accuracy in "
        "percent, behind it the seed; the last column is the difference to the first row, for other depths to the same "
        "updates above the first layer, with its standard error."
    )
    store("contrastive", ("rate and updates", "each seed", "ahead"), rows, note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[3, 4, 5, 6])
    parser.add_argument("--k", type=int, default=128)
    asked = parser.parse_args()
    with scratch_folder() as root:
        for seed in asked.seeds:
            for way in WAYS:
                if any((line["way"], line["k"], line["seed"]) == (way, asked.k, seed) for line in lines()):
                    continue
                line = run(way, asked.k, seed, root)
                with LINES.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(line, file=sys.stderr, flush=True)
    write_report(asked.k)


if __name__ == "__main__":
    main()
