"""What a fit would do with one source, and what it would take, before it is begun."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from regraft.data import Dataset
from regraft.search.clock import Clock
from regraft.search.explore import first_round, seconds_beyond
from regraft.search.features import Features, Means, Tally
from regraft.search.ideas import Idea, ideas
from regraft.search.price import seconds_beside, seconds_of
from regraft.search.prospect import check_splits, look_at, traced_source
from regraft.search.starts import probe_for
from regraft.search.trial import plans_for, probe_trial
from regraft.source import Source
from regraft.tune import RECIPES, Plan, Recipe, check_cuts, check_views, whole


@dataclass(frozen=True)
class Search:
    """What `auto` would try beyond the probe.

    Args:
        seconds: that it would give itself, or that a limit leaves it.
        first_round: the trainings that get a short run; the best third of them go on.
    """

    seconds: float
    first_round: tuple[Idea, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        tried = [
            {**idea.params, "name": idea.name, "trained": idea.plan.n_params("trained"), "seconds": idea.seconds}
            for idea in self.first_round
        ]
        return {"seconds": self.seconds, "first_round": tried}


@dataclass(frozen=True)
class Forecast:
    """What a fit would do with one source.

    Args:
        plan: of the recipe; where there is none, of fine-tuning from the best probe.
        seconds: of the whole training, frozen passes and early stopping reckoned with.
        tally: what it took to find out, which stays in the cache.
        search: where there is no recipe.
    """

    plan: Plan
    seconds: float
    tally: Tally
    search: Search | None = None

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values, with what it takes and what is searched."""
        searched = {"search": self.search.to_dict()} if self.search else {}
        return {**self.plan.to_dict(), "seconds_in_all": self.seconds, **searched}


def forecast(data: Dataset, source: Source, recipe: Recipe | None, means: Means, clock: Clock) -> Forecast:
    """Resolve a recipe on a source and a dataset without carrying it out.

    Where the head starts from a probe, or nothing is asked for, the probes are made: they choose where the head reads.
    They and their frozen pass stay in the cache.

    Args:
        data: labelled examples.
        source: the network.
        recipe: what to do; None searches.
        means: cache folder, runtime, device, seed, listener.
        clock: what time there is.

    Raises:
        DataError: there is nothing to validate on.
        CutError: the recipe names a cut that the source has not.
        RecipeError: the recipe cannot be carried out on it.
    """
    traced = traced_source(source, means.root)
    if recipe is not None:
        check_cuts(recipe, traced)
        check_views(recipe, source)
    if recipe is not None and recipe.head != "probe":
        check_splits(data)
        features = Features(data, source, traced, means)
        return _of(whole(recipe, plans_for(recipe, features, len(data.classes), None)), features)
    prospect, wanted = look_at(data, source, means, traced), recipe or RECIPES["finetune"]
    plans = plans_for(wanted, prospect.features, len(data.classes), probe_for(prospect, wanted))
    if recipe is not None:
        return _of(whole(recipe, plans), prospect.features)
    probe = probe_trial(prospect, RECIPES["probe"], len(data.classes))
    budget = seconds_beyond(probe, clock)
    search = Search(budget, tuple(first_round(ideas(prospect, len(data.classes)), budget)))
    return _of(whole(wanted, plans), prospect.features, search)


def _of(plan: Plan, features: Features, search: Search | None = None) -> Forecast:
    return Forecast(plan, seconds_of(plan, seconds_beside(plan, features)), features.tally, search)
