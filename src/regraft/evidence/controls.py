"""Controls: what the same examples give without the pretrained weights.

Letters: N test examples, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from regraft.data import Transform, load_pixels
from regraft.evidence.stats import verdict, wilson
from regraft.probe.control import SIDE, raw_pixels, small_pixels
from regraft.search import Means, Trial, again, probe_trial, randomised, train_trial
from regraft.tune import RECIPES


@dataclass(frozen=True)
class Control:
    """What was reached without the pretrained weights, on the test split.

    Args:
        name: short, as files spell it.
        what: for people.
        correct: right or wrong per test example, (N,).
        seconds: wall-clock time it took.
        updates: optimizer steps, 0 where nothing was trained by gradient.
        matched: whether it controls for the weights, so that the verdict may rest on it.
    """

    name: str
    what: str
    correct: np.ndarray
    seconds: float
    updates: int = 0
    matched: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they go into evidence.json."""
        n, right = len(self.correct), int(self.correct.sum())
        figures = {"accuracy": right / n, "n": n, "ci95": list(wilson(right, n))}
        rest = {"seconds": round(self.seconds, 2), "updates": self.updates, "matched": self.matched}
        return {"name": self.name, "what": self.what, **figures, **rest}


def measure(chosen: Trial, correct: np.ndarray, means: Means, *, seconds: float, quick: bool = True) -> dict[str, Any]:
    """Compare a delivered model with its controls on the test split.

    Args:
        chosen: the delivered trial.
        correct: right or wrong per test example, (N,).
        means: seed, device, listener.
        seconds: that the transfer took; the controls share about as many.
        quick: False leaves out the controls that need the network (same plan with fresh weights, scratch).

    Returns:
        The content of evidence.json: verdict, the numbers behind it, every control.
    """
    controls = [
        _timed("majority", "always the commonest class", lambda: _majority(chosen)),
        _timed("raw pixels", "a linear model on raw pixels", lambda: _raw(chosen, means.seed)),
    ]
    if quick and chosen.probe is not None:
        started = time.perf_counter()
        what = "the same plan on random weights"
        controls.append(_timed("fresh weights", what, lambda: _fresh_weights(chosen, means, seconds / 2), matched=True))
        # An untrained network is no control: training from scratch gets half the time whatever the other one took.
        left = max(seconds / 2, seconds - (time.perf_counter() - started))
        what = "the same network from scratch, in about the time of the fit"
        controls.append(_timed("scratch", what, lambda: _scratch(chosen, means, left), matched=True))
    return evidence(correct, controls, means.seed)


def evidence(correct: np.ndarray, controls: list[Control], seed: int) -> dict[str, Any]:
    """The verdict against the best control that is matched; against the best of all where none is."""
    matched = [control for control in controls if control.matched] or controls
    best = max(matched, key=lambda control: control.correct.mean())
    found = verdict(correct, best.correct, control=best.name, seed=seed)
    return {
        **found.to_dict(),
        "sentence": _sentence(found, best),
        "controls": [c.to_dict() for c in controls],
    }


def _sentence(found: Any, best: Control) -> str:
    low, high = (100 * end for end in found.ci95)
    span = f"{100 * found.difference:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}, N = {found.n})"
    opening = {
        "helps": "Transfer helps",
        "no difference": "Transfer makes no difference that these examples could show",
        "hurts": "Transfer hurts",
    }[found.verdict]
    against = "" if best.matched else "; no control with the same network was run"
    return f"{opening}: {span} against {best.what}{against}."


def _timed(name: str, what: str, run: Callable[[], tuple[np.ndarray, int]], *, matched: bool = False) -> Control:
    started = time.perf_counter()
    correct, updates = run()
    return Control(name, what, correct, time.perf_counter() - started, updates, matched)


def _majority(chosen: Trial) -> tuple[np.ndarray, int]:
    features = chosen.prospect.features
    return features.labels("test") == np.bincount(features.labels("train")).argmax(), 0


def _raw(chosen: Trial, seed: int) -> tuple[np.ndarray, int]:
    features, spec = chosen.prospect.features, chosen.prospect.source.input
    height, width = (min(side, SIDE) for side in spec.size[1:])
    transform = Transform(replace(spec, size=(spec.size[0], height, width)))  # no larger than the control looks at
    train, test = (load_pixels(features.data.split(split), transform) for split in ("train", "test"))
    y, truth = features.labels("train"), features.labels("test")
    _, fitted = raw_pixels(train, y, test, truth, chosen.plan.n_classes, seed=seed)
    with torch.no_grad():
        scores = fitted.head(torch.from_numpy(small_pixels(test)))
    return scores.argmax(1).numpy() == truth, 0


def _fresh_weights(chosen: Trial, means: Means, seconds: float) -> tuple[np.ndarray, int]:
    """The delivered plan again, on the same architecture with fresh weights: what the procedure alone gives."""
    prospect = randomised(chosen.prospect, means)
    probe = again(chosen, prospect, means.seed)
    if chosen.history is None:
        trial = probe_trial(prospect, chosen.plan.recipe, chosen.plan.n_classes, probe)
    else:
        recipe = chosen.plan.recipe.with_(cut=chosen.plan.cut)
        trial = train_trial(prospect, recipe, chosen.plan.n_classes, means, probe=probe, time_limit=seconds)
    return _correct(trial)


def _scratch(chosen: Trial, means: Means, seconds: float) -> tuple[np.ndarray, int]:
    """Every layer trained from fresh weights, with rates of its own, for as long as the transfer took."""
    prospect = randomised(chosen.prospect, means)
    return _correct(train_trial(prospect, RECIPES["scratch"], chosen.plan.n_classes, means, time_limit=seconds))


def _correct(trial: Trial) -> tuple[np.ndarray, int]:
    right = trial.probabilities("test").argmax(1) == trial.prospect.features.labels("test")
    return right, trial.history.rows[-1].updates if trial.history else 0
