"""From general to specific: what breaks when layers are frozen, or parted from the neighbours they grew up with.

At each of a few cuts the same network is trained on the target three times, with one recipe:

    kept        frozen below the cut, the source's layers above it tuned
    parted      frozen below the cut, fresh layers above it
    tuned       fresh layers above the cut, everything trained

`kept` less `parted` is what the source's upper layers add to its lower ones; `tuned` less `parted` what freezing costs.

References:
    J. Yosinski, J. Clune, Y. Bengio, H. Lipson, How transferable are features in deep neural networks?, 2014,
    arXiv:1411.1792.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from regraft.cut import between
from regraft.evidence.arms import EVALUATING, Case, watched
from regraft.evidence.runs import Name, RawRun, RunStore
from regraft.evidence.stats import ci95
from regraft.source import with_random_weights
from regraft.tune import Network, Plan, Recipe, resolve, starting_head, upper_network

CUTS = 3
LEAST_UPDATES = 60  # below which fresh layers have hardly learned, and the comparison says nothing
VARIANTS = ("kept", "parted", "tuned")
# One recipe for all: rates that fresh layers can learn with and that old ones survive.
RECIPE = Recipe(
    "depth",
    head="fresh",
    taps="feature",
    epochs=1,
    min_updates=200,
    lr=1e-3,
    layer_decay=1.0,
    batch_norm="train",
)


def depth_effects(case: Case, store: RunStore, until: float = math.inf) -> list[dict[str, Any]]:
    """Train the three variants at a few cuts.

    Args:
        case: the delivered model, whose source is taken apart.
        store: where runs that end are kept.
        until: when, on `time.perf_counter`'s clock, the last is to end; there are fewer updates or cuts then.

    Returns:
        Rows {cut, variant, accuracy, ci95, n, updates, seconds}, in order of depth.
    """
    wanted = chosen_cuts(case)
    cuts, recipe = _in_time(case, wanted, until - time.perf_counter())
    if len(cuts) < len(wanted):
        left_out = "was left out" if not cuts else f"was looked at above {cuts[0]} only"
        case.means.listener.say(f"What breaks when layers are parted {left_out}: a longer --time-limit shows it.")
    places = {_name(case, cut, variant): (cut, variant) for cut in cuts for variant in VARIANTS}
    make = partial(_carried_out, case, recipe)
    runs = store.get_all(list(places), lambda names: case.means.engine.map(make, [places[name] for name in names]))
    return [_row(*place, run) for place, run in zip(places.values(), runs, strict=True)]


def _name(case: Case, cut: str, variant: str) -> Name:
    return Name(f"{variant} at {cut}".replace("/", "-"), case.means.seed, case.n_train)


def _in_time(case: Case, cuts: list[str], seconds: float) -> tuple[list[str], Recipe]:
    """As many cuts and updates as fit a time: all, else the middle cut alone, else none; the same for all variants."""
    if math.isinf(seconds):
        return cuts, RECIPE
    of_all = _plan(case, RECIPE, "input").seconds
    needed = {cut: EVALUATING * (of_all + 2 * _plan(case, RECIPE, cut).seconds) for cut in cuts}
    for tried in (cuts, cuts[len(cuts) // 2 :][:1]):
        share = min(1.0, seconds / max(1e-9, sum(needed[cut] for cut in tried)))
        if share * RECIPE.min_updates >= LEAST_UPDATES:
            return tried, RECIPE.with_(min_updates=round(share * RECIPE.min_updates))
    return [], RECIPE


def _plan(case: Case, recipe: Recipe, cut: str) -> Plan:
    prospect = case.chosen.prospect
    n_classes = len(case.data.classes)
    return resolve(
        recipe.with_(cut=cut),
        prospect.source,
        prospect.traced,
        n_classes,
        n_train=case.n_train,
        task=case.data.task,
        length=prospect.features.length,
    )


def chosen_cuts(case: Case) -> list[str]:
    """At about a quarter, a half and three quarters of the stages that have parameters above and below."""
    stages = case.chosen.prospect.traced.stages
    top = stages[-1].params_below
    inner = [stage.name for stage in stages if 0 < stage.params_below < top and not stage.needs_input]
    places = np.linspace(0, len(inner) - 1, CUTS + 2)[1:-1] if inner else []
    return list(dict.fromkeys(inner[round(float(place))] for place in places))


def _carried_out(case: Case, recipe: Recipe, place: tuple[str, str]) -> RawRun:
    cut, variant = place
    prospect = case.chosen.prospect
    plan = _plan(case, recipe, "input" if variant == "tuned" else cut)

    def network_of(plan: Plan) -> Network:
        network = upper_network(plan, prospect.source, prospect.traced, starting_head(plan, prospect.traced, None))
        if variant != "kept":
            refresh_above(network, case, cut)
        return network

    return watched(prospect, (plan,), network_of, case.means, None)


def refresh_above(network: Network, case: Case, cut: str) -> None:
    """Fresh values for every tensor that is first used above the cut."""
    traced = case.chosen.prospect.traced
    above = between(traced, cut, [traced.feature.name]).state_dict().keys()
    fresh = with_random_weights(case.source, case.means.seed).model.state_dict()
    with torch.no_grad():
        network.load_state_dict({f"body.{name}": fresh[name] for name in above if name in fresh}, strict=False)


def _row(cut: str, variant: str, run: RawRun) -> dict[str, Any]:
    figures = {"accuracy": float(run.correct.mean()), "ci95": ci95(run.correct), "n": len(run.correct)}
    return {"cut": cut, "variant": variant, **figures, "updates": run.updates, "seconds": round(run.seconds, 2)}


def in_words(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What the rows say, one sentence for each cut.

    Example:
        >>> rows = [{"cut": "layer2", "variant": v, "accuracy": a} for v, a in zip(VARIANTS, (0.9, 0.8, 0.85))]
        >>> in_words(rows)
        ['Cut at layer2: new layers above cost 10.0 points; freezing what lies below costs 5.0.']
    """
    by_cut: dict[str, dict[str, float]] = {}
    for row in rows:
        by_cut.setdefault(row["cut"], {})[row["variant"]] = 100 * row["accuracy"]
    return [_sentence(cut, a["kept"] - a["parted"], a["tuned"] - a["parted"]) for cut, a in by_cut.items()]


def _sentence(cut: str, lost: float, freezing: float) -> str:
    new = f"new layers above {'cost' if lost >= 0 else 'gain'} {abs(lost):.1f} points"
    return f"Cut at {cut}: {new}; freezing what lies below {'costs' if freezing >= 0 else 'gains'} {abs(freezing):.1f}."
