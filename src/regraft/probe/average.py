"""The average of several heads: one linear head again, on all their taps. An ensemble at the price of one.

With few examples many candidates are within a standard error of each other, and which one wins is luck. Their
mean score has less of it: on five tasks 0.2 to 0.8 points above the selected one (docs/probe.md).
Held-out scores of the members average to held-out scores of the mean, so it is judged like any other.

Shape letters: N training examples, M validation examples, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from regraft.cache import Tap
from regraft.data import CLASSIFICATION, Task
from regraft.head import LinearHead
from regraft.probe.candidates import Candidate
from regraft.probe.fitted import Fitted, accuracy, log_loss, temperature
from regraft.probe.results import ProbeResult, judged

# More members change little (12 or 40: the same within 0.2 points) and make the head wider.
LARGEST = 12
# Weights of the mean head: 16 MB in float32.
MOST_WEIGHTS = 4_000_000
# Standard errors that a member's accuracy may lie below the best.
_NEAR = 2.0


def average(
    results: Sequence[ProbeResult],
    y_train: np.ndarray,
    y_val: np.ndarray,
    stages: Sequence[str],
    task: Task = CLASSIFICATION,
) -> ProbeResult | None:
    """The mean of the heads with the least log-loss whose accuracy is near the best; None if only one is.

    Args:
        results: fitted and judged on the same rows; those without values are passed over.
        y_train: (N,).
        y_val: (M,).
        stages: names of the network's stages, in order; the mean reads them so.
        task: what the labels are.
    """
    members = _members(results)
    if len(members) < 2:
        return None
    widths = dict(sorted(_union(members).items(), key=lambda pair: (stages.index(pair[0].cut), pair[0].grid)))
    chosen = tuple(member.candidate for member in members)
    fitted = averaged([member.fitted for member in members], chosen, widths, y_train, task)
    val_scores = _mean_scores([member.val_scores for member in members]) * fitted.settings["temperature"]
    return judged(
        Candidate(tuple(widths), "average", chosen, tuple(widths.values())),
        fitted,
        tuple(widths.values()),
        val_scores,
        y_train,
        y_val,
        sum(member.seconds for member in members),
        task,
    )


def averaged(
    fits: Sequence[Fitted],
    members: Sequence[Candidate],
    widths: dict[Tap, int],
    y: np.ndarray,
    task: Task = CLASSIFICATION,
) -> Fitted:
    """The mean of fitted heads, calibrated on the mean of their held-out scores.

    Args:
        fits: one for each member, on the same rows.
        members: whose taps are among `widths`.
        widths: number of features of each tap, in the order of the mean head's columns.
        y: (N,).
        task: what y is.
    """
    held_out = _mean_scores([fit.cv_scores for fit in fits])
    factor = temperature(held_out, y, task)
    head = mean_head([f.head for f in fits], [columns_of(m.taps, widths) for m in members], factor)
    scores = held_out * factor
    settings = {"temperature": factor, "members": [_describe(member) for member in members]}
    return Fitted(head, "average", settings, accuracy(scores, y, task), log_loss(scores, y, task), scores)


def mean_head(heads: Sequence[LinearHead], columns: Sequence[np.ndarray], factor: float = 1.0) -> LinearHead:
    """The head whose scores are `factor` times the mean of the heads' scores.

    Args:
        heads: each (D_i -> K); heads that share a column standardise it the same way.
        columns: for each head, the places (D_i,) of its features among those of the mean.
        factor: on the scores.
    """
    n_features = 1 + max(int(places.max()) for places in columns)
    mean = LinearHead.zeros(n_features, len(heads[0].bias))
    share = factor / len(heads)
    with torch.no_grad():
        for head, places in zip(heads, columns, strict=True):
            where = torch.from_numpy(places)
            mean.mean[where], mean.scale[where] = head.mean, head.scale
            mean.weight[:, where] += share * head.weight
            mean.bias.add_(share * head.bias)
    return mean


def columns_of(taps: Sequence[Tap], widths: dict[Tap, int]) -> np.ndarray:
    """Places of some taps' features among all taps', which lie side by side as in `widths`."""
    ends = dict(zip(widths, np.cumsum(list(widths.values())), strict=True))
    return np.concatenate([np.arange(ends[tap] - widths[tap], ends[tap]) for tap in taps])


def _mean_scores(parts: Sequence[np.ndarray | None]) -> np.ndarray:
    """The mean of scores (N, K), which all must be there."""
    present = [part for part in parts if part is not None]
    assert len(present) == len(parts), "a head without values has no scores to average"
    return np.mean(present, axis=0)


def _members(results: Sequence[ProbeResult]) -> list[ProbeResult]:
    top = max(results, key=lambda r: r.score)
    near = [r for r in results if r.val_scores is not None and r.score >= top.score - _NEAR * top.se]
    members: list[ProbeResult] = []
    for result in sorted(near, key=lambda r: r.log_loss)[:LARGEST]:
        n_classes = len(result.fitted.head.bias)
        if sum(_union([*members, result]).values()) * n_classes <= MOST_WEIGHTS:
            members.append(result)
    return members


def _union(members: Sequence[ProbeResult]) -> dict[Tap, int]:
    """Every tap of the members once, with its number of features."""
    return {tap: n for m in members for tap, n in zip(m.candidate.taps, m.widths, strict=True)}


def _describe(member: Candidate) -> dict[str, str]:
    return {"head": member.head, "taps": " + ".join(map(str, member.taps))}
