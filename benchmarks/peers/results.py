"""Every run as a line of JSON, and the table made of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from cells import CELLS
from contestants import CONTESTANTS

AUTO, PATIENT = "auto", "auto, 10 min"
OUR_RECIPES = ("probe", "finetune", "gradual", "naive", "scratch")
ALL_SEEDS = ("probe", "finetune")  # which of them a seed must have to count for the regret
SEEDS = (0, 1, 2)  # of the comparison; further ones are for the cells in which three leave a doubt


@dataclass(frozen=True)
class Line:
    """One run.

    Args:
        cell: such as "sign_digits-5".
        contestant: name.
        setting: of the contestant.
        seed: of the subset and of all that was drawn.
        quiet: whether nothing else ran, so that the time counts.
        accuracy: on the test split, a fraction.
        right: one character for each test picture, sorted by path: "1" if the answer was right.
        seconds: wall time of the whole process.
        commit: of this repository, "-dirty" if the package had changes.
        facts: more about the run: for ours, what was delivered and its accuracy on validation.
    """

    cell: str
    contestant: str
    setting: str
    seed: int
    quiet: bool
    accuracy: float
    right: str
    seconds: float
    commit: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, int, bool]:
        """What is not run again."""
        return self.cell, self.contestant, self.setting, self.seed, self.quiet


@dataclass(frozen=True)
class Results:
    """The lines of a file; of two with the same key the later one counts."""

    path: Path

    def append(self, line: Line) -> None:
        """Add a run; what was there stays."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(line)) + "\n")

    def lines(self) -> dict[tuple[str, str, str, int, bool], Line]:
        """By key."""
        if not self.path.is_file():
            return {}
        texts = self.path.read_text(encoding="utf-8").splitlines()
        return {line.key: line for line in (Line(**json.loads(text)) for text in texts)}


@dataclass(frozen=True)
class Score:
    """What a contestant reached in a cell, with one setting.

    Args:
        setting: of the contestant.
        runs: seed to its line.
    """

    setting: str
    runs: dict[int, Line]

    @cached_property
    def mean(self) -> float:
        """Test accuracy over the seeds."""
        return mean(line.accuracy for line in self.runs.values())

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f}"


def difference(one: Score, other: Score) -> tuple[float, float]:
    """Mean difference of two scores over the seeds both have, and its standard error over the test pictures.

    The pictures are the same for both, so what is easy or hard for both does not count; the seeds of one picture are
    averaged first, as they are not independent.
    """
    common = sorted(set(one.runs) & set(other.runs))
    of_pictures = np.mean([_right(one.runs[s]) - _right(other.runs[s]) for s in common], axis=0)
    return float(of_pictures.mean()), float(of_pictures.std() / np.sqrt(len(of_pictures)))


def over_seeds(one: Score, other: Score) -> tuple[float, float]:
    """Mean difference of two scores over the seeds both have, and its standard error over these seeds."""
    common = sorted(set(one.runs) & set(other.runs))
    of_seeds = [one.runs[s].accuracy - other.runs[s].accuracy for s in common]
    return mean(of_seeds), stdev(of_seeds) / sqrt(len(of_seeds))


def _right(line: Line) -> np.ndarray:
    return np.array([int(c) for c in line.right], dtype=float)


class Table:
    """Scores by cell and contestant, and the report made of them."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.timed = [line for line in lines if line.quiet]
        self._runs = _by_setting(line for line in lines if line.seed in SEEDS)
        self._with_all_seeds = _by_setting(lines)

    def default(self, cell: str, contestant: str) -> Score | None:
        """With the documented default."""
        runs = self._runs.get((cell, contestant), {}).get("default")
        return Score("default", runs) if runs else None

    def best(self, cell: str, contestant: str) -> Score | None:
        """With the setting that was best on the test split, in its favour; None until all of them were run."""
        scores = [Score(name, runs) for name, runs in self._runs.get((cell, contestant), {}).items()]
        complete = len(scores) == len(CONTESTANTS[contestant].settings)
        return max(scores, key=lambda score: score.mean) if complete else None

    def report(self) -> str:
        """All tables, as Markdown."""
        parts = [self._accuracies(), self._auto_against(), self._regret(), self._more_seeds(), self._times()]
        parts.append(_settings())
        return "\n\n".join(part for part in parts if part)

    def _accuracies(self) -> str:
        rows = []
        for contestant in CONTESTANTS.values():
            if contestant.name == "auto with evidence":
                continue
            rows.append(self._row(contestant.name, [self.default(cell, contestant.name) for cell in CELLS]))
            if len(contestant.settings) > 1:
                best = [self.best(cell, contestant.name) for cell in CELLS]
                rows.append(self._row(f"{contestant.name}, best of {len(contestant.settings)}", best))
        return "## Test accuracy, %\n\n" + markdown(["", *CELLS, "mean", "seeds"], [row for row in rows if row])

    def _row(self, name: str, scores: Sequence[Score | None]) -> list[str]:
        found = [score for score in scores if score]
        if not found:
            return []
        average = f"{100 * mean(score.mean for score in found):.1f}" if len(found) == len(scores) else "–"
        seeds = {len(score.runs) for score in found}
        return [name, *(str(score or "–") for score in scores), average, " to ".join(map(str, sorted(seeds)))]

    def _auto_against(self) -> str:
        rivals = {
            "best peer, at its default": [(name, self.default) for name in _peers()],
            "best peer, best setting": [(name, self.best) for name in _peers()],
            "our best fixed recipe": [(name, self.default) for name in OUR_RECIPES],
        }
        rows = [row for what, candidates in rivals.items() for row in self._against(what, candidates)]
        header = ["cell", "auto against", "which", "auto minus it, points", "standard error", "auto is below it"]
        return "## Auto against the best of the others\n\n" + markdown(header, rows)

    def _against(self, what: str, candidates: Sequence[tuple[str, Any]]) -> list[list[str]]:
        rows, differences = [], []
        for cell in CELLS:
            auto = self.default(cell, AUTO)
            scores = {name: score for name, find in candidates if (score := find(cell, name))}
            if auto is None or not scores:
                continue
            name = max(scores, key=lambda n: scores[n].mean)
            points, se = difference(auto, scores[name])
            differences.append(points)
            which = name if scores[name].setting == "default" else f"{name} ({scores[name].setting})"
            verdict = "no" if points >= 0 else "yes" if points < -se else "within one standard error"
            rows.append([cell, what, which, f"{100 * points:+.1f}", f"{100 * se:.1f}", verdict])
        if differences:
            rows.append([f"mean of {len(differences)}", what, "", f"{100 * mean(differences):+.1f}", "", ""])
        return rows

    def _regret(self) -> str:
        """What is lost by auto's choice; for each seed the best recipe is chosen by test accuracy, as nobody can."""
        rows, regrets = [], []
        for cell in CELLS:
            scores = {name: found for name in (AUTO, *OUR_RECIPES) if (found := self.default(cell, name))}
            if not {AUTO, *ALL_SEEDS} <= scores.keys():
                continue
            seeds = sorted(set.intersection(*(set(scores[name].runs) for name in (AUTO, *ALL_SEEDS))))
            reached = [scores[AUTO].runs[seed].accuracy for seed in seeds]
            best = [max(s.runs[seed].accuracy for s in scores.values() if seed in s.runs) for seed in seeds]
            regrets.append(mean(best) - mean(reached))
            shown = [f"{100 * mean(values):.1f}" for values in (reached, best)]
            others = [f"{name} ({len(scores[name].runs)})" for name in OUR_RECIPES if name in scores]
            rows.append([cell, ", ".join(map(str, seeds)), ", ".join(others), *shown, f"{100 * regrets[-1]:.1f}"])
        if not rows:
            return ""
        rows.append([f"mean of {len(rows)}", *[""] * 4, f"{100 * mean(regrets):.1f}"])
        title = "## Regret: auto against the best of our recipes and itself, by test accuracy, for each seed"
        header = ["cell", "seeds", "recipes (runs)", "auto", "best", "regret, points"]
        return f"{title}\n\n{markdown(header, rows)}"

    def _more_seeds(self) -> str:
        """Where more seeds were run: among three, one lucky training is worth more than a standard error."""
        rows = []
        for cell in CELLS:
            auto, *others = (self._with_all_seeds.get((cell, name), {}).get("default") for name in (AUTO, *OUR_RECIPES))
            for name, runs in zip(OUR_RECIPES, others, strict=True):
                if auto and runs and len(set(auto) & set(runs)) > len(SEEDS):
                    ours, other = Score("default", auto), Score("default", runs)
                    (points, se), n = over_seeds(ours, other), len(set(auto) & set(runs))
                    rows.append([cell, name, str(n), str(ours), str(other), f"{100 * points:+.1f}", f"{100 * se:.1f}"])
        header = ["cell", "recipe", "seeds", "auto", "recipe, %", "auto minus it, points", "standard error over seeds"]
        return f"## More seeds\n\n{markdown(header, rows)}" if rows else ""

    def _times(self) -> str:
        if not self.timed:
            return "## Wall time\n\nNot yet measured with nothing else running: `run.py --quiet`."
        names = [name for name in CONTESTANTS if any(line.contestant == name for line in self.timed)]
        runs: dict[tuple[str, str], list[float]] = {}
        for line in self.timed:
            runs.setdefault((line.cell, line.contestant), []).append(line.seconds)
        seconds = {who: mean(found) for who, found in runs.items()}
        rows = []
        for cell in CELLS:
            took = [seconds.get((cell, name)) for name in names]
            auto, fastai = seconds.get((cell, AUTO)), seconds.get((cell, "fastai"))
            ratio = f"{auto / fastai:.2f}" if auto and fastai else "–"
            rows.append([cell, *(f"{t:.1f}" if t else "–" for t in took), ratio])
        title = "## Wall time of the whole process, seconds, nothing else running (mean of what was timed)"
        return f"{title}\n\n" + markdown(["cell", *names, "auto / fastai"], rows)


def _by_setting(lines: Iterable[Line]) -> dict[tuple[str, str], dict[str, dict[int, Line]]]:
    """Seed to line by (cell, contestant) and setting."""
    runs: dict[tuple[str, str], dict[str, dict[int, Line]]] = {}
    for line in lines:
        settings = runs.setdefault((line.cell, line.contestant), {})
        # A quiet run is the same run with a time that counts; where there are both, either will do.
        settings.setdefault(line.setting, {}).setdefault(line.seed, line)
    return runs


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _peers() -> list[str]:
    return [name for name, contestant in CONTESTANTS.items() if not contestant.ours]


def _settings() -> str:
    rows = [[c.name, name, what] for c in CONTESTANTS.values() if not c.ours for name, what in c.settings.items()]
    return "## Settings of the peers\n\n" + markdown(["peer", "setting", "what it is"], rows)
