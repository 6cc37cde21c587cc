"""scikit-learn on last-layer features, as in benchmarks/by_hand.py, and two other settings."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from task import Task

sys.path.insert(0, str(Path(__file__).parents[1]))

from by_hand import features

SETTINGS = {
    "default": lambda: make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=10, cv=5, max_iter=1000)),
    "unit": lambda: make_pipeline(
        Normalizer(), LogisticRegressionCV(Cs=np.logspace(-3, 5, 13).tolist(), cv=5, max_iter=1000)
    ),
    "neighbours": lambda: make_pipeline(Normalizer(), KNeighborsClassifier(5, weights="distance")),
}


def features_file(task: Task) -> Path:
    """Left by the first run of a cell for those that are not timed."""
    return task.folder / "features.npz"


def computed(task: Task) -> tuple[np.ndarray, ...]:
    """Training features and labels, test features."""
    model, _ = task.network(n_out=0)
    model.eval()
    X, y = features(model, task.pictures("train").samples, task.plain)
    X_test, _ = features(model, task.pictures("test").samples, task.plain)
    np.savez(features_file(task), X=X, y=y, X_test=X_test)
    return X, y, X_test


def kept(task: Task) -> tuple[np.ndarray, ...]:
    """What `computed` left."""
    with np.load(features_file(task)) as arrays:
        return arrays["X"], arrays["y"], arrays["X_test"]


def main() -> None:
    task = Task.given()
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", FutureWarning)
    X, y, X_test = computed(task) if task.timed or not features_file(task).is_file() else kept(task)
    task.answer(SETTINGS[task.setting]().fit(X, y).predict(X_test).tolist())


if __name__ == "__main__":
    main()
