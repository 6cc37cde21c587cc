"""What an update on texts is expected to take goes by how long they are; the clock is replaced by a count of tokens."""

from __future__ import annotations

import json
import sys
from itertools import islice, permutations
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from regraft.cut import trace_source
from regraft.data import read
from regraft.data.text import padded_length
from regraft.spec import TextSpec
from regraft.testing import tiny_source, tiny_text_source
from regraft.testing.texts import TINY_TEXT_ARCH, WORDS
from regraft.tune import RECIPES, Recipe, resolve, steps

MODULE = sys.modules["regraft.tune.resolve"]  # its function has its name in the package
TUNED = RECIPES["finetune"].with_(head="fresh", taps="feature", batch_size=8)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """A forward pass takes a millisecond for each token; the shapes of the batches that were run are noted."""
    shapes: list[tuple[int, ...]] = []

    def timed(network, batch: torch.Tensor) -> float:
        network(batch)
        shapes.append(tuple(batch.shape))
        return 1e-3 * batch.shape[0] * batch.shape[1]

    monkeypatch.setattr(MODULE, "_timed", timed)
    return shapes


@pytest.fixture(scope="module")
def texts() -> SimpleNamespace:
    source = tiny_text_source()
    return SimpleNamespace(source=source, traced=trace_source(source))


@pytest.mark.parametrize("cut", ["input", "table", "blocks.0"])
def test_longer_texts_cost_more(texts, counted, cut: str) -> None:
    plans = {n: resolve(TUNED.with_(cut=cut), texts.source, texts.traced, 3, n_train=60, length=n) for n in (1, 4, 32)}
    for n, plan in plans.items():
        assert plan.seconds == pytest.approx(3 * n * 1e-3 * 60 * plan.n_epochs, abs=0.01)
    assert {shape[:2] for shape in counted} == {(8, 1), (8, 4), (8, 32)}
    without = resolve(TUNED.with_(cut=cut), texts.source, texts.traced, 3, n_train=60)
    assert without.seconds == pytest.approx(16 * plans[1].seconds, rel=0.01)  # as the traced example


def test_longer_texts_take_more_of_the_disk(texts, counted) -> None:
    plans = [resolve(TUNED.with_(cut="blocks.0"), texts.source, texts.traced, 3, n_train=60, length=n) for n in (5, 30)]
    assert [plan.bytes for plan in plans] == [60 * n * 24 * 4 for n in (5, 30)]


def test_very_long_texts_are_timed_on_fewer(texts, counted) -> None:
    plan = resolve(TUNED.with_(cut="blocks.0"), texts.source, texts.traced, 3, n_train=60, length=1000)
    assert counted[-1][:2] == (2, 1000)
    assert plan.seconds == pytest.approx(3 * 1000 * 1e-3 * 60 * plan.n_epochs, abs=0.01)


def test_every_step_of_gradual_unfreezing_is_reckoned_so(texts, counted) -> None:
    recipe = Recipe("mine", head="fresh", taps="feature", unfreeze=2, epochs=4, batch_size=8)
    short, long = (steps(recipe, texts.source, texts.traced, 3, n_train=60, length=n) for n in (2, 20))
    assert [plan.seconds for plan in long] == pytest.approx([10 * plan.seconds for plan in short], rel=0.01)


def test_rows_of_one_shape_have_no_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_timed", lambda network, batch: 1e-3 * batch.shape[1])
    source = tiny_source()
    recipe = TUNED.with_(cut="block2")
    plans = [resolve(recipe, source, trace_source(source), 3, n_train=60, length=n) for n in (None, 7)]
    assert plans[0].seconds == plans[1].seconds > 0


def test_the_length_is_that_of_texts_which_are_padded_to_others_of_like_length() -> None:
    spec = TextSpec("\n".join(WORDS), kind="words", length=12)
    short = [" ".join(words) for words in islice(permutations(WORDS, 3), 38)]
    long = [" ".join(WORDS * n) for n in (1, 2, 30, 40)]

    def found(texts: list[str]) -> int:
        data = read((texts, [i % 2 for i in range(len(texts))]), val_fraction=0, test_fraction=0)
        return padded_length(data, spec)

    assert found(short) == 3
    assert found([*short, " ".join(WORDS[:5]), long[2]]) == round((16 * 12 + 24 * 3) / 40)
    assert found(long) == found([*short[:4], long[2]]) == spec.length


def test_a_prospect_and_the_command_reckon_with_the_texts_at_hand(
    counted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from regraft.cli import main

    weights = tmp_path / "tiny.pt"
    torch.save({"state_dict": tiny_text_source().model.state_dict()}, weights)
    command = f"plan --arch {TINY_TEXT_ARCH} --recipe finetune --cut blocks.0 --json".split()
    seconds = []
    for words in (3, 30):
        table = tmp_path / f"{words}.csv"
        first = islice(permutations(WORDS, 3), 40)
        rows = [f"{' '.join(text * (words // 3))},{i % 2}" for i, text in enumerate(first)]
        table.write_text("\n".join(["text,label", *rows]))
        with pytest.raises(SystemExit) as ended:
            main([*command, "--source", str(weights), "--cache", str(tmp_path / "cache"), str(table)])
        assert not ended.value.code
        (plan,) = json.loads(capsys.readouterr().out)
        seconds.append(plan["seconds"] / plan["n_train"] / plan["n_epochs"])
    assert seconds[1] == pytest.approx(10 * seconds[0], rel=0.01)
