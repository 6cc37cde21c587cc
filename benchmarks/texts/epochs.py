"""Training above a cut on texts: from cached tokens, and with the frozen layers computed in every epoch.

    python benchmarks/texts/epochs.py

MiniLM (six layers) on sentences of rt_polarity, same plan, same seed; what differs is where the rows come from.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import scratch_folder, store
from run import TEXTS, minilm

from regraft.cache import Tap, frozen_pass
from regraft.cut import Traced
from regraft.data import Dataset, read, transform_for
from regraft.head import LinearHead
from regraft.search import traced_source
from regraft.source import Source, load_source
from regraft.tune import (
    RECIPES,
    CacheRows,
    History,
    LiveRows,
    Plan,
    Rows,
    batches,
    feature_width,
    frozen_prefix,
    resolve,
    train,
    upper_network,
)
from regraft.tune.rows import epoch_order

EPOCHS, SENTENCES, PASS = 3, 640, 64
CUTS = ("encoder.layer.1", "encoder.layer.3", "encoder.layer.4", "encoder.layer.5.attention")
RECIPE = RECIPES["finetune"].with_(taps="feature", head="fresh", epochs=EPOCHS, min_updates=0)


def main() -> None:
    every = read(TEXTS).split("train")
    data = replace(every, examples=every.examples[:: len(every) // SENTENCES][:SENTENCES])
    source = load_source(minilm())
    traced = traced_source(source)
    rows, gaps = [], []
    for cut in CUTS:
        plan = resolve(RECIPE.with_(cut=cut), source, traced, 2, n_train=len(data))
        cached, live, filling = both(plan, data, source, traced)
        fast, slow = (median(seconds(history)) for history in (cached, live))
        rows.append([cut, f"{slow:.1f}", f"{fast:.1f}", f"{slow / fast:.1f}", f"{filling:.1f}"])
        gaps.append(max(abs(a.train_loss - b.train_loss) for a, b in zip(cached.rows[1:], live.rows[1:], strict=True)))
    texts = LiveRows(every, transform_for(source.input))
    in_pass, in_training = wasted(texts, PASS), wasted(texts, RECIPE.batch_size, epoch_order(len(every), 0, 1))
    note = (
        f"Median of {EPOCHS} epochs of {len(data)} sentences, one thread as OMP_NUM_THREADS says; read the ratios. "
        f"Largest difference of the training losses: {max(gaps):.1e}. Of the tokens computed for "
        f"all {len(every):,} training sentences, padding is {in_pass:.1%} in the frozen pass and {in_training:.1%} in "
        "training."
    )
    header = [
        "trained above",
        "frozen layers in every epoch, s",
        "from cached tokens, s",
        "times as fast",
        "filling, s",
    ]
    store("text_epochs", header, rows, note)


def both(plan: Plan, data: Dataset, source: Source, traced: Traced) -> tuple[History, History, float]:
    """The same training from the cache and with its frozen layers, and the seconds that filling the cache took."""

    def history(rows: Rows) -> History:
        head = LinearHead.zeros(feature_width(traced, plan.taps), 2)
        return train(plan, upper_network(plan, source, traced, head), rows, None, seed=0)

    with scratch_folder() as root:
        began, tap = time.perf_counter(), Tap(plan.cut)
        caches, _ = frozen_pass(data, source, traced, [tap], root=root)
        filling = time.perf_counter() - began
        cached = history(CacheRows(caches[tap], data.keys, data.labels))
    return cached, history(LiveRows(data, transform_for(source.input), frozen_prefix(plan, source, traced))), filling


def seconds(history: History) -> list[float]:
    """Of each epoch."""
    clock = [row.seconds for row in history.rows]
    return [after - before for before, after in pairwise(clock)]


def wasted(rows: Rows, size: int, order: np.ndarray | None = None) -> float:
    """The share of the computed tokens that is padding, where texts are served in batches in some order."""
    assert rows.lengths is not None
    found = [rows.lengths[batch] for batch in batches(rows, size, order)]
    return 1 - sum(batch.sum() for batch in found) / sum(batch.max() * len(batch) for batch in found)


if __name__ == "__main__":
    main()
