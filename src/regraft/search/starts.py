"""The probe that a training starts from: one of the profile's, or one fitted for what a recipe reads."""

from __future__ import annotations

from dataclasses import replace

from regraft.cut import Traced
from regraft.probe import ProbeResult, probe_at, refit, select
from regraft.search.prospect import Prospect
from regraft.search.trial import joined
from regraft.tune import Recipe, choose_taps


def probe_for(prospect: Prospect, recipe: Recipe) -> ProbeResult | None:
    """The probe whose head a recipe can start from, with its weights; None where the head starts fresh.

    The best of the profile, if it reads what the recipe lets a head read: at `taps`, not above `drop_above`, not below
    `cut`. Else the best of those that do, and where there is none, one fitted there now.

    Args:
        prospect: whose profile.
        recipe: the intent.

    Raises:
        CutError: the recipe names a cut that does not exist.
        RecipeError: its taps cannot be read.
    """
    if recipe.head != "probe":
        return None
    profile, traced = prospect.profile, prospect.traced
    fitting = [result for result in profile.results if _fits(recipe, traced, result)]
    first = next((result for result in (profile.best, profile.single) if _fits(recipe, traced, result)), None)
    if first or fitting:
        return with_values(prospect, first or select(fitting))
    features, data = prospect.features, prospect.features.data
    y_train, y_val = features.labels("train"), features.labels("val")
    return probe_at(choose_taps(recipe, traced, None), features, y_train, y_val, len(data.classes), task=data.task)


def with_values(prospect: Prospect, result: ProbeResult) -> ProbeResult:
    """A result of the profile whose head has its weights; they are fitted again if they were dropped."""
    if not result.fitted.head.weight.is_meta:
        return result
    features = prospect.features
    X, y, data = joined(features, result.candidate.taps, "train"), features.labels("train"), features.data
    return replace(result, fitted=refit(result.candidate, X, y, len(data.classes), task=data.task))


def _fits(recipe: Recipe, traced: Traced, result: ProbeResult) -> bool:
    taps = tuple(result.candidate.taps)
    if choose_taps(recipe, traced, result) != taps:
        return False
    named = recipe.cut not in ("auto", "output")
    return not named or all(traced.cut(tap.cut).index >= traced.cut(recipe.cut).index for tap in taps)
