"""Which preprocessing a network was trained with is read off whatever batch norms it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from regraft.data import Dataset, read
from regraft.search import Fitness, Means, check, traced_source
from regraft.source import Source, load_source
from regraft.spec import InputSpec
from regraft.testing import tiny_images

KERAS = Path(__file__).parents[1] / "source" / "fixtures" / "keras"


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    return read(tiny_images(n_per_class=10))


def fitness(data: Dataset, source: Source, root: Path) -> Fitness:
    return check(data, source, traced_source(source), Means(root, runtime="torch"))


@pytest.mark.parametrize("name", ["branched.keras", "branched.h5"])
def test_parameters_that_are_named_like_a_batch_norm_are_none(shapes: Dataset, name: str, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    source = load_source(str(KERAS / name), input=InputSpec((3, 32, 32)))
    assert any("batch_norm" in own for own in source.model.state_dict())
    assert fitness(shapes, source, tmp_path).reading.by == "batch norm"
