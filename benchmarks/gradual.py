"""Gradual unfreezing over five stages: from the cache at each step's cut, and with the frozen layers in every epoch.

ResNet-18, 120 photos at 224 x 224, same plans, same seeds; what differs is where the rows come from. The time with
caches includes filling them, all in one pass.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache

from common import DATA, scratch_folder, store

from regraft.cache import FeatureCache, Tap, frozen_pass
from regraft.data import Dataset, Transform, load_pixels, read
from regraft.search import traced_source
from regraft.source import Source, load_source
from regraft.tune import (
    ArrayRows,
    CacheRows,
    History,
    LiveRows,
    Plan,
    Recipe,
    Rows,
    frozen_prefix,
    starting_head,
    steps,
    train_steps,
    upper_network,
)

EPOCHS, STEPS, PHOTOS = 10, 5, 120


def main() -> None:
    data = read(DATA / "datasets" / "ants_bees")
    data = replace(data, examples=data.examples[:PHOTOS])
    source = load_source("timm:resnet18", random_weights=True)
    traced = traced_source(source)
    recipe = Recipe("gradual", taps="feature", head="fresh", unfreeze=STEPS, epochs=EPOCHS)
    plans = steps(recipe, source, traced, 2, n_train=len(data))

    def run(rows_of) -> tuple[History, float]:
        started = time.perf_counter()
        network_of = lambda plan: upper_network(plan, source, traced, starting_head(plan, traced, None))  # noqa: E731
        _, history = train_steps(plans, network_of, rows_of, seed=0)
        return history, time.perf_counter() - started

    with scratch_folder() as root:

        @cache
        def caches() -> dict[Tap, FeatureCache]:
            """Filled in one pass when the first step asks, as `search.train_trial` does it."""
            return frozen_pass(data, source, traced, [Tap(plan.cut) for plan in plans], root=root)[0]

        def cached(plan: Plan, split: str) -> Rows | None:
            return None if split == "val" else CacheRows(caches()[Tap(plan.cut)], data.keys, data.labels)

        ours, fast = run(cached)
    live, slow = run(lambda plan, split: None if split == "val" else _live(plan, data, source, traced))
    gap = max(abs(a.train_loss - b.train_loss) for a, b in zip(ours.rows, live.rows, strict=True) if a.train_loss)
    rows = [
        ["with the frozen layers in every epoch", f"{slow:.1f}", "1.00"],
        ["from the cache at each step's cut", f"{fast:.1f}", f"{fast / slow:.2f}"],
    ]
    cuts = ", ".join(plan.cut for plan in plans)
    note = f"{EPOCHS} epochs in {len(plans)} steps above {cuts}; one run. Largest difference of the losses: {gap:.1e}."
    store("gradual", ["rows", "seconds", "of the time"], rows, note)


def _live(plan: Plan, data: Dataset, source: Source, traced) -> Rows:
    if plan.cut == "input":
        return ArrayRows(load_pixels(data, Transform(source.input)), data.labels)
    return LiveRows(data, Transform(source.input), frozen_prefix(plan, source, traced))


if __name__ == "__main__":
    main()
