"""Forward passes in batches of different sizes: why evaluations and predictions take few rows at once.

    python benchmarks/forward_batches.py [--turns N]

MobileNetV2 from the input, in the `regraft` command's own process settings: 256 pictures, in turns, the fastest of
each. Peak memory is of a process that makes one pass and nothing else.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from dataclasses import replace

import torch
from common import DATA, store, timed

from regraft.cache import Tap
from regraft.cache.runtime import TorchRuntime
from regraft.cache.taps import TapModel
from regraft.cli.process import prepare
from regraft.cut import rows_at_once, trace_source
from regraft.head import LinearHead
from regraft.source import load_source
from regraft.tune import Network, full_network

SOURCE = str(DATA / "weights" / "mobilenetv2_100_imagenet")
N, SIZES, SIDES = 256, (256, 64, 32, 16, 8), (224, 96)


def network(side: int) -> tuple[Network, TapModel]:
    """From pixels to the scores of ten classes, and the frozen pass to three stages."""
    source = load_source(SOURCE)
    source = replace(source, input=replace(source.input, size=(3, side, side)))
    traced = trace_source(source)
    taps = [Tap("blocks.2.2", 4), Tap("blocks.4.2", 2), Tap("bn2", 1)]
    return full_network(source, traced, [Tap("bn2", 1)], LinearHead.zeros(1280, 10)), TapModel(
        traced, taps, source.input
    )


def seconds(side: int, turns: int) -> dict[int, float]:
    """Of N pictures by the size of a batch, the fastest of some turns."""
    model, _ = network(side)
    rows, best = torch.randint(0, 255, (N, 3, side, side)).float(), dict.fromkeys(SIZES, float("inf"))
    with torch.inference_mode():
        for _ in range(turns):
            for size in SIZES:
                began = time.perf_counter()
                for first in range(0, N, size):
                    model(rows[first : first + size])
                best[size] = min(best[size], time.perf_counter() - began)
    return best


def peak(side: int, size: int) -> float:
    """MiB of a process that makes one pass."""
    return timed([sys.executable, __file__, "--pass", str(side), str(size)]).result


def frozen_pass(side: int, turns: int) -> tuple[float, float]:
    """Seconds of N pictures by the PyTorch runtime in batches of 64, parted and whole."""
    _, model = network(side)
    rows = torch.randint(0, 255, (64, 3, side, side), dtype=torch.uint8).numpy()
    parted, whole = TorchRuntime(model), TorchRuntime(model)
    whole._at_once = 64
    best = [float("inf")] * 2
    for _ in range(turns):
        for i, runtime in enumerate((parted, whole)):
            began = time.perf_counter()
            for _ in range(N // 64):
                runtime.run(rows)
            best[i] = min(best[i], time.perf_counter() - began)
    return best[0], best[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--pass", dest="one", nargs=2, type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    prepare()
    if asked.one:
        side, size = asked.one
        with torch.inference_mode():
            network(side)[0](torch.zeros(size, 3, side, side))
        print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
        return
    rows, taken = [], {side: rows_at_once(network(side)[0]) for side in SIDES}
    # First, as a process counts what the one that began it had at that time.
    peaks = {side: [f"{peak(side, size):.0f}" for size in (taken[side], 256)] for side in SIDES}
    for side in SIDES:
        best, parted = seconds(side, asked.turns), frozen_pass(side, asked.turns)
        rows.append(
            [side, *(f"{best[size]:.2f}" for size in SIZES), taken[side], *(f"{s:.2f}" for s in parted), *peaks[side]]
        )
    header = ["pixels", *(f"batches of {size}, s" for size in SIZES), "rows_at_once"]
    header += ["frozen pass by PyTorch, parted, s", "in batches of 64, s", "peak of one batch, MiB", "of 256, MiB"]
    store("forward_batches", header, rows, f"{N} pictures, fastest of {asked.turns} turns.")


if __name__ == "__main__":
    main()
