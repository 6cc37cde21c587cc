"""Choosing: candidates are tried, cheapest evidence first, and the best on validation is delivered.

In: a dataset, a source, a recipe. Out: a `Decision`, the trial that was chosen with the reasons in words.
Laws: nothing here reads the test split; what is delivered is never worse than the probe on validation.
"""

from regraft.search.clock import Clock
from regraft.search.decide import Decision, decide
from regraft.search.explain import describe_probe
from regraft.search.features import Features, Means, Tally
from regraft.search.fitness import Fitness, check
from regraft.search.forecast import Forecast, Search, forecast
from regraft.search.prospect import Prospect, look_at, randomised, traced_source
from regraft.search.race import race, settled_order
from regraft.search.rank import Ranked, rank, refuse_if_none_fits
from regraft.search.starts import probe_for
from regraft.search.trial import TRAINING, Trial, probe_trial, train_trial

__all__ = [
    "TRAINING",
    "Clock",
    "Decision",
    "Features",
    "Fitness",
    "Forecast",
    "Means",
    "Prospect",
    "Ranked",
    "Search",
    "Tally",
    "Trial",
    "check",
    "decide",
    "describe_probe",
    "forecast",
    "look_at",
    "probe_for",
    "probe_trial",
    "race",
    "randomised",
    "rank",
    "refuse_if_none_fits",
    "settled_order",
    "traced_source",
    "train_trial",
]
