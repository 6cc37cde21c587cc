"""Does the order in which sources are ranked hold after fine-tuning? Kendall's tau, and what the first one costs.

Seven networks on three sets of pictures, ten training examples of each class if not told otherwise. Each is fine-tuned
by the recipe `finetune` and measured on the test split; the order is that of `rank`, which sees neither. What is done
is kept as lines of JSON, so that a run can be stopped and taken up again:

    python benchmarks/rank.py --seeds 2                          # everything, about an hour on two quiet cores
    python benchmarks/rank.py --seeds 2 --per-class 25           # with more to learn from
    python benchmarks/rank.py --sets sign_digits --sources lenet # one cell
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from statistics import fmean
from typing import Any

from common import DATA, HERE, store
from scipy.stats import kendalltau

sys.path.insert(0, str(HERE / "peers"))

from cells import Cell, write

from regraft.data import Dataset, read
from regraft.search import Clock, Means, decide, look_at, rank
from regraft.source import Source, load_source
from regraft.tune import RECIPES

SETS = {
    cell.data: cell
    for cell in (
        Cell("ants_bees", 10, spare=40),
        Cell("sign_digits", 10, per_class=(10, 41)),
        Cell("cifar10_small", 10, per_class=(10, 40)),
    )
}
WEIGHTS = DATA / "weights"
SOURCES: dict[str, Callable[[], Source]] = {
    "embedded": lambda: load_source("regraft:cifar10-resnet20"),
    "resnet20": lambda: _resnet("resnet20", "resnet20-12fca82f.th"),
    "resnet56": lambda: _resnet("resnet56", "resnet56-4bfd9763.th"),
    "lenet": lambda: load_source(str(WEIGHTS / "lenet_mnist_caffe")),
    "imagenet": lambda: load_source(str(WEIGHTS / "mobilenetv2_100_imagenet")),
    "insect": lambda: load_source(str(WEIGHTS / "mobilenetv2_100_inat_insect")),
    "bird": lambda: load_source(str(WEIGHTS / "mobilenetv2_100_inat_bird")),
}
POINT = 0.01


def main() -> None:
    asked = _arguments()
    known = _logged(asked.log)
    for seed in range(asked.seeds):
        for name in asked.sets:
            data = read(write(replace(SETS[name], k=asked.per_class), seed, asked.cache))
            where = {"set": name, "seed": seed, "per_class": asked.per_class}
            for line in _cells(where, data, asked.sources, Means(asked.cache, seed=seed), known):
                known.append(line)
                with asked.log.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(line) + "\n")
                print(line, flush=True)
    _tell(known)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--sources", nargs="+", choices=list(SOURCES), default=list(SOURCES))
    parser.add_argument("--log", type=Path, default=HERE / "results" / "rank.jsonl")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "regraft-bench-rank")
    return parser.parse_args()


def _resnet(name: str, file: str) -> Source:
    return load_source(str(WEIGHTS / file), arch=f"regraft.source.cifar_resnet:{name}")


def _logged(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []


def _cells(
    where: dict[str, Any], data: Dataset, sources: Sequence[str], means: Means, known: Sequence[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """What is not known yet of one set under one seed: the order of all sources, and each one fine-tuned."""
    mine = [line for line in known if line.items() >= where.items()]
    if len(sources) == len(SOURCES) and not any("order" in line for line in mine):
        began, uris = time.perf_counter(), {}

        def open_source(source: str) -> Source:
            opened = SOURCES[source]()
            uris[opened.uri] = source
            return opened

        order = [uris[ranked.source] for ranked in rank(data, SOURCES, open_source, means)]
        yield where | {"order": order, "seconds": round(time.perf_counter() - began, 1)}
    done = {line["source"] for line in mine if "source" in line}
    for source in sources:
        if source not in done:
            yield where | {"source": source} | _fine_tuned(data, SOURCES[source](), means)


def _fine_tuned(data: Dataset, source: Source, means: Means) -> dict[str, Any]:
    began = time.perf_counter()
    prospect = look_at(data, source, means)
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock(time.monotonic())
        trial = decide(prospect, RECIPES["finetune"], len(data.classes), means, folder=Path(folder), clock=clock).chosen
    right = trial.probabilities("test").argmax(1) == data.split("test").labels
    seconds = round(time.perf_counter() - began, 1)
    return {
        "accuracy": float(right.mean()),
        "n": len(right),
        "probe": prospect.profile.best.score,
        "cut": trial.plan.cut,
        "seconds": seconds,
    }


def _tell(lines: list[dict[str, Any]]) -> None:
    rows = []
    for per_class in sorted({line["per_class"] for line in lines}):
        rows += _rows(per_class, [line for line in lines if line["per_class"] == per_class])
    header = [
        "set",
        "per class",
        "seeds",
        "Kendall's tau",
        "of sure pairs",
        "fine-tuned once",
        "ours",
        "points behind the best",
        "within 1 point",
        "fine-tuned, test %",
    ]
    store(
        "rank",
        header,
        rows,
        "Recipe finetune; test accuracy is the mean over seeds. Of the 21 pairs, sure ones differ after fine-tuning "
        'by more than a standard error of the difference. "Fine-tuned once": tau of the order that one seed\'s '
        "fine-tuning gives, against the mean of the other seeds.",
    )


def _rows(per_class: int, lines: list[dict[str, Any]]) -> list[list[str]]:
    """One row for each set that is complete, and their mean."""
    rows, taus = [], []
    for name in SETS:
        tuned = [line for line in lines if line["set"] == name and "source" in line]
        orders = [line["order"] for line in lines if line["set"] == name and "order" in line]
        reached = {s: [line["accuracy"] for line in tuned if line["source"] == s] for s in SOURCES}
        if not orders or not all(reached.values()):
            continue
        mean = {source: fmean(accuracies) for source, accuracies in reached.items()}
        tau = fmean(_tau(order, mean) for order in orders)
        ses = {s: _se(mean[s], sum(line["n"] for line in tuned if line["source"] == s)) for s in SOURCES}
        sure, pairs = fmean(_tau_of_sure(order, mean, ses) for order in orders), len(list(_sure_pairs(mean, ses)))
        behind = max(mean.values()) - fmean(mean[order[0]] for order in orders)
        once = _tau_of_one_seed(tuned)
        taus.append((tau, sure, once))
        best = " > ".join(f"{s} {100 * mean[s]:.1f}" for s in sorted(mean, key=lambda s: -mean[s]))
        within = "yes" if behind <= POINT else "no"
        figures = [f"{tau:.2f}", f"{sure:.2f} ({pairs})", f"{once:.2f}", orders[0][0], f"{100 * behind:.1f}"]
        rows.append([name, str(per_class), str(len(orders)), *figures, within, best])
    if rows:
        means = [f"{fmean(column):.2f}" for column in zip(*taus, strict=True)]
        rows.append(["mean", str(per_class), "", *means, "", "", "", ""])
    return rows


def _tau(order: Sequence[str], accuracy: dict[str, float]) -> float:
    return float(kendalltau([-i for i in range(len(order))], [accuracy[source] for source in order]).statistic)


def _tau_of_one_seed(tuned: Sequence[dict[str, Any]]) -> float:
    """How well an order agrees that knows the test accuracy of one seed's fine-tuning: the noise of the target."""
    taus = []
    for seed in sorted({line["seed"] for line in tuned}):
        here = {line["source"]: line["accuracy"] for line in tuned if line["seed"] == seed}
        others = {s: [line["accuracy"] for line in tuned if line["source"] == s and line["seed"] != seed] for s in here}
        if all(others.values()):
            taus.append(_tau(sorted(here, key=lambda s: -here[s]), {s: fmean(each) for s, each in others.items()}))
    return fmean(taus) if taus else math.nan


def _se(accuracy: float, n: int) -> float:
    return math.sqrt(accuracy * (1 - accuracy) / n)


def _sure_pairs(accuracy: dict[str, float], ses: dict[str, float]) -> Iterator[tuple[str, str]]:
    """Pairs, the better first, whose test pictures tell them apart by a standard error."""
    for one, other in permutations(accuracy, 2):
        if accuracy[one] - accuracy[other] > math.hypot(ses[one], ses[other]):
            yield one, other


def _tau_of_sure(order: Sequence[str], accuracy: dict[str, float], ses: dict[str, float]) -> float:
    return fmean(1.0 if order.index(a) < order.index(b) else -1.0 for a, b in _sure_pairs(accuracy, ses))


if __name__ == "__main__":
    main()
