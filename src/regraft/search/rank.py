"""Ranking sources: which of several pretrained networks holds most for a dataset, and at what price.

The order is that of the cross-validated probe at each source's best depth: of the probability that it gives to what is
true of examples it was not fitted on. That moves with every example, where right or wrong moves with those near the
border, and tells sources apart that are a point of accuracy from each other. Sources that the same examples cannot tell
apart by a standard error are tied, and ties go to the cheaper. Transferability scores stand beside it for people; they
decide nothing (their rank correlation with fine-tuned accuracy is near 0.6). Networks are opened one after another and
let go, so memory does not grow with their number.

Shape letters: N examples (training and validation), K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from regraft.cache import Tap
from regraft.data import Dataset
from regraft.errors import SourceError
from regraft.probe import ProbeResult, h_score, leep, logme, nce
from regraft.probe.rows import row_space
from regraft.search.explain import describe_probe
from regraft.search.features import Features, Means
from regraft.search.fitness import Fitness, check
from regraft.search.prospect import Prospect, look_at, traced_source
from regraft.source import Source, example_inputs

_TIMED = 8  # examples in the batch that is timed
_TIMES = 5  # batches, of which the fastest counts
# Of its time that a source may take and be called cheaper: two of one architecture cost the same, and clocks differ.
_CHEAPER = 0.8


@dataclass(frozen=True)
class Ranked:
    """One source, judged on a dataset.

    Args:
        source: URI.
        fitness: whether the data suit its input.
        accuracy: of its best probe, on validation and on training examples held out; NaN, like `se` and `seconds`,
            of a source that the data do not fit.
        se: binomial standard error of that.
        reads: what the probe reads.
        seconds: one example's way through the whole network, here, in PyTorch.
        n_params: of the network.
        licence: of the weights, where known.
        scores: LogME and H-score of the last layer's features; NCE and LEEP of the source's own answers. Where one has
            no value, as of features that are alike for all examples, it is left out.
        reason: why it stands where it does.
        sureness: (N,), the probability that the probe, held out, gives to what is true; of numbers their merit.
    """

    source: str
    fitness: Fitness
    accuracy: float
    se: float
    reads: str
    seconds: float
    n_params: int
    licence: str
    scores: dict[str, float]
    reason: str = ""
    sureness: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the single examples; None for what was not measured."""
        others = ("sureness", "fitness")
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in others}
        unknown = ("accuracy", "se", "seconds") if self.fitness.verdict == "refuses" else ()
        return values | dict.fromkeys(unknown) | {"fits": self.fitness.to_dict()}


def rank(data: Dataset, uris: Iterable[str], open_source: Callable[[str], Source], means: Means) -> list[Ranked]:
    """The sources in order, the one to reuse first.

    Args:
        data: labelled examples; the test split is not looked at.
        uris: of the sources.
        open_source: from URI to network.
        means: cache folder, runtime, device, seed, listener, and the engine, which looks at several sources at a time
            if it can.
    """
    uris, judged = list(uris), []
    for done in means.engine.map(partial(_judged, without_test(data), open_source, means), uris):
        judged.append(done)
        means.listener.progress("sources", len(judged), len(uris))
    return in_order(judged)


def without_test(data: Dataset) -> Dataset:
    """The examples that sources may be judged on."""
    return replace(data, examples=tuple(example for example in data.examples if example.split != "test"))


def in_order(judged: Sequence[Ranked]) -> list[Ranked]:
    """The best first; before it the cheapest of those tied with it, if clearly cheaper; what does not fit last."""
    left = sorted(judged, key=_place)
    ordered: list[Ranked] = []
    while left:
        best = left[0]
        cheaper = (other for other in left if other.seconds < _CHEAPER * best.seconds and tied_with(best, other))
        chosen = min(cheaper, key=lambda r: r.seconds, default=best)
        ordered.append(replace(chosen, reason=_reason(chosen, best, ordered)))
        left = [other for other in left if other is not chosen]
    return ordered


def refuse_if_none_fits(ranked: Sequence[Ranked]) -> None:
    """Refuse data that are of a kind that no source takes.

    Raises:
        SourceError: with the reason of each source.
    """
    if ranked[0].fitness.verdict == "refuses":
        raise SourceError(" ".join(dict.fromkeys(each.fitness.reasons[0] for each in ranked)))


def better_of(first: Ranked, second: Ranked) -> tuple[Ranked, Ranked]:
    """Two sources, the one whose probe is surer of the truth first, whatever they cost."""
    better, other = sorted((first, second), key=_place)
    return better, other


def tied_with(best: Ranked, other: Ranked) -> bool:
    """Whether the examples on which the two differ leave open which is better."""
    if best.fitness.verdict == "refuses" or other.fitness.verdict == "refuses":
        return False
    points, se = _difference(best, other)
    return points < se


def _place(ranked: Ranked) -> tuple[bool, float]:
    refused = ranked.fitness.verdict == "refuses"
    return refused, 0.0 if refused else -float(ranked.sureness.mean())


def _difference(better: Ranked, worse: Ranked) -> tuple[float, float]:
    differences = better.sureness - worse.sureness
    return float(differences.mean()), float(differences.std() / np.sqrt(len(differences)))


def _reason(chosen: Ranked, best: Ranked, before: Sequence[Ranked]) -> str:
    held = f"{100 * chosen.accuracy:.1f} ± {100 * chosen.se:.1f} %, {chosen.reads}"
    if chosen.fitness.verdict == "refuses":
        return f"does not fit: {chosen.fitness.reasons[0]}"
    if chosen is not best:
        points, se = _difference(best, chosen)
        prices = f"{1000 * chosen.seconds:.1f} against {1000 * best.seconds:.1f} ms an example"
        return f"{held}; not told apart from {best.source} ({_behind(points, se)}), and cheaper ({prices})"
    if before:
        return f"{held}; {_behind(*_difference(before[0], chosen))} than the first"
    return f"{held}; the best probe"


def _behind(points: float, se: float) -> str:
    return f"{100 * points:.1f} ± {100 * se:.1f} points less sure of the truth"


def _judged(data: Dataset, open_source: Callable[[str], Source], means: Means, uri: str) -> Ranked:
    source = open_source(uri)
    means.listener.say(f"Looking at {source.uri}.")
    traced, nan = traced_source(source, means.root), float("nan")
    fitness = check(data, source, traced, means)
    unknown = Ranked(source.uri, fitness, nan, nan, "", nan, source.n_params, source.licence, {})
    if fitness.verdict == "refuses":
        return unknown
    prospect = look_at(data, source, means, traced)
    best = prospect.profile.best
    return replace(
        unknown,
        accuracy=best.score,
        se=best.se,
        reads=describe_probe(best),
        seconds=_seconds(source),
        scores={name: value for name, value in _scores(prospect).items() if math.isfinite(value)},
        sureness=_sureness(best, prospect.features),
    )


def _sureness(best: ProbeResult, features: Features) -> np.ndarray:
    """How sure a probe's held-out scores are of what is true, (N,): its probability; of numbers their merit."""
    task = features.data.task
    pairs = [(best.fitted.cv_scores, features.labels("train")), (best.val_scores, features.labels("val"))]
    known = [(scores, y) for scores, y in pairs if scores is not None]
    return np.concatenate([task.merits(s, y) if task.numeric else np.exp(-task.losses(s, y)) for s, y in known])


def _scores(prospect: Prospect) -> dict[str, float]:
    features, traced = prospect.features, prospect.traced
    if not features.data.task.one_of:  # these scores are about classes
        return {}
    y, K = features.labels("train"), len(features.data.classes)
    last = traced.stages[-1]
    space = row_space(features(Tap(last.name, 0 if len(last.shape) == 1 else 1), "train").reshape(len(y), -1))
    scores = {"LogME": logme(space, y, K), "H-score": h_score(space, y, K)}
    answers = traced.cuts[-1]
    if traced.feature.name == answers.name or len(answers.shape) != 1 or answers.shape[0] < 2:
        return scores  # no head of its own
    features.fill([Tap(answers.name)], ("train",))
    logits = torch.from_numpy(np.array(features(Tap(answers.name), "train"))).double()
    own = logits.softmax(1).numpy()
    return scores | {"NCE": nce(own.argmax(1), y), "LEEP": leep(own, y)}


@torch.no_grad()
def _seconds(source: Source) -> float:
    """One example through the whole network, in the fastest of some batches."""
    inputs = example_inputs(source.input, _TIMED)
    return min(_timed(source, inputs) for _ in range(_TIMES)) / _TIMED


def _timed(source: Source, inputs: tuple[torch.Tensor, ...]) -> float:
    began = time.perf_counter()
    source.model(*inputs)
    return time.perf_counter() - began
