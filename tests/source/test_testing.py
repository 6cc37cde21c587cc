"""What others test with: the same seed gives the same thing, and the pictures can be learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from regraft.testing import tiny_images, tiny_source


def test_tiny_source_is_its_seed() -> None:
    assert tiny_source(1).weights_digest == tiny_source(1).weights_digest != tiny_source(2).weights_digest


def test_tiny_source_exports() -> None:
    source = tiny_source()
    batch = torch.export.Dim("batch")
    program = torch.export.export(source.model, (torch.zeros(2, *source.input.size),), dynamic_shapes=({0: batch},))
    x = torch.randn(3, *source.input.size)
    assert torch.equal(program.module()(x), source.model(x))


@pytest.mark.parametrize(("classes", "least"), [(3, 0.8), (18, 0.2)])
def test_tiny_images_can_be_learned(classes: int, least: float) -> None:
    X, y = tiny_images(30, classes=classes, size=16)
    assert X.dtype == np.uint8 and X.shape == (30 * classes, 16, 16, 3)
    colours = X.reshape(len(X), -1, 3) / 255.0
    features = np.concatenate([colours.mean(1), colours.std(1), colours.max(1)], axis=1)
    half = len(X) // 2
    score = LogisticRegression(C=100, max_iter=2000).fit(features[:half], y[:half]).score(features[half:], y[half:])
    assert score > least


def test_tiny_images_are_their_seed() -> None:
    assert np.array_equal(tiny_images(2, seed=1)[0], tiny_images(2, seed=1)[0])
    assert not np.array_equal(tiny_images(2, seed=1)[0], tiny_images(2, seed=2)[0])
    with pytest.raises(ValueError, match="1 to 18"):
        tiny_images(1, classes=19)
