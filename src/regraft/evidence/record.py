"""Writing down what a run found, in the files that `report` reads."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from regraft.data import Dataset
from regraft.probe import DepthProfile, ProbeResult
from regraft.run import RunFolder
from regraft.search import Trial

CURVE_COLUMNS = ("epoch", "updates", "seconds", "train_loss", "val_loss", "val_accuracy")


def data_facts(data: Dataset) -> dict[str, Any]:
    """The content of data.json."""
    return {
        "name": data.name,
        "modality": data.modality,
        **({} if data.task.one_of else {"task": data.task.kind}),
        "classes": list(data.classes),
        "counts": data.counts(),
        "problems": [asdict(problem) for problem in data.problems],
    }


def profile_rows(profile: DepthProfile) -> list[dict[str, Any]]:
    """The content of profile.json: every probe in order of depth."""
    return [_profile_row(result, chosen=result is profile.best) for result in profile.results]


def _profile_row(result: ProbeResult, *, chosen: bool) -> dict[str, Any]:
    taps = result.candidate.taps
    return {
        "stage": " + ".join(dict.fromkeys(tap.cut for tap in taps)),
        "grid": max(tap.grid for tap in taps) or 1,
        "head": result.candidate.head,
        "val_accuracy": result.val_accuracy,
        "score": result.score,
        "se": result.se,
        "cv_accuracy": result.cv_accuracy,
        "seconds": round(result.seconds, 4),
        "dims": result.fitted.head.weight.shape[1],
        "chosen": chosen,
    }


def write_curves(folder: RunFolder, trials: Iterable[Trial]) -> None:
    """Write curves.csv: one row per evaluation of every trial that trained by gradient."""
    with (folder.path / "curves.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*CURVE_COLUMNS, "run"))
        for trial in trials:
            rows = trial.history.rows if trial.history else ()
            writer.writerows((*(getattr(row, name) for name in CURVE_COLUMNS), trial.name) for row in rows)
