"""Raw runs: what one model answered on the test split, at one or more points of its training.

Everything that evidence says follows from these, so they are kept as they are, one file each, the moment they end.

Letters: N test examples.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from regraft.digest import digest_json
from regraft.run import read_object, write_atomic


@dataclass(frozen=True)
class Point:
    """One evaluation on the test split.

    Args:
        updates: optimizer steps done.
        seconds: wall-clock time since the run began.
        correct: right or wrong per test example, bool (N,); of other tasks than classification the merit of each
            (`Task.merits`), float (N,).
    """

    updates: int
    seconds: float
    correct: np.ndarray

    @property
    def accuracy(self) -> float:
        """Fraction right, or the mean merit."""
        return float(self.correct.mean())


@dataclass(frozen=True)
class RawRun:
    """One model's way on the test split; nothing was chosen by it.

    Args:
        arm: "transfer", or the name of a control.
        seed: of the training subset, the order and, for controls, the fresh weights.
        n_train: labelled examples it learned from.
        points: in order; a head in closed form has one, after no update.
        kept: which point's weights validation chose.
        seconds: wall-clock time of the whole run.
    """

    arm: str
    seed: int
    n_train: int
    points: tuple[Point, ...]
    kept: int = -1
    seconds: float = 0.0

    @property
    def correct(self) -> np.ndarray:
        """What the kept weights had right, bool (N,), or the merit of each answer, float (N,)."""
        return self.points[self.kept].correct

    @property
    def updates(self) -> int:
        """Optimizer steps in all."""
        return self.points[-1].updates

    def to_dict(self) -> dict[str, Any]:
        """Plain values; right and wrong as hexadecimal digits, eight examples to two of them; merits as numbers."""
        points = [
            {"updates": p.updates, "seconds": round(p.seconds, 3), "accuracy": p.accuracy, "correct": _plain(p.correct)}
            for p in self.points
        ]
        return {
            "arm": self.arm,
            "seed": self.seed,
            "n_train": self.n_train,
            "seconds": round(self.seconds, 3),
            "kept": self.kept % len(self.points),
            "n": len(self.correct),
            "points": points,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RawRun:
        """The inverse of `to_dict`.

        Example:
            >>> run = RawRun("scratch", 0, 50, (Point(0, 0.0, np.array([True, False, True])),))
            >>> RawRun.from_dict(run.to_dict()).correct.tolist()
            [True, False, True]
        """
        points = tuple(Point(p["updates"], p["seconds"], _bits(p["correct"], values["n"])) for p in values["points"])
        return cls(values["arm"], values["seed"], values["n_train"], points, values["kept"], values["seconds"])


def _plain(correct: np.ndarray) -> str | list[float]:
    if correct.dtype != bool:
        return correct.astype(np.float64).round(6).tolist()
    return np.packbits(correct).tobytes().hex()


def _bits(text: str | list[float], n: int) -> np.ndarray:
    if isinstance(text, list):
        return np.array(text, np.float64)
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=n).astype(bool)


class Name(NamedTuple):
    """What one run is known by among those of one measurement."""

    arm: str
    seed: int
    n_train: int


class RunStore:
    """Runs on disk, one file each: an interrupted measurement goes on after the last one that ended.

    Args:
        folder: where; made when the first run is kept. None keeps nothing.
        belongs_to: what the runs are about (keys of the test examples, source); others are not taken up again.
    """

    def __init__(self, folder: Path | None, belongs_to: Sequence[Any] = ()) -> None:
        self._folder = folder
        self._mark = digest_json(list(belongs_to))[:16]

    def get(self, arm: str, seed: int, n_train: int, make: Callable[[], RawRun]) -> RawRun:
        """The run that was kept under these three, else a new one, which is kept before it is returned."""
        name = Name(arm, seed, n_train)
        (run,) = self.get_all([name], lambda names: [make() for _ in names])
        return run

    def get_all(self, names: Sequence[Name], make: Callable[[Sequence[Name]], Iterable[RawRun]]) -> list[RawRun]:
        """Runs in the order of their names: those that were kept, and new ones, each of which is kept when it ends.

        Args:
            names: of the runs.
            make: those that were not kept, in their order.
        """
        found = {name: run for name in names if (run := self._kept(name))}
        missing = [name for name in names if name not in found]
        for name, made in zip(missing, make(missing) if missing else (), strict=True):
            found[name] = replace(made, arm=name.arm, seed=name.seed, n_train=name.n_train)
            self._keep(name, found[name])
        return [found[name] for name in names]

    def _kept(self, name: Name) -> RawRun | None:
        path = self._path(name)
        held = read_object(path) if path and path.is_file() else {}
        return RawRun.from_dict(held) if held.get("belongs_to") == self._mark else None

    def _keep(self, name: Name, run: RawRun) -> None:
        if path := self._path(name):
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, json.dumps(run.to_dict() | {"belongs_to": self._mark}))

    def _path(self, name: Name) -> Path | None:
        arm = name.arm.replace(", ", "-").replace(" ", "-")
        return self._folder and self._folder / f"{arm}-{name.n_train}-{name.seed}.json"
