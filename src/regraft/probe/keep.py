"""A depth profile as plain values and arrays, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from regraft.cache import Tap
from regraft.head import LinearHead
from regraft.probe.candidates import Candidate
from regraft.probe.fitted import Fitted
from regraft.probe.profile import DepthProfile
from regraft.probe.results import ProbeResult, without_values

_NUMBERS = ("val_accuracy", "cv_accuracy", "se", "seconds", "score", "log_loss")


def to_plain(profile: DepthProfile) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A profile as plain values, and the arrays of the heads that have values, by name."""
    arrays: dict[str, np.ndarray] = {}
    rows = []
    for i, result in enumerate(profile.results):
        rows.append(_row(result))
        if not result.fitted.head.weight.is_meta:
            arrays |= {f"{i}.{name}": values for name, values in _arrays(result).items()}
    chosen = {name: _place(profile, getattr(profile, name)) for name in ("best", "single")}
    return {"results": rows, **chosen, "stages": profile.stages, "notes": profile.notes}, arrays


def from_plain(facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> DepthProfile:
    """The inverse of `to_plain`."""
    results = [_result(row, _own(arrays, i)) for i, row in enumerate(facts["results"])]
    best, single = results[facts["best"]], results[facts["single"]]
    return DepthProfile(tuple(results), best, single, tuple(facts["stages"]), tuple(facts["notes"]))


def _place(profile: DepthProfile, wanted: ProbeResult) -> int:
    return next(i for i, result in enumerate(profile.results) if result is wanted)


def _row(result: ProbeResult) -> dict[str, Any]:
    fitted = result.fitted
    return {
        "candidate": _candidate_row(result.candidate),
        "name": fitted.name,
        "settings": fitted.settings,
        "cv_log_loss": fitted.cv_log_loss,
        "widths": list(result.widths),
        "n_classes": len(fitted.head.bias),
        **{name: getattr(result, name) for name in _NUMBERS},
    }


def _result(row: dict[str, Any], arrays: dict[str, np.ndarray]) -> ProbeResult:
    head = _head(sum(row["widths"]), row["n_classes"], arrays)
    fitted = Fitted(head, row["name"], row["settings"], row["cv_accuracy"], row["cv_log_loss"], arrays.get("cv_scores"))
    numbers = {name: row[name] for name in _NUMBERS}
    candidate, widths = _candidate(row["candidate"]), tuple(row["widths"])
    result = ProbeResult(candidate, fitted, **numbers, widths=widths, val_scores=arrays.get("val_scores"))
    return result if arrays else without_values(result)


def _head(n_features: int, n_classes: int, arrays: dict[str, np.ndarray]) -> LinearHead:
    if not arrays:
        with torch.device("meta"):
            return LinearHead(n_features, n_classes)
    return LinearHead.from_arrays(*(arrays[name] for name in ("weight", "bias", "mean", "scale")))


def _arrays(result: ProbeResult) -> dict[str, np.ndarray]:
    values = {name: value.detach().numpy() for name, value in result.fitted.head.state_dict().items()}
    scores = {"cv_scores": result.fitted.cv_scores, "val_scores": result.val_scores}
    return values | {name: value for name, value in scores.items() if value is not None}


def _own(arrays: dict[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    return {name.partition(".")[2]: value for name, value in arrays.items() if name.partition(".")[0] == str(i)}


def _candidate_row(candidate: Candidate) -> dict[str, Any]:
    return {
        "taps": [[tap.cut, tap.grid] for tap in candidate.taps],
        "head": candidate.head,
        "members": [_candidate_row(member) for member in candidate.members],
        "widths": list(candidate.widths),
    }


def _candidate(row: dict[str, Any]) -> Candidate:
    taps = tuple(Tap(cut, grid) for cut, grid in row["taps"])
    return Candidate(taps, row["head"], tuple(map(_candidate, row["members"])), tuple(row["widths"]))
