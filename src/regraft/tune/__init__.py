"""Tune: what is trained above a cut, at what rates, and the one loop that does it.

In: a recipe, a source with its graph, a probe's head, and rows (activations from the cache, or pixels).
Out: a plan that names every tensor exactly once, a network, a history.
Laws: frozen tensors and buffers are byte-identical after every epoch; training on the cache and on the
pictures gives the same history; a run that was killed and resumed ends like one that was not.
"""

from regraft.tune.gradual import steps, train_steps, whole
from regraft.tune.history import History, HistoryRow
from regraft.tune.loop import Event, epochs_between_evaluations, train
from regraft.tune.network import Network, feature_width, full_network, network_above
from regraft.tune.plan import Plan, PlanRow, in_time, plan_whole, tap_name
from regraft.tune.recipe import Recipe
from regraft.tune.recipes import RECIPES
from regraft.tune.resolve import check_views, resolve
from regraft.tune.rows import ArrayRows, CacheRows, LiveRows, Rows, ViewRows, batches, row_lengths
from regraft.tune.rules import MOST_VIEWS
from regraft.tune.scope import check_cuts, choose_taps, places_below
from regraft.tune.start import fresh_head, frozen_prefix, starting_head, upper_network

__all__ = [
    "MOST_VIEWS",
    "RECIPES",
    "ArrayRows",
    "CacheRows",
    "Event",
    "History",
    "HistoryRow",
    "LiveRows",
    "Network",
    "Plan",
    "PlanRow",
    "Recipe",
    "Rows",
    "ViewRows",
    "batches",
    "check_cuts",
    "check_views",
    "choose_taps",
    "epochs_between_evaluations",
    "feature_width",
    "fresh_head",
    "frozen_prefix",
    "full_network",
    "in_time",
    "network_above",
    "places_below",
    "plan_whole",
    "resolve",
    "row_lengths",
    "starting_head",
    "steps",
    "tap_name",
    "train",
    "train_steps",
    "upper_network",
    "whole",
]
