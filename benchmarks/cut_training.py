"""Training above a cut: from cached activations, and with the frozen layers computed in every epoch.

ResNet-18 above layer3, 200 photos at 224 x 224, same plan, same seed; what differs is where the rows come from.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from statistics import median

from common import DATA, scratch_folder, store

from regraft.cache import Tap, frozen_pass
from regraft.data import Transform, read
from regraft.head import LinearHead
from regraft.search import traced_source
from regraft.source import load_source
from regraft.tune import (
    RECIPES,
    CacheRows,
    LiveRows,
    Rows,
    feature_width,
    frozen_prefix,
    resolve,
    train,
    upper_network,
)

EPOCHS, PHOTOS = 5, 200


def main() -> None:
    data = read(DATA / "datasets" / "ants_bees")
    data = replace(data, examples=data.examples[:PHOTOS])
    source = load_source("timm:resnet18", random_weights=True)
    traced = traced_source(source)
    recipe = RECIPES["finetune"].with_(cut="layer3", taps="feature", head="fresh", epochs=EPOCHS, min_updates=0)
    plan = resolve(recipe, source, traced, 2, n_train=len(data))

    def history(rows: Rows):
        head = LinearHead.zeros(feature_width(traced, plan.taps), 2)
        return train(plan, upper_network(plan, source, traced, head), rows, None, seed=0)

    with scratch_folder() as root:
        started = time.perf_counter()
        caches, _ = frozen_pass(data, source, traced, [Tap(plan.cut)], root=root)
        filling = time.perf_counter() - started
        cached = history(CacheRows(caches[Tap(plan.cut)], data.keys, data.labels))
    live = history(LiveRows(data, Transform(source.input), frozen_prefix(plan, source, traced)))
    gap = max(abs(a.train_loss - b.train_loss) for a, b in zip(cached.rows[1:], live.rows[1:], strict=True))
    fast, slow = (median(_epochs(h)) for h in (cached, live))
    rows = [
        ["with the frozen layers in every epoch", f"{slow:.2f}", "1.0"],
        ["from cached activations", f"{fast:.2f}", f"{slow / fast:.1f}"],
    ]
    note = (
        f"Median of {EPOCHS} epochs, {len(data)} photos. Filling the cache took {filling:.1f} s, once. "
        f"Largest difference of the training losses: {gap:.1e}."
    )
    store("cut_training", ["rows", "seconds per epoch", "times as fast"], rows, note)


def _epochs(history) -> list[float]:
    clock = [row.seconds for row in history.rows]
    return [after - before for before, after in pairwise(clock)]


if __name__ == "__main__":
    main()
