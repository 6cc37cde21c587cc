"""A run folder as a finished run leaves it, made from small numbers."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from regraft.evidence import (
    Control,
    RawRun,
    answers,
    confident_mistakes,
    save_examples,
    verdict,
    wilson,
    write_answers,
)
from regraft.evidence.conclude import evidence
from regraft.evidence.runs import Point

CLASSES = tuple("0123456789")
STAGES = ("conv1", "layer1.0", "layer1.2", "layer2.0", "layer2.2", "layer3.0", "layer3.2", "avgpool")
PEAK = {"ridge": 0.89, "logistic": 0.87, "lda": 0.92}


def write_run(run: Path, seed: int = 0) -> Path:
    """Write every file that `regraft.evidence.report` documents."""
    random = np.random.default_rng(seed)
    run.mkdir(parents=True, exist_ok=True)
    right, control = _test_split(run, random)
    _json(run, "metrics.json", _metrics(right))
    _json(run, "data.json", _data())
    _json(run, "plan.json", _plan())
    _json(run, "profile.json", _profile(random))
    _json(run, "evidence.json", _evidence(right, control))
    why = [
        "layer2.2 pooled on a 4×4 grid reads the classes best on validation.",
        "Fine-tuning above it did not beat the probe by more than its standard error.",
    ]
    _json(run, "decision.json", {"why": why})
    _curves(run)
    return run


def _json(run: Path, name: str, value: object) -> None:
    (run / name).write_text(json.dumps(value), encoding="utf-8")


def _test_split(run: Path, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    n = 360
    labels = np.arange(n) % 10
    scores = random.normal(0, 1, (n, 10))
    scores[np.arange(n), labels] += 3.0
    p = np.exp(1.4 * scores) / np.exp(1.4 * scores).sum(axis=1, keepdims=True)
    keys = [hashlib.sha256(bytes([i % 256, i // 256])).hexdigest() for i in range(n)]
    names = [f"test/{label}/img_{i:04}.png" for i, label in enumerate(labels)]
    rows = answers(keys, names, labels, p, CLASSES)
    write_answers(run / "predictions.csv", rows)
    write_answers(run / "suspects.csv", confident_mistakes(rows)[:2])
    pixels = random.integers(0, 255, (n, 8, 8), dtype=np.uint8)
    save_examples(run, confident_mistakes(rows), lambda key: Image.fromarray(pixels[keys.index(key)]))
    right = np.array([row.correct for row in rows])
    return right, right & (random.random(n) > 0.09)


def _metrics(right: np.ndarray) -> dict:
    return {
        "test": {"accuracy": float(right.mean()), "n": 360, "ci95": wilson(int(right.sum()), 360)},
        "val": {"accuracy": 0.925, "n": 290},
        "source": "regraft:cifar10-resnet20",
        "cut": "layer2.2",
        "recipe": "auto",
        "seed": 0,
        "n_train": 50,
        "wall_s": 14.3,
        "peak_rss_mb": 612.0,
        "cache_hits": 0,
        "cache_computed": 1797,
        "times": {"read": 0.2, "frozen pass": 3.1, "probes": 2.4, "fine-tuning": 6.2, "test": 0.4},
        "sizes": {"model": 1_093_000, "cache": 14_200_000},
    }


def _data() -> dict:
    return {
        "name": "digits",
        "modality": "image",
        "classes": CLASSES,
        "counts": {split: dict.fromkeys(CLASSES, n) for split, n in (("train", 5), ("val", 29), ("test", 36))},
        "problems": [{"kind": "truncated", "name": "train/3/img_0007.png", "detail": "ends after 212 of 400 bytes"}],
    }


def _plan() -> dict:
    return {
        "recipe": {"name": "finetune"},
        "cut": "layer2.2",
        "taps": [{"cut": "layer3.0", "grid": 4}],
        "n_epochs": 12,
        "updates": 48,
        "rows": [
            _plan_row("conv1", 1, 432, "frozen"),
            _plan_row("layer1", 21, 14_016, "frozen"),
            _plan_row("layer2", 21, 51_648, "frozen"),
            _plan_row("layer3.0", 7, 55_424, "trained", 3e-4),
            _plan_row("layer3.1", 14, 147_968, "dropped"),
            _plan_row("head", 2, 10_250, "trained", 1e-3),
            _plan_row("head", 2, 0, "fitted"),
        ],
    }


def _plan_row(group: str, tensors: int, n_params: int, state: str, lr: float = 0.0) -> dict:
    names = [f"body.{group}.{i}" for i in range(tensors)]
    row = {"group": group, "names": names, "n_params": n_params, "state": state, "lr": lr}
    return row | {"weight_decay": 0.05 if lr else 0.0, "batch_norm": "" if group == "head" else "frozen"}


def _profile(random: np.random.Generator) -> list[dict]:
    rows = []
    for depth, stage in enumerate([*STAGES, "layer2.0 + layer2.2", "layer2.2 + layer3.0"]):
        for head, peak in PEAK.items():
            for grid in (1, 2, 4):
                drop = 0.018 * (min(depth, 8) - 4) ** 2 + 0.05 * (4 - grid) / 3 - 0.02 * (depth >= 8)
                value = float(peak - 0.5 * drop + random.normal(0, 0.008))
                rows.append(_probe(stage, grid, head, value))
    max(rows, key=lambda row: row["val_accuracy"])["chosen"] = True
    return rows


def _probe(stage: str, grid: int, head: str, accuracy: float) -> dict:
    probe = {"stage": stage, "grid": grid, "head": head, "dims": 32 * grid * grid, "seconds": 0.034}
    se = (accuracy * (1 - accuracy) / 290) ** 0.5
    return probe | {"val_accuracy": accuracy, "se": se, "cv_accuracy": accuracy - 0.01}


def _evidence(right: np.ndarray, control: np.ndarray) -> dict:
    rows = [
        ("fresh weights", "the same plan on random weights", 0.0),
        ("scratch", "the same network from scratch", 0.05),
        ("raw pixels", "a linear model on raw pixels", 0.04),
        ("majority", "always the commonest class", 0.7),
    ]
    controls = [
        {
            "name": name,
            "what": what,
            "accuracy": float(control.mean()) - less,
            "n": 360,
            "ci95": wilson(int(control.sum() - 360 * less), 360),
            "seconds": 12.0,
        }
        for name, what, less in rows
    ]
    return verdict(right, control, control="fresh weights").to_dict() | {"controls": controls}


def _curves(run: Path) -> None:
    with (run / "curves.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "updates", "seconds", "train_loss", "val_loss", "val_accuracy", "run"])
        for name, start, end in (("layer2.2", 0.915, 0.93), ("from scratch", 0.1, 0.84)):
            for epoch in range(13):
                value = end + (start - end) * 0.7**epoch
                loss = "" if epoch == 0 else 1.2 - value
                writer.writerow([epoch, 4 * epoch, 0.3 * epoch, loss, 1.3 - value, value, name])


def write_proof(run: Path) -> None:
    """Matched controls at three numbers of labels, what breaks by depth, trust.json and looks/."""
    random = np.random.default_rng(3)
    runs = []
    for arm, best in (("transfer", 0.93), ("fresh weights", 0.85), ("scratch", 0.8)):
        for n_train in (20, 40, 50):
            for seed in (0, 1, 2):
                ends = [random.random(360) < best - 4 / n_train * at for at in (3.0, 1.5, 1.0)]
                probe = Point(0, 4.0, ends[-1])
                way = tuple(Point(400 * i, 2.0 * i, right) for i, right in enumerate(ends))
                runs.append(RawRun(arm, seed, n_train, way if arm == "scratch" else (probe,), seconds=4.0))
    depth = [
        {"cut": cut, "variant": variant, "accuracy": right / 360, "ci95": wilson(right, 360), "n": 360, "seconds": 3.0}
        for cut, rights in (("layer1.2", (310, 300, 305)), ("layer2.2", (320, 280, 300)))
        for variant, right in zip(("kept", "parted", "tuned"), rights, strict=True)
    ]
    raw = Control("raw pixels", "a linear model on raw pixels", random.random((1, 360)) < 0.8, 0.5)
    _json(run, "evidence.json", {"level": "full", **evidence(runs, 50, [raw]), "depth": depth})
    before, after = ({"log_loss": 0.4, "ece": ece, "n": 290} for ece in (0.081, 0.03))
    facts = {"n": {"train": 50, "val": 290, "test": 360}, "temperature": 0.71, "before": before, "after": after}
    facts |= {"duplicates": [{"split": "test", "name": "test/a.png", "train": "train/b.png", "cosine": 0.99}]}
    facts |= {"unlike": [{"name": "far.png", "distance": 0.8}], "n_unlike": 4, "right_unlike": 0.5}
    _json(run, "trust.json", facts)
    (run / "looks").mkdir()
    for name, size in (("filters.png", (320, 80)), ("channel-0.jpg", (576, 96)), ("where-0.jpg", (384, 192))):
        Image.fromarray(random.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(run / "looks" / name)
