"""Equal values in equal order, wherever pieces of work run."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regraft.data import Dataset, read
from regraft.engine import engine_of
from regraft.errors import DataError, MissingExtra, RunError
from regraft.evidence import Case, controls, depth, measure
from regraft.job import Job
from regraft.run import Engine
from regraft.search import Means, look_at, probe_trial, rank
from regraft.source import Source
from regraft.testing import tiny_images, tiny_source
from regraft.tune import RECIPES


@pytest.fixture(scope="module")
def ray() -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # Ray's workers give way to all others, which are tests here
        with engine_of("ray") as engine:
            yield engine


@pytest.fixture
def shapes() -> Dataset:
    return read(tiny_images(8))


def opened(uri: str) -> Source:
    return replace(tiny_source(int(uri)), uri=uri)


def remainder(divisor: int, piece: int) -> tuple[int, int, int]:
    if piece == 0:
        raise DataError("there is nothing to divide")
    return piece, piece % divisor, os.getpid()


def test_results_come_in_the_order_of_the_pieces(ray: Engine) -> None:
    found = list(ray.map(partial(remainder, 3), [7, 5, 3]))
    assert [piece[:2] for piece in found] == [(7, 1), (5, 2), (3, 0)]
    assert os.getpid() not in [piece[2] for piece in found]


def test_an_error_is_that_of_the_piece(ray: Engine) -> None:
    with pytest.raises(DataError, match=r"there is nothing to divide$"):
        list(ray.map(partial(remainder, 3), [1, 0]))


def test_what_cannot_be_sent_is_told_with_the_way_out(ray: Engine) -> None:
    with pytest.raises(RunError, match=r"--engine local$"):
        list(ray.map(partial(print, threading.Lock()), [1]))


def test_a_run_may_go_on_with_another_engine() -> None:
    assert Job(data="digits", engine="ray").config() == Job(data="digits").config()


def test_a_cluster_that_is_not_there_is_told_at_once(monkeypatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(RunError, match=r"at 127\.0\.0\.1:1: .* --engine local$"), engine_of("ray"):
        pass


def test_without_ray_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "regraft.engine.ray", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"regraft\[ray\]"), engine_of("ray"):
        pass


def test_sources_are_ranked_alike(ray: Engine, shapes: Dataset, tmp_path: Path) -> None:
    here, there = (
        rank(shapes, ["0", "1", "2"], opened, Means(tmp_path / name, runtime="torch", engine=engine))
        for name, engine in (("here", Means().engine), ("there", ray))
    )
    by_source = {each.source: each for each in there}
    for each in here:
        other = by_source[each.source]
        assert (each.accuracy, each.reads, each.scores) == (other.accuracy, other.reads, other.scores)
        assert np.array_equal(each.sureness, other.sureness)


@pytest.mark.slow
def test_full_evidence_is_the_same(ray: Engine, shapes: Dataset, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(controls, "SEEDS", 1)
    monkeypatch.setattr(controls, "SMALLER", 0)
    monkeypatch.setattr(depth, "CUTS", 1)
    means = Means(tmp_path / "cache", runtime="torch")
    chosen = probe_trial(look_at(shapes, opened("0"), means), RECIPES["probe"], 3)
    correct = chosen.probabilities("test").argmax(1) == chosen.prospect.features.labels("test")
    case = Case(chosen, correct, 60.0, means, shapes)
    beside = replace(case, means=replace(means, engine=ray))
    here, there = (measure(each, "full") for each in (case, beside))
    assert [_answers(run) for run in here["runs"]] == [_answers(run) for run in there["runs"]]
    assert [row["accuracy"] for row in here["depth"]] == [row["accuracy"] for row in there["depth"]]
    assert here["verdict"] == there["verdict"]


def _answers(run: dict[str, Any]) -> tuple[Any, ...]:
    """All but how long it took."""
    return run["arm"], run["seed"], run["n_train"], [(point["updates"], point["correct"]) for point in run["points"]]
