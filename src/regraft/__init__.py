"""regraft: bring labelled examples and pretrained networks; it finds out which to reuse and how much of it,
trains only the rest, and proves that it paid off.

The names below are in the order of the flow; `transfer` is the whole of it.
"""

from regraft.started import STARTED as _STARTED  # isort: skip # before all that is slow  # noqa: F401

from typing import TYPE_CHECKING, Any

from regraft.artifact import Classifier, Prediction, load  # a saved model, reloaded
from regraft.cache import FeatureCache, Tap, frozen_pass  # frozen layers computed once
from regraft.cut import Cut, Traced, between, join, split, trace  # places where a network can be taken apart
from regraft.data import Dataset, Task, Transform, read  # labelled examples
from regraft.errors import RegraftError  # what a user can mend
from regraft.evidence import render  # a run's report
from regraft.job import Job  # what a person asks for
from regraft.probe import DepthProfile, depth_profile  # what each depth holds
from regraft.source import Source, load_source  # pretrained networks
from regraft.spec import InputOverride, InputSpec  # what a network expects
from regraft.transfer import Outcome, transfer  # the whole story
from regraft.tune import RECIPES, Plan, Recipe, resolve, train  # what is trained, and the one loop

if TYPE_CHECKING:
    from regraft.estimator import TransferClassifier, TransferRegressor  # the same as scikit-learn estimators

__all__ = [
    "RECIPES",
    "Classifier",
    "Cut",
    "Dataset",
    "DepthProfile",
    "FeatureCache",
    "InputOverride",
    "InputSpec",
    "Job",
    "Outcome",
    "Plan",
    "Prediction",
    "Recipe",
    "RegraftError",
    "Source",
    "Tap",
    "Task",
    "Traced",
    "TransferClassifier",
    "TransferRegressor",
    "Transform",
    "between",
    "depth_profile",
    "frozen_pass",
    "join",
    "load",
    "load_source",
    "read",
    "render",
    "resolve",
    "split",
    "trace",
    "train",
    "transfer",
]


def __getattr__(name: str) -> Any:
    """The estimators, once they are asked for: they bring scikit-learn, 0.4 s that no other call waits for."""
    if name not in ("TransferClassifier", "TransferRegressor"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from regraft import estimator

    return getattr(estimator, name)
