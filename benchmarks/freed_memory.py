"""Steps of a training with and without the settings of `regraft.cli.process`, in turns, each in a fresh process."""

from __future__ import annotations

import json
import resource
import sys
import time
from statistics import median

from common import store, timed

TURNS = 5
SIDES = (96, 224)
BATCH = 32
WAYS = ("as Python is", "as regraft sets it")


def measure(way: str, side: int) -> dict[str, float]:
    """Seconds and page faults of one step, and the peak of memory: MobileNetV2, all layers trained."""
    if way == WAYS[1]:
        from regraft.cli.process import prepare

        prepare()
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model("mobilenetv2_100").train().to(memory_format=torch.channels_last)
    pixels = torch.randn(BATCH, 3, side, side).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)

    def step() -> None:
        optimizer.zero_grad()
        model(pixels).logsumexp(1).sum().backward()
        optimizer.step()

    for _ in range(3):
        step()
    before, began, n = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter(), 4 if side > 96 else 12
    for _ in range(n):
        step()
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    faults = (after.ru_minflt - before.ru_minflt) / n
    return {"seconds": seconds / n, "faults": faults, "peak": after.ru_maxrss / 1024}


def main() -> None:
    rows = []
    for side in SIDES:
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(TURNS):
            for way in WAYS:
                runs[way].append(timed([sys.executable, __file__, way, str(side)]).result)
        ratios = [b["seconds"] / a["seconds"] for a, b in zip(runs[WAYS[0]], runs[WAYS[1]], strict=True)]
        for way in WAYS:
            middle = {key: median(run[key] for run in runs[way]) for key in ("seconds", "faults", "peak")}
            shown = f"{middle['seconds']:.2f}", f"{middle['faults']:,.0f}", f"{middle['peak']:,.0f}"
            ratio = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if way == WAYS[1] else "1"
            rows.append((side, way, *shown, ratio))
    note = f"A step is {BATCH} pictures through MobileNetV2, all of it trained; medians of {TURNS} turns."
    header = ("pixels", "memory", "seconds a step", "page faults", "peak MiB", "seconds, ratio")
    store("freed_memory", header, rows, note)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
    else:
        main()
