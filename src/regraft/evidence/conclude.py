"""What follows from raw runs: the verdict, on which comparison it rests, and the sentence that says so.

Letters: M runs, N test examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from regraft.evidence.benefits import Benefit, benefits, parts, speed, worth_splitting
from regraft.evidence.labels import label_curve, labels_to_match, power_law
from regraft.evidence.runs import RawRun
from regraft.evidence.stats import Finding, ci95, verdict_against_best
from regraft.tune import RECIPES
from regraft.tune.plan import epochs_and_updates

WHAT = {
    "fresh weights": "the same procedure on random weights",
    "scratch": "the same network trained from scratch",
    "scratch, same updates": "the same network trained from scratch, in as many updates",
}


@dataclass(frozen=True)
class Control:
    """What was reached without the pretrained weights, on the test split.

    Args:
        name: short, as files spell it.
        what: for people.
        correct: right or wrong per run and test example, bool (M, N), or the merit of each answer, float.
        seconds: wall-clock time of one run.
        updates: optimizer steps, 0 where nothing was trained by gradient.
        matched: whether it is the same network, so that the verdict may rest on it.
    """

    name: str
    what: str
    correct: np.ndarray
    seconds: float
    updates: int = 0
    matched: bool = False

    @classmethod
    def of_runs(cls, name: str, runs: Sequence[RawRun]) -> Control:
        """What the runs of one matched arm come to."""
        correct, mean = np.stack([run.correct for run in runs]), float(np.mean([run.seconds for run in runs]))
        return cls(name, WHAT.get(name, name), correct, mean, runs[0].updates, matched=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they go into evidence.json; the interval is of one run on these N examples."""
        runs, n = self.correct.shape
        accuracy = float(self.correct.mean())
        figures = {"accuracy": accuracy, "n": n, "ci95": ci95(self.correct), "runs": runs}
        rest = {"seconds": round(self.seconds, 2), "updates": self.updates, "matched": self.matched}
        return {"name": self.name, "what": self.what, **figures, **rest}


def evidence(
    runs: Sequence[RawRun],
    n_train: int,
    trivial: Sequence[Control] = (),
    *,
    bounded: bool = True,
    remedy: str = "--evidence full",
) -> dict[str, Any]:
    """Everything that follows from the raw runs.

    Args:
        runs: of transfer and of the controls.
        n_train: the number of labelled examples that the verdict is about.
        trivial: controls beside the matched ones.
        bounded: whether what runs had right lies in [0, 1].
        remedy: what would let training from scratch come to its end, should it not have done so.
    """
    here = by_arm([run for run in runs if run.n_train == n_train])
    transfer = here.pop("transfer")
    found = benefits(transfer, here, bounded=bounded)
    end = found["asymptote"]
    hurried = _hurried(here.get("scratch", []), n_train, remedy)
    share = {} if hurried else parts(transfer, here)  # a gain over a control that was cut short says little
    return {
        "verdict": end.finding,
        "rests_on": list(here),
        "control": end.control,
        "difference": end.difference,
        "ci95": list(end.ci95),
        "p": end.p,
        "n": end.n,
        "sentence": " ".join([sentence(end, share), *hurried]),
        "controls": [c.to_dict() for c in (*trivial, *(Control.of_runs(*arm) for arm in here.items()))],
        "benefits": {name: benefit.to_dict() for name, benefit in found.items()},
        "speed": speed(transfer, here),
        "parts": share,
        **_over_labels(runs, n_train),
        "runs": [run.to_dict() for run in runs],
    }


def against_trivial(
    correct: ArrayLike, trivial: Sequence[Control], *, pretrained: bool = True, seed: int = 0
) -> dict[str, Any]:
    """Without matched controls: how far the model is from the better trivial one.

    A linear model tells nothing of the weights, since random ones may beat it too; so the verdict is never "helps".
    It is "hurts" where even the linear model was better.

    Args:
        correct: right or wrong per test example, (N,).
        trivial: one control or more.
        pretrained: whether the model has pretrained weights at all.
        seed: of the bootstrap.

    Example:
        >>> raw = Control("raw pixels", "a linear model on raw pixels", np.arange(100)[None] < 50, 0.1)
        >>> [against_trivial(np.arange(100) < right, [raw])["verdict"] for right in (90, 20)]
        ['no difference', 'hurts']
    """
    found = verdict_against_best(correct, {c.name: c.correct[0] for c in trivial}, seed=seed)
    finding: Finding = "hurts" if found.verdict == "hurts" and pretrained else "no difference"
    span = _span(found.difference, found.ci95, found.n)
    what = next(c.what for c in trivial if c.name == found.control)
    why = "no control with the same network was run" if pretrained else "the model has no pretrained weights"
    opening = "Transfer was not measured" if pretrained else "There is no transfer"
    beside = f"{opening}: {why}. Against {what} the model has {span}."
    said = {"sentence": f"Transfer hurts: {span} against {what}; {why}." if finding == "hurts" else beside}
    rests = {"rests_on": [c.name for c in trivial], "controls": [c.to_dict() for c in trivial]}
    return {**found.to_dict(), "verdict": finding, **rests, **said}


def by_arm(runs: Sequence[RawRun]) -> dict[str, list[RawRun]]:
    """Runs by the name of their arm, each in the order of its seeds."""
    groups: dict[str, list[RawRun]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        groups.setdefault(run.arm, []).append(run)
    return groups


def sentence(end: Benefit, share: Mapping[str, float]) -> str:
    """The verdict for people, with what belongs to the procedure and what to the weights."""
    opening = {
        "helps": "Transfer helps",
        "no difference": "Transfer makes no difference that these examples could show",
        "hurts": "Transfer hurts",
    }[end.finding]
    text = f"{opening}: {_span(end.difference, end.ci95, end.n)} against {WHAT.get(end.control, end.control)}."
    if not worth_splitting(share):
        return text
    total, procedure, weights = (100 * share[name] for name in ("over_scratch", "procedure", "weights"))
    whose = f"{procedure:+z.1f} belong to the procedure and {weights:+z.1f} to the weights"
    return f"{text} Of {total:+z.1f} points over training from scratch, {whose}."


def _span(difference: float, ends: tuple[float, float] | None, n: int) -> str:
    interval = f"95 % interval {100 * ends[0]:+z.1f} to {100 * ends[1]:+z.1f}, " if ends else ""
    return f"{100 * difference:+z.1f} points ({interval}N = {n})"


def _hurried(scratch: Sequence[RawRun], n_train: int, remedy: str) -> list[str]:
    """A control that had too little time is said to have had too little."""
    _, planned = epochs_and_updates(RECIPES["scratch"], n_train)
    done = min((run.updates for run in scratch), default=0)
    if done >= 0.9 * planned:
        return []
    had = f"had time for {done} of its {planned} updates" if scratch else "was left out for want of time"
    return [f"Training from scratch {had}; {remedy} lets it finish."]


def _over_labels(runs: Sequence[RawRun], n_train: int) -> dict[str, Any]:
    """Learning curves over labelled examples, of the arms that were run at more than one size."""
    groups = {name: group for name, group in by_arm(runs).items() if len({run.n_train for run in group}) > 1}
    if "transfer" not in groups:
        return {}
    curves = {name: label_curve(group) for name, group in groups.items()}
    laws = {name: power_law(curve) for name, curve in curves.items()}
    target = float(np.mean([run.correct.mean() for run in groups["transfer"] if run.n_train == n_train]))
    needed = {name: labels_to_match(target, curve) for name, curve in curves.items() if name != "transfer"}
    return {
        "label_curves": {name: curve.to_dict() for name, curve in curves.items()},
        "power_laws": {name: law.to_dict() for name, law in laws.items() if law},
        "labels_to_match": {"n_train": n_train, **needed},
    }
