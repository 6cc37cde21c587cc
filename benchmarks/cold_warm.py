"""A cold probe beside its parts: decoding alone, the bare forward pass alone; then the same probe again, warm.

The bare forward pass is the chosen runtime on pictures that are already decoded, compiled before the clock starts.
"""

from __future__ import annotations

import time

import numpy as np
from common import DATA, REGRAFT, scratch_folder, store, timed

from regraft.cache.runtime import build
from regraft.cache.taps import TapModel
from regraft.data import Transform, decode, read
from regraft.probe import taps_wanted
from regraft.search import Means, look_at, traced_source
from regraft.source import load_source

SOURCE = DATA / "weights" / "mobilenetv2_100_imagenet"
SETS = ("ants_bees", "sign_digits", "cifar10/test.parquet")


def seconds_of(run) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def measure(name: str) -> list[str]:
    root = DATA / "datasets" / name
    data, source = read(root), load_source(str(SOURCE))
    decoding = seconds_of(lambda: [pixels for _, pixels in decode(data, Transform(source.input))])
    batches = [pixels for _, pixels in decode(data, Transform(source.input))]
    traced = traced_source(source)
    model = TapModel(traced, taps_wanted(traced), source.input).eval()
    runtime = build(model, "openvino", "cpu", source.input.size).runtime
    runtime.run(batches[0])
    forward = seconds_of(lambda: [runtime.run(batch) for batch in batches])
    batches.clear()
    with scratch_folder() as folder:
        means = Means(folder / "in-process")
        cold = seconds_of(lambda: look_at(read(root), load_source(str(SOURCE)), means))
        warm = seconds_of(lambda: look_at(read(root), load_source(str(SOURCE)), means))
        words = [*REGRAFT, "probe", str(root), "--source", str(SOURCE), "--json"]
        first, second = (timed(words, cache=folder / "process") for _ in range(2))
    assert second.result[0]["cache_computed"] == 0
    parts = decoding + forward
    figures = [len(data), decoding, forward, cold, cold / parts, warm, warm / cold]
    return [name, *(f"{np.round(x, 2)}" for x in (*figures, first.seconds, second.seconds))]


def main() -> None:
    header = [
        "data",
        "pictures",
        "decoding, s",
        "bare forward, s",
        "cold probe, s",
        "/ parts",
        "warm probe, s",
        "/ cold",
    ]
    header += ["cold process, s", "warm process, s"]
    note = "MobileNetV2 at 224 x 224; one run each. The last two columns include starting Python and PyTorch."
    store("cold_warm", header, [measure(name) for name in SETS], note)


if __name__ == "__main__":
    main()
