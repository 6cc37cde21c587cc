"""What pretraining without labels is worth: many pictures, few of them labelled.

    python benchmarks/pretraining.py [--epochs N] [--k K] [--seeds N ...]

All training pictures of cifar10_small (2,000) are learnt from without their labels, by each objective; then `auto`
gets K labelled ones of each class, and its test accuracy is compared with that of the same network with random weights,
of training from scratch on the same K, and of a source that was pretrained on all 2,000 with their labels, which nobody
has who needs this.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

from common import DATA, REGRAFT, scratch_folder, store, timed

from regraft.source import load_source, with_random_weights, write_source

PICTURES = str(DATA / "datasets" / "cifar10_small")
ARCH = "regraft:cifar10-resnet20"
OBJECTIVES = ("rotation", "corrupted", "supervised")


def pretrained(objective: str, epochs: int, out: Path) -> tuple[Path, float, float]:
    """The new source, its accuracy at what it learnt, and the seconds it took."""
    asked = ["--objective", objective, "--arch", ARCH, "--epochs", str(epochs), "--out", str(out / objective)]
    done = timed([*REGRAFT, "pretrain", PICTURES, *asked, "--json"])
    return out / objective, done.result["test_accuracy"], done.seconds


def fitted(source: Path | str, k: int, seed: int, work: Path, recipe: str = "auto") -> float:
    """Test accuracy with K labelled pictures of each class."""
    out = work / f"{Path(source).name}-{recipe}-{k}-{seed}"
    flags = ["--per-class", str(k), "--seed", str(seed), "--recipe", recipe, "--evidence", "off", "--out", str(out)]
    done = timed([*REGRAFT, "fit", PICTURES, "--source", str(source), *flags, "--json"], cache=work / "cache")
    return done.result["test"]["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    asked = parser.parse_args()
    rows = []
    with scratch_folder() as work:
        random = work / "random"
        random.mkdir()
        write_source(random, with_random_weights(load_source(ARCH), seed=0))
        found = {"random weights": [fitted(random, asked.k, seed, work) for seed in asked.seeds]}
        found["from scratch"] = [fitted(random, asked.k, seed, work, "scratch") for seed in asked.seeds]
        rows = [[name, "", "", *_shown(reached)] for name, reached in found.items()]
        for objective in OBJECTIVES:
            source, learnt, seconds = pretrained(objective, asked.epochs, work)
            reached = [fitted(source, asked.k, seed, work) for seed in asked.seeds]
            rows.append([objective, f"{100 * learnt:.1f}", f"{seconds:.0f}", *_shown(reached)])
    note = (
        f"ResNet-20 at 32 pixels, {asked.epochs} epochs on 2,000 pictures, then auto with {asked.k} labelled ones of "
        f"each class; test accuracy, %, seeds {', '.join(map(str, asked.seeds))}."
    )
    header = ["pretrained by", "accuracy at what it learnt, %", "seconds", "with few labels, %", "of each seed"]
    store("pretraining", header, rows, note)


def _shown(reached: list[float]) -> list[str]:
    return [f"{100 * mean(reached):.1f}", " ".join(f"{100 * one:.1f}" for one in reached)]


if __name__ == "__main__":
    main()
