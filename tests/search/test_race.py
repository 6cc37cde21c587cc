"""Two sources that probes leave tied are trained for a little; the first stays unless the second is surely better."""

from __future__ import annotations

import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from regraft.data import Dataset, read
from regraft.search import Clock, Means, Ranked, race, rank, settled_order
from regraft.source import Source
from regraft.testing import tiny_images, tiny_source, tiny_text_source, tiny_texts

SOURCES = {source.uri: source for source in (tiny_source(0), tiny_source(1))}
FIRST, SECOND = SOURCES


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    """With labels so wrong that no probe gets all."""
    X, y = tiny_images(12)
    return read((X, np.where(np.arange(len(y)) % 7 == 0, (y + 1) % 3, y)))


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Means:
    return Means(tmp_path_factory.mktemp("cache"), runtime="torch")


@pytest.fixture(scope="module")
def tied(shapes: Dataset, means: Means) -> list[Ranked]:
    """Two sources in order, each right where the other is wrong: the probes tell nothing."""
    places = sorted(rank(shapes, SOURCES, opened, means), key=lambda each: each.source)
    return _told_by_nothing(places)


def _told_by_nothing(ranked: list[Ranked]) -> list[Ranked]:
    sure = np.arange(len(ranked[0].sureness)) % 2.0
    return [replace(each, sureness=s, accuracy=0.5) for each, s in zip(ranked, (sure, 1 - sure), strict=True)]


def opened(uri: str) -> Source:
    return SOURCES[uri]


def enough() -> Clock:
    return Clock(time.monotonic(), limit=1e6)


def names(ranked: list[Ranked]) -> list[str]:
    return [each.source for each in ranked]


def test_tied_sources_race_on_the_same_rows_and_only_once(
    tied: list[Ranked], shapes: Dataset, means: Means, tmp_path: Path
) -> None:
    asked: list[str] = []

    def watched(uri: str) -> Source:
        asked.append(uri)
        return SOURCES[uri]

    found = race(tied, shapes, watched, means, folder=tmp_path, clock=enough())
    assert asked == [FIRST, SECOND] and set(names(found)) == {FIRST, SECOND}
    n = len(shapes) - len(shapes.split("test"))
    assert "short race" in found[0].reason and f"points on {n} examples" in found[0].reason
    assert found[0].reason.startswith(next(each.reason for each in tied if each.source == found[0].source))
    again = race(tied, shapes, watched, means, folder=tmp_path, clock=Clock(time.monotonic(), limit=0.0))
    assert again == found and len(asked) == 2


def test_the_second_goes_on_only_if_it_is_surely_better(
    tied: list[Ranked], shapes: Dataset, means: Means, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("regraft.search.race")  # the package's own name `race` is the function
    for share, leader, said in (
        (0.9, SECOND, "it won"),
        (0.55, FIRST, "not surely better"),
        (0.1, FIRST, "not surely"),
    ):
        answers = {FIRST: np.arange(100) % 2 > 0, SECOND: np.arange(100) < 100 * share}
        monkeypatch.setattr(module, "_right_after_training", lambda held, source, *_, given=answers: given[source.uri])
        found = race(tied, shapes, opened, means, folder=tmp_path / str(share), clock=enough())
        assert found[0].source == leader and said in found[0].reason


def test_without_time_the_order_stays_and_says_so(
    tied: list[Ranked], shapes: Dataset, means: Means, tmp_path: Path
) -> None:
    found = race(tied, shapes, opened, means, folder=tmp_path, clock=Clock(time.monotonic(), limit=0.0))
    assert names(found) == names(tied)
    assert f"no time was left for a short race with {SECOND}" in found[0].reason


def test_sources_that_are_told_apart_do_not_race(
    tied: list[Ranked], shapes: Dataset, means: Means, tmp_path: Path
) -> None:
    sure = [replace(tied[0], sureness=np.ones_like(tied[0].sureness), accuracy=1.0), tied[1]]

    def never(uri: str) -> Source:
        raise AssertionError(uri)

    assert race(sure, shapes, never, means, folder=tmp_path, clock=enough()) == sure


def test_a_run_keeps_the_order_it_first_found(tied: list[Ranked], tmp_path: Path) -> None:
    assert names(settled_order(tied, tmp_path)) == names(tied)
    assert names(settled_order(tied[::-1], tmp_path)) == names(tied)  # resumed, with costs that came out otherwise


def test_sources_for_texts_are_ranked_and_race(means: Means, tmp_path: Path) -> None:
    data = read(tiny_texts(12))
    sources = {source.uri: source for source in map(tiny_text_source, (0, 1))}
    ranked = rank(data, sources, sources.__getitem__, means)
    assert set(names(ranked)) == set(sources) and all(each.seconds > 0 for each in ranked)
    found = race(_told_by_nothing(ranked), data, sources.__getitem__, means, folder=tmp_path / "run", clock=enough())
    assert "both trained for a little" in found[0].reason
