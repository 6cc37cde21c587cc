"""Sources in order: by what probes find, ties to the cheaper, what does not suit the data last."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regraft.data import Dataset, read
from regraft.search import Fitness, Means, Ranked, check, rank, traced_source
from regraft.search.rank import in_order
from regraft.source import Source, load_source
from regraft.spec import IMAGENET_MEAN, IMAGENET_STD
from regraft.testing import tiny_images, tiny_source

EMBEDDED = "regraft:cifar10-resnet20"


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    return read(tiny_images(30))


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Means:
    return Means(tmp_path_factory.mktemp("cache"), runtime="torch")


def judged(name: str, sureness: list[float], seconds: float, verdict: str = "fits") -> Ranked:
    reasons = ("it is sound",) if verdict == "refuses" else ()
    fitness = Fitness(verdict, reasons)  # type: ignore[arg-type]
    sure = np.array(sureness, float)
    return Ranked(name, fitness, float((sure > 0.5).mean()), 0.05, "lda", seconds, 1, "", {}, sureness=sure)


def test_the_better_comes_first_and_ties_go_to_the_cheaper() -> None:
    often, seldom = [1] * 90 + [0] * 10, [1] * 50 + [0] * 50
    nearly = [1] * 88 + [0] * 11 + [1]  # two lost and one won: a point behind, and not told apart
    found = in_order([judged("dear", often, 2.0), judged("poor", seldom, 0.1), judged("cheap", nearly, 1.0)])
    assert [each.source for each in found] == ["cheap", "dear", "poor"]
    assert "not told apart from dear" in found[0].reason
    assert "cheaper (1000.0 against 2000.0 ms an example)" in found[0].reason
    assert "39.0 ±" in found[2].reason


def test_a_surely_better_source_is_first_whatever_it_costs() -> None:
    found = in_order([judged("cheap", [1] * 50 + [0] * 50, 0.1), judged("dear", [1] * 90 + [0] * 10, 9.0)])
    assert [each.source for each in found] == ["dear", "cheap"]


def test_a_tie_is_not_decided_by_the_noise_of_the_clock() -> None:
    nearly = [1] * 88 + [0] * 11 + [1]
    found = in_order([judged("best", [1] * 90 + [0] * 10, 1.0), judged("as dear", nearly, 0.9)])
    assert [each.source for each in found] == ["best", "as dear"]


def test_probability_tells_apart_what_is_as_often_right() -> None:
    found = in_order([judged("cheap", [0.6] * 50 + [0.4] * 50, 0.1), judged("dear", [0.7] * 50 + [0.45] * 50, 9.0)])
    assert [each.source for each in found] == ["dear", "cheap"]
    assert found[0].accuracy == found[1].accuracy
    assert "7.5 ± 0.2 points less sure of the truth than the first" in found[1].reason


def test_what_does_not_fit_is_last_with_its_reason() -> None:
    found = in_order([judged("sound", [1] * 10, 0.1, "refuses"), judged("image", [0] * 10, 1.0)])
    assert [each.source for each in found] == ["image", "sound"]
    assert found[1].reason == "does not fit: it is sound"


def test_sources_are_opened_one_after_another_and_ranked(shapes: Dataset, means: Means) -> None:
    opened: list[str] = []

    def open_source(uri: str) -> Source:
        opened.append(uri)
        return tiny_source() if uri == "tiny" else load_source(uri)

    found = rank(shapes, ["tiny", EMBEDDED], open_source, means)
    assert opened == ["tiny", EMBEDDED]
    assert {each.source for each in found} == {tiny_source().uri, EMBEDDED}
    for each in found:
        assert set(each.scores) == {"LogME", "H-score", "NCE", "LEEP"}
        assert each.seconds > 0
        assert len(each.sureness) == len(shapes) - len(shapes.split("test"))
        assert each.to_dict()["fits"]["verdict"] in ("fits", "warns")


def test_ranking_never_reads_the_test_split(shapes: Dataset, means: Means) -> None:
    spoiled = tuple(
        replace(example, label=(example.label + 1) % 3) if example.split == "test" else example
        for example in shapes.examples
    )
    ours, theirs = (
        rank(data, ["tiny"], lambda uri: tiny_source(), means)[0]
        for data in (shapes, replace(shapes, examples=spoiled))
    )
    assert ours.accuracy == theirs.accuracy
    assert ours.scores == theirs.scores


# does it fit? ---------------------------------------------------------------------------------------


def fitness(data: Dataset, source: Source, means: Means) -> Fitness:
    return check(data, source, traced_source(source), means)


def real(shared_data: Path, name: str) -> Dataset:
    return read(shared_data / "datasets" / name).per_class(16, seed=0)


def test_the_right_preprocessing_is_no_false_alarm(shared_data: Path, means: Means) -> None:
    for name in ("sign_digits", "cifar10_small", "ants_bees"):
        found = fitness(real(shared_data, name), load_source(EMBEDDED), means)
        assert found.verdict == "fits", found.reasons


@pytest.mark.parametrize(
    ("mean", "std"), [((0.5,) * 3, (0.5,) * 3), ((0.0,) * 3, (1.0,) * 3), ((0.0,) * 3, (1 / 255,) * 3)]
)
def test_a_wrong_mean_and_std_is_caught_with_its_remedy(
    shared_data: Path, means: Means, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    source = load_source(EMBEDDED)
    wrong = replace(source, input=replace(source.input, mean=mean, std=std))
    found = fitness(real(shared_data, "cifar10_small"), wrong, means)
    assert found.verdict == "warns"
    right = ",".join(f"{value:.4g}" for value in IMAGENET_MEAN)
    assert f"--mean {right} --std {','.join(f'{value:.4g}' for value in IMAGENET_STD)}" in found.reasons[0]


def test_another_kind_of_data_is_refused(shapes: Dataset, means: Means) -> None:
    found = fitness(replace(shapes, modality="audio"), tiny_source(), means)
    assert found.verdict == "refuses"
    assert found.reasons[0].endswith("Take a source for audio, such as --source hf:facebook/wav2vec2-base")


def test_what_was_not_measured_of_a_refused_source_is_none_in_files(shapes: Dataset, means: Means) -> None:
    (refused,) = rank(replace(shapes, modality="audio"), ["tiny"], lambda uri: tiny_source(), means)
    plain = json.loads(json.dumps(refused.to_dict(), allow_nan=False))
    assert (plain["accuracy"], plain["se"], plain["seconds"]) == (None, None, None)


def test_pictures_far_too_small_are_said_to_be(means: Means) -> None:
    source = tiny_source()
    large = replace(source, input=replace(source.input, size=(3, 256, 256)))
    found = fitness(read(tiny_images(8)), large, means)
    assert any("enlarged 8 times" in reason for reason in found.reasons)
