"""Controls: what the same examples give without the pretrained weights, and what follows from comparing.

Letters: N test examples, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from regraft.data import Dataset, Transform, load_pixels
from regraft.evidence.arms import Case, delivered, from_scratch, on_fresh_weights, scratch_pace, transferred
from regraft.evidence.benefits import Benefit, benefits, parts, speed
from regraft.evidence.depth import depth_effects
from regraft.evidence.labels import label_curve, labels_to_match, power_law
from regraft.evidence.runs import RawRun, RunStore
from regraft.evidence.stats import verdict_against_best, wilson
from regraft.probe.control import SIDE, raw_pixels, small_pixels
from regraft.search import Trial
from regraft.tune import RECIPES
from regraft.tune.plan import epochs_and_updates

Level = Literal["off", "quick", "full"]
DRAWS = 5  # of fresh weights in a quick measurement, if they fit half the time of the fit
SEEDS = 3  # of everything in a full one
LEAST_SECONDS = 10.0  # that scratch may have in a quick one, however fast the fit was
LEAST_SHARE = 0.05  # of scratch's updates, below which a quick measurement leaves it out: it would prove nothing
SMALLER, LARGER = 3, 2  # sizes below and above the fit's own on a curve over labels, each a factor of two

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
        correct: right or wrong per run and test example, (M, N).
        seconds: wall-clock time of one run.
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
        """Plain values, as they go into evidence.json; the interval is of one run on these N examples."""
        runs, n = self.correct.shape
        accuracy = float(self.correct.mean())
        figures = {"accuracy": accuracy, "n": n, "ci95": list(wilson(round(accuracy * n), n)), "runs": runs}
        rest = {"seconds": round(self.seconds, 2), "updates": self.updates, "matched": self.matched}
        return {"name": self.name, "what": self.what, **figures, **rest}


def measure(case: Case, level: Level, store: RunStore | None = None) -> dict[str, Any]:
    """Compare a delivered model with its controls on the test split.

    Args:
        case: the delivered model.
        level: "off" runs only the trivial controls; "quick" the same procedure on fresh weights and training from
            scratch, in about the time of the fit; "full" several seeds of everything, and curves over labels.
        store: where runs that end are kept, so that an interrupted measurement goes on.

    Returns:
        The content of evidence.json: verdict, the numbers behind it, every control, every raw run.
    """
    trivial = [
        _trivial("majority", "always the commonest class", lambda: _majority(case.chosen)),
        _trivial("raw pixels", "a linear model on raw pixels", lambda: _raw(case.chosen, case.means.seed)),
    ]
    if level == "off" or case.chosen.plan.recipe.weights == "random":  # such a model has nothing to be matched
        return {"level": "off", **_against_trivial(case, trivial)}
    store = store or RunStore(None)
    runs = _quick(case, store) if level == "quick" else _full(case, store)
    depth = {"depth": depth_effects(case, store)} if level == "full" else {}
    return {"level": level, **evidence(runs, case.n_train, trivial), **depth}


def expected_seconds(case: Case, level: Level) -> float:
    """About how long `measure` will take, from how long the fit took."""
    if level != "full":
        return case.seconds if level == "quick" else 0.0
    return SEEDS * len(_sizes(case)) * (case.seconds + scratch_pace(case).seconds)


def evidence(runs: Sequence[RawRun], n_train: int, trivial: Sequence[Control] = ()) -> dict[str, Any]:
    """Everything that follows from the raw runs.

    Args:
        runs: of transfer and of the controls.
        n_train: the number of labelled examples that the verdict is about.
        trivial: controls beside the matched ones.
    """
    here = by_arm([run for run in runs if run.n_train == n_train])
    transfer = here.pop("transfer")
    found = benefits(transfer, here)
    end = found["asymptote"]
    matched = [_control(name, group) for name, group in here.items()]
    hurried = _hurried(here.get("scratch", []), n_train)
    share = {} if hurried else parts(transfer, here)  # a gain over a control that was cut short says little
    return {
        "verdict": end.finding,
        "control": end.control,
        "difference": end.difference,
        "ci95": list(end.ci95),
        "p": end.p,
        "n": end.n,
        "sentence": " ".join([sentence(end, share), *hurried]),
        "controls": [control.to_dict() for control in (*trivial, *matched)],
        "benefits": {name: benefit.to_dict() for name, benefit in found.items()},
        "speed": speed(transfer, here),
        "parts": share,
        **_over_labels(runs, n_train),
        "runs": [run.to_dict() for run in runs],
    }


def by_arm(runs: Sequence[RawRun]) -> dict[str, list[RawRun]]:
    """Runs by the name of their arm, each in the order of its seeds."""
    groups: dict[str, list[RawRun]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        groups.setdefault(run.arm, []).append(run)
    return groups


def sentence(end: Benefit, share: Mapping[str, float]) -> str:
    """The verdict for people, with what belongs to the procedure and what to the weights."""
    low, high = (100 * edge for edge in end.ci95)
    span = f"{100 * end.difference:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}, N = {end.n})"
    opening = {
        "helps": "Transfer helps",
        "no difference": "Transfer makes no difference that these examples could show",
        "hurts": "Transfer hurts",
    }[end.finding]
    text = f"{opening}: {span} against {WHAT.get(end.control, end.control)}."
    if not share:
        return text
    total, procedure, weights = (100 * share[name] for name in ("over_scratch", "procedure", "weights"))
    whose = f"{procedure:+.1f} belong to the procedure and {weights:+.1f} to the weights"
    return f"{text} Of {total:+.1f} points over training from scratch, {whose}."


def _hurried(scratch: Sequence[RawRun], n_train: int) -> list[str]:
    """A control that had too little time is said to have had too little."""
    _, planned = epochs_and_updates(RECIPES["scratch"], n_train)
    done = min((run.updates for run in scratch), default=0)
    if done >= 0.9 * planned:
        return []
    had = f"had time for {done} of its {planned} updates" if scratch else "was left out for want of time"
    return [f"Training from scratch {had}; --evidence full lets it finish."]


# which runs -------------------------------------------------------------------------------------------


def _quick(case: Case, store: RunStore) -> list[RawRun]:
    """Fresh weights as often as they fit half the time of the fit, then scratch for the rest of it."""
    began, seed, half = time.perf_counter(), case.means.seed, case.seconds / 2
    runs = [delivered(case)]
    while len(runs) <= DRAWS:
        drawn = len(runs) - 1
        runs.append(_kept(case, store, "fresh weights", seed + drawn, case.data))
        if time.perf_counter() - began + runs[-1].seconds > half:
            break
    # An untrained network is no control: training from scratch gets half the time whatever the others took.
    left = max(LEAST_SECONDS, half, case.seconds - (time.perf_counter() - began))
    pace = scratch_pace(case)
    updates = pace.updates(left)
    if updates < LEAST_SHARE * pace.planned:
        return runs
    return [*runs, _kept(case, store, "scratch", seed, case.data, updates)]


def _full(case: Case, store: RunStore) -> list[RawRun]:
    """Every arm at every size and seed; the delivered model is the first run at the fit's own size."""
    runs = [delivered(case)]
    arms = ["transfer", "fresh weights", "scratch", *(["scratch, same updates"] if case.updates else [])]
    sizes = _sizes(case)
    for done, (size, i) in enumerate((size, i) for size in sizes for i in range(SEEDS)):
        seed = case.means.seed + i
        data = _subset(case, size, seed)
        first = size is None and i == 0
        runs += [_kept(case, store, arm, seed, data) for arm in arms if not (first and arm == "transfer")]
        case.means.listener.progress("evidence", done + 1, len(sizes) * SEEDS)
    return runs


def _kept(case: Case, store: RunStore, arm: str, seed: int, data: Dataset, updates: int | None = None) -> RawRun:
    make: dict[str, Callable[[], RawRun]] = {
        "transfer": lambda: transferred(case, data, seed),
        "fresh weights": lambda: on_fresh_weights(case, data, seed),
        "scratch": lambda: from_scratch(case, data, seed, updates=updates),
        "scratch, same updates": lambda: from_scratch(case, data, seed, updates=case.updates),
    }
    return store.get(arm, seed, len(data.split("train")), make[arm])


def _sizes(case: Case) -> list[int | None]:
    """Examples per class on the curve over labels; None is the fit's own number, which comes first."""
    own = int(np.bincount(case.data.split("train").labels).max())
    most = int(np.bincount(case.pool.split("train").labels).max())
    below = [own // 2**i for i in range(1, SMALLER + 1) if own // 2**i >= 2]
    above = [own * 2**i for i in range(1, LARGER + 1) if own * 2**i <= most]
    return [None, *below, *above]


def _subset(case: Case, size: int | None, seed: int) -> Dataset:
    """Nested over sizes for one seed; at the fit's own size the first seed is the fit's own subset."""
    if size is not None:
        return case.pool.per_class(size, seed)
    if seed == case.means.seed or len(case.pool) == len(case.data):
        return case.data
    return case.pool.per_class(int(np.bincount(case.data.split("train").labels).max()), seed)


# what follows -----------------------------------------------------------------------------------------


def _over_labels(runs: Sequence[RawRun], n_train: int) -> dict[str, Any]:
    """Learning curves over labelled examples, where there is more than one size."""
    groups = by_arm(runs)
    if len({run.n_train for run in groups["transfer"]}) < 2:
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


def _control(name: str, runs: Sequence[RawRun]) -> Control:
    correct = np.stack([run.correct for run in runs])
    mean = float(np.mean([run.seconds for run in runs]))
    return Control(name, WHAT.get(name, name), correct, mean, runs[0].updates, matched=True)


def _against_trivial(case: Case, trivial: Sequence[Control]) -> dict[str, Any]:
    """Without matched controls: how far the model is from the better trivial one, by counting."""
    found = verdict_against_best(case.correct, {c.name: c.correct[0] for c in trivial}, seed=case.means.seed)
    what = next(c.what for c in trivial if c.name == found.control)
    low, high = (100 * edge for edge in found.ci95)
    span = f"{100 * found.difference:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}, N = {found.n})"
    words = f"{found.verdict.capitalize()}: {span} against {what}; no control with the same network was run."
    return {**found.to_dict(), "sentence": words, "controls": [c.to_dict() for c in trivial]}


# trivial controls -------------------------------------------------------------------------------------


def _trivial(name: str, what: str, run: Callable[[], np.ndarray]) -> Control:
    began = time.perf_counter()
    correct = run()[None]
    return Control(name, what, correct, time.perf_counter() - began)


def _majority(chosen: Trial) -> np.ndarray:
    features = chosen.prospect.features
    return features.labels("test") == np.bincount(features.labels("train")).argmax()


def _raw(chosen: Trial, seed: int) -> np.ndarray:
    features, spec = chosen.prospect.features, chosen.prospect.source.input
    height, width = (min(side, SIDE) for side in spec.size[1:])
    transform = Transform(replace(spec, size=(spec.size[0], height, width)))  # no larger than the control looks at
    train, test = (load_pixels(features.data.split(split), transform) for split in ("train", "test"))
    y, truth = features.labels("train"), features.labels("test")
    _, fitted = raw_pixels(train, y, test, truth, chosen.plan.n_classes, seed=seed)
    with torch.no_grad():
        scores = fitted.head(torch.from_numpy(small_pixels(test)))
    return scores.argmax(1).numpy() == truth
