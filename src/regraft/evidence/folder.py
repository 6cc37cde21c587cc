"""What a finished run left in its folder, read once and checked; the report needs nothing else."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.errors import RunError
from regraft.evidence.predictions import PICTURES, Answer, read_answers

LOOKS = "looks"


@dataclass(frozen=True)
class Run:
    """A run folder's files as plain values; what is absent is empty. `report` documents every key.

    Args:
        path: the folder.
        metrics: metrics.json.
        data: data.json.
        plan: plan.json.
        profile: profile.json.
        evidence: evidence.json.
        decision: decision.json.
        trust: trust.json.
        curves: rows of curves.csv; numbers are floats, empty cells None.
        answers: rows of predictions.csv.
        suspects: rows of suspects.csv; truth is the given label, predicted the suggested one.
    """

    path: Path
    metrics: dict[str, Any]
    data: dict[str, Any]
    plan: dict[str, Any]
    profile: list[dict[str, Any]]
    evidence: dict[str, Any]
    decision: dict[str, Any]
    trust: dict[str, Any]
    curves: list[dict[str, Any]]
    answers: tuple[Answer, ...]
    suspects: tuple[Answer, ...]

    def picture(self, key: str) -> bytes | None:
        """The thumbnail of an example, if one was kept; only a hash is looked up, never a path."""
        path = self.path / PICTURES / f"{key}.jpg"
        if not (key.isalnum() and key.isascii() and path.is_file()):
            return None
        return path.read_bytes()

    def text(self, key: str) -> str:
        """The beginning of an example that is a text, if it was kept; empty if not."""
        path = self.path / PICTURES / f"{key}.txt"
        if not (key.isalnum() and key.isascii() and path.is_file()):
            return ""
        return path.read_text(encoding="utf-8")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes: as the dataset orders them, then what else the answers mention."""
        listed = self.data.get("classes", [])
        mentioned = {name for row in self.answers for name in (row.truth, row.predicted)}
        return (*listed, *sorted(mentioned - set(listed)))


def read_run(path: Path) -> Run:
    """Read a run folder.

    Args:
        path: a folder that `regraft fit --out` wrote.

    Raises:
        RunError: it is no finished run, or a file in it cannot be read.
    """
    if not (path / "metrics.json").is_file():
        raise RunError(
            f"{path} holds no finished run: metrics.json is missing. "
            f"A run writes it beside its model: regraft fit DATA --out {path}"
        )
    return Run(
        path=path,
        metrics=_json(path / "metrics.json", {}),
        data=_json(path / "data.json", {}),
        plan=_json(path / "plan.json", {}),
        profile=_json(path / "profile.json", []),
        evidence=_json(path / "evidence.json", {}),
        decision=_json(path / "decision.json", {}),
        trust=_json(path / "trust.json", {}),
        curves=_curves(path / "curves.csv"),
        answers=_answers(path / "predictions.csv"),
        suspects=_answers(path / "suspects.csv"),
    )


def _json(path: Path, absent: Any) -> Any:
    if not path.is_file():
        return absent
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is not JSON ({error}). Run it again: regraft fit DATA --out NEW_FOLDER") from error
    if not isinstance(value, type(absent)):
        kind = "list" if isinstance(absent, list) else "object"
        raise RunError(f"{path} must hold a JSON {kind}. Run it again: regraft fit DATA --out NEW_FOLDER")
    return value


def _answers(path: Path) -> tuple[Answer, ...]:
    return read_answers(path) if path.is_file() else ()


def _curves(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: _number(name, cell, path) for name, cell in row.items()} for row in csv.DictReader(file)]


def _number(name: str, cell: str | None, path: Path) -> Any:
    if name == "run":
        return cell or ""
    try:
        return float(cell) if cell else None
    except ValueError as error:
        raise RunError(f"{path}: {cell!r} in column {name} is not a number; leave unknown cells empty.") from error
