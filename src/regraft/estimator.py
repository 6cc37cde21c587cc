"""TransferClassifier and TransferRegressor: transfer as scikit-learn estimators, for pipelines and cross-validation.

Letters: N examples, H and W pixels, C channels, K classes or numbers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import unique_labels
from sklearn.utils.validation import check_is_fitted

from regraft.artifact import load
from regraft.data import Dataset, read
from regraft.job import EMBEDDED, Job
from regraft.transfer import transfer
from regraft.tune import Recipe


class _Transfer(BaseEstimator):
    """What both estimators are asked, and the run that answers."""

    def __init__(
        self,
        source: str = EMBEDDED,
        recipe: str | Recipe = "auto",
        time_limit: float | None = None,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.source = source
        self.recipe = recipe
        self.time_limit = time_limit
        self.seed = seed
        self.device = device

    def _carry_out(self, data: Dataset) -> None:
        """Keep the metrics of a run, and its model."""
        with tempfile.TemporaryDirectory(prefix="regraft-") as folder:
            job = Job(
                data="arrays",
                source=(self.source,),
                recipe=self.recipe,
                time_limit=self.time_limit,
                seed=self.seed,
                device=self.device,  # type: ignore[arg-type]  (checked where it is used)
                evidence="off",
                out=Path(folder) / "run",
            )
            outcome = transfer(job, data=data)
            self.metrics_, self.model_ = outcome.metrics, load(outcome.folder / "model")


def _given(X: Any) -> Any:
    """Pictures as one array; files and texts as they are, of which NumPy would make an array of words."""
    return list(X) if isinstance(next(iter(X), None), str | Path) else np.asarray(X)


class TransferClassifier(ClassifierMixin, _Transfer):
    """Reuses a pretrained network on pictures, in an array or in files.

    A tenth of the rows is kept back for choosing, and a tenth for the run's own report; score it with
    `sklearn.model_selection` as any other estimator.

    Args:
        source: URI of a pretrained network.
        recipe: "auto", a named recipe, a .toml file, or a recipe itself.
        time_limit: seconds after which nothing new begins.
        seed: of all that is drawn.
        device: "auto", "cpu" or "cuda".

    Attributes:
        classes_: the labels, in the order of `predict_proba`'s columns.
        metrics_: the content of metrics.json.
        model_: the saved model, reloaded.

    Example:
        >>> from regraft.testing import tiny_images
        >>> X, y = tiny_images(20)
        >>> TransferClassifier(source="regraft:cifar10-resnet20", recipe="probe").fit(X, y).score(X, y) > 0.8
        True
    """

    def fit(self, X: np.ndarray | Sequence[str | Path], y: np.ndarray) -> Self:
        """Find out what to reuse for these pictures and train the rest.

        Args:
            X: uint8 or float 0..1, (N, H, W), (N, H, W, C) or (N, C, H, W); or the paths of N files.
            y: labels of any kind that sorts, (N,).
        """
        self.classes_ = unique_labels(y)
        codes = np.searchsorted(self.classes_, y)
        data = read((_given(X), codes), val_fraction=0.1, test_fraction=0.1)
        self._carry_out(data)
        return self

    def predict_proba(self, X: np.ndarray | Sequence[str | Path]) -> np.ndarray:
        """Probabilities, (N, K)."""
        check_is_fitted(self, "model_")
        return self.model_.predict_proba(_given(X))

    def predict(self, X: np.ndarray | Sequence[str | Path]) -> np.ndarray:
        """Labels, (N,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]


class TransferRegressor(RegressorMixin, _Transfer):
    """Reuses a pretrained network to predict numbers from pictures, in an array or in files.

    A tenth of the rows is kept back for choosing, and a tenth for the run's own report; score it with
    `sklearn.model_selection` as any other estimator.

    Args:
        source: URI of a pretrained network.
        recipe: "auto", a named recipe, a .toml file, or a recipe itself.
        time_limit: seconds after which nothing new begins.
        seed: of all that is drawn.
        device: "auto", "cpu" or "cuda".

    Attributes:
        metrics_: the content of metrics.json.
        model_: the saved model, reloaded.

    Example:
        >>> from regraft.testing import tiny_images
        >>> X, y = tiny_images(20)
        >>> TransferRegressor(source="regraft:cifar10-resnet20", recipe="probe").fit(X, 1.5 * y).score(X, 1.5 * y) > 0.7
        True
    """

    def fit(self, X: np.ndarray | Sequence[str | Path], y: np.ndarray) -> Self:
        """Find out what to reuse for these pictures and train the rest.

        Args:
            X: uint8 or float 0..1, (N, H, W), (N, H, W, C) or (N, C, H, W); or the paths of N files.
            y: numbers, (N,) or (N, K).
        """
        self._one = np.ndim(y) == 1
        data = read((_given(X), np.asarray(y)), val_fraction=0.1, test_fraction=0.1, task="regression")
        self._carry_out(data)
        return self

    def predict(self, X: np.ndarray | Sequence[str | Path]) -> np.ndarray:
        """Numbers, in the shape that they were learned in: (N,) or (N, K)."""
        check_is_fitted(self, "model_")
        values = self.model_.predict_values(_given(X))
        return values[:, 0] if self._one else values
