"""A second look at the same data finds what the first one made, and nothing that belongs to other data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from regraft.cache import clean
from regraft.data import Dataset, read
from regraft.digest import digest_package
from regraft.search import Means, Prospect, look_at, prospect, traced_source
from regraft.source import Source, code_of, load_source


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return read("digits").per_class(4, seed=0)


@pytest.fixture(scope="module")
def source() -> Source:
    return load_source("regraft:cifar10-resnet20")


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Means:
    return Means(tmp_path_factory.mktemp("cache"), runtime="torch")


@pytest.fixture(scope="module")
def first(digits: Dataset, source: Source, means: Means) -> Prospect:
    return look_at(digits, source, means)


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("made again")


@pytest.fixture
def nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prospect, "depth_profile", refuse)
    monkeypatch.setattr(torch.export, "export", refuse)


@pytest.mark.usefixtures("nothing_is_made")
def test_a_second_look_makes_nothing_again(digits: Dataset, source: Source, means: Means, first: Prospect) -> None:
    second = look_at(digits, source, means)
    assert second.features.tally.computed == 0
    assert second.features.tally.hits == len(digits)
    assert second.traced.cuts == first.traced.cuts
    assert second.traced.stages == first.traced.stages
    assert second.traced.feature == first.traced.feature
    assert second.profile.notes == first.profile.notes
    assert second.profile.results == tuple(
        replace(theirs, fitted=replace(theirs.fitted, head=ours.fitted.head))
        for ours, theirs in zip(second.profile.results, first.profile.results, strict=True)
    )


def test_heads_come_back_bit_for_bit(digits: Dataset, source: Source, means: Means, first: Prospect) -> None:
    second = look_at(digits, source, means)
    for name in ("best", "single"):
        ours, theirs = (getattr(p.profile, name).fitted.head.state_dict() for p in (second, first))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_the_graph_of_a_second_look_is_the_network(
    digits: Dataset, source: Source, means: Means, first: Prospect
) -> None:
    second = look_at(digits, source, means)
    x = torch.rand(2, *source.input.size)
    assert torch.equal(second.traced.graph(x), source.model(x))


def test_other_labels_are_another_profile(digits: Dataset, source: Source, means: Means, first: Prospect) -> None:
    swapped = tuple(replace(example, label=(example.label + 1) % 10) for example in digits.examples[:200])
    other = look_at(replace(digits, examples=(*swapped, *digits.examples[200:])), source, means)
    assert other.features.tally.computed == 0
    assert other.profile.best.score < first.profile.best.score


@pytest.mark.usefixtures("nothing_is_made")
def test_another_seed_is_another_profile(digits: Dataset, source: Source, means: Means, first: Prospect) -> None:
    with pytest.raises(AssertionError, match="made again"):
        look_at(digits, source, replace(means, seed=1))


@pytest.mark.usefixtures("nothing_is_made")
def test_cuts_of_another_version_of_a_library_are_not_taken(
    source: Source, means: Means, first: Prospect, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert traced_source(source, means.root).architecture == first.traced.architecture
    monkeypatch.setattr(prospect, "code_of", lambda arch: [*(code_of(arch) or ()), "upgraded"])
    monkeypatch.setattr(prospect, "trace_source", refuse)
    with pytest.raises(AssertionError, match="made again"):
        traced_source(source, means.root)


def test_the_digest_of_a_package_is_of_all_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for name, code in (("before", "x = 1"), ("after", "x = 2"), ("again", "x = 1")):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "inner" / "code.py").write_text(code)
        found.append(digest_package(name))
    assert found[0] == found[2] != found[1]


def test_a_damaged_memory_counts_as_none(digits: Dataset, source: Source, tmp_path: Path) -> None:
    means = Means(tmp_path, runtime="torch")
    before = look_at(digits, source, means).profile.best.score
    for path in (tmp_path / "memo").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert look_at(digits, source, means).profile.best.score == before


def test_cleaning_everything_forgets(digits: Dataset, source: Source, tmp_path: Path) -> None:
    look_at(digits, source, Means(tmp_path, runtime="torch"))
    clean(tmp_path, all=True)
    assert not list(tmp_path.rglob("*.safetensors"))
