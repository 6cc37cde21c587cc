"""What no program can leave out that takes a network's inner layers: the floor below `--recipe probe` and `auto`.

Each step is a fresh process that does all steps up to it, without any of regraft: start Python, import what the work
needs, open and export the network, convert it, send the pictures through. Beside it the hand-written script and half
of its time, which is the aim of `probe_vs_sklearn.py`. The fastest of three counts. The last step is no floor: pictures
go through two at a time, after all were decoded, which can be done faster; what comes before the first picture is one.

The second table is about the smallest cell of `peers/run.py`, where auto is to take a third of fastai's time: any graph
that is cut needs PyTorch and its exporter, whatever the network.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from common import HERE, REGRAFT, scratch_folder, store, timed

sys.path.insert(0, str(HERE / "peers"))

STEPS = ("import torch", "import timm, openvino", "open, torch.export", "convert, compile", "decode, forward")
ONE_LAYER = "torch.export of one layer"
PER_CLASS = (10, 40)
TIMES = 3


def carry_out(last: str, folder: str, images: list[str]) -> None:
    """All steps up to one."""
    import torch

    if last == STEPS[0]:
        return
    if last == ONE_LAYER:
        torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(2, 2),), strict=False)
        return
    import openvino
    import timm

    if last == STEPS[1]:
        return
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    exported = torch.export.export(model, (torch.zeros(2, 3, 224, 224),), strict=False)
    if last == STEPS[2]:
        return
    compiled = openvino.compile_model(openvino.convert_model(exported), "CPU")
    if last == STEPS[3]:
        return
    _forward(model, compiled, images)


def _forward(model, compiled, images: list[str]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import timm
    from PIL import Image

    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(lambda path: transform(Image.open(path).convert("RGB")).numpy(), images))
    for first in range(0, len(rows) - 1, 2):
        compiled(np.stack(rows[first : first + 2]))


def fastest(command: list[str]) -> float:
    def once() -> float:
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - began

    return min(once() for _ in range(TIMES))


def row(per_class: int, work: Path) -> list[str]:
    from cells import Cell, write
    from probe_vs_sklearn import image_list

    from regraft.data import read

    cell = Cell("ants_bees", per_class, spare=40)
    root, file = write(cell, 0, work), work / "images.json"
    file.write_text(json.dumps(image_list(read(root), root)))
    steps = [fastest([sys.executable, __file__, step, cell.source, str(file)]) for step in STEPS]
    script = fastest([sys.executable, str(HERE / "by_hand.py"), cell.source, str(file)])
    return [str(per_class), *(f"{seconds:.1f}" for seconds in (*steps, script, script / 2))]


def row_of_smallest(work: Path) -> list[str]:
    """auto in the cell with the smallest network, its floor, and a third of fastai's time."""
    from cells import CELLS, write
    from run import PYTHON

    cell = CELLS["digits-5"]
    root = write(cell, 0, work)
    steps = [fastest([sys.executable, __file__, step, "", ""]) for step in (STEPS[0], ONE_LAYER)]
    fit = [*REGRAFT, "fit", str(root), "--source", cell.source, "--evidence", "off", "--no-cache", "--json", "--out"]
    auto = min(timed([*fit, str(work / str(i))]).seconds for i in range(TIMES))
    fastai = fastest([PYTHON, str(HERE / "peers" / "fastai_fine_tune.py"), str(root), "fastai", "default", "timed"])
    return [cell.name, *(f"{seconds:.1f}" for seconds in (*steps, auto, fastai, fastai / 3))]


def main() -> None:
    note = f"Seconds of whole processes up to each step, the fastest of {TIMES}."
    with scratch_folder() as work:
        rows = [row(per_class, work) for per_class in PER_CLASS]
        smallest = row_of_smallest(work)
    header = ["ants_bees, per class", *STEPS, "script by hand", "half of it"]
    store("floor", header, rows, note)
    header = ["cell", STEPS[0], ONE_LAYER, "regraft fit", "fastai fine_tune(4)", "a third of it"]
    store("floor_of_smallest", header, [smallest], note)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _, step, source, listed = sys.argv
        splits = json.loads(Path(listed).read_text()) if listed else {}
        carry_out(step, source, [path for split in splits.values() for path, _ in split])
        os._exit(0)  # as regraft ends: taking PyTorch apart is no work
    else:
        main()
