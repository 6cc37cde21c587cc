"""From the command line to a saved model: what a recipe adds or takes out is there when the model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from regraft.artifact import load
from regraft.errors import BundleError, RecipeError
from regraft.job import Job
from regraft.testing import TINY_ARCH, tiny_images, tiny_source
from regraft.transfer import transfer

CLASSES = ("disc", "square", "cross")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("delivered")
    X, y = tiny_images(20)
    for i, (pixels, label) in enumerate(zip(X, y, strict=True)):
        folder = root / "shapes" / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    torch.save({"state_dict": tiny_source().model.state_dict()}, root / "tiny.pt")
    return root


@pytest.mark.parametrize(
    "words",
    [
        ["head_layers=attention", "train=block3|^head"],
        ["head_layers=mlp:8", "train=^head", "keep_source_head=true"],
        ['replace={"block3" = "conv:24"}'],
        ["restore=stem|block[12]", "l2_sp=0.01", "average=ema"],
        ["drop_above=block2", "batch_norm=reestimate", "mixup=0.2"],
    ],
    ids=lambda words: words[0],
)
def test_a_saved_model_is_what_was_trained(place: Path, tmp_path: Path, words: list[str]) -> None:
    job = Job(
        data=str(place / "shapes"),
        source=(str(place / "tiny.pt"),),
        arch=(TINY_ARCH,),
        set=("head=fresh", "epochs=2", "min_updates=0", *words),
        out=tmp_path / "run",
        cache=tmp_path / "cache",
        runtime="torch",
        evidence="off",
    )
    done = transfer(job)
    model = load(done.folder / "model")
    X, _ = tiny_images(3, seed=9)
    assert model.predict_proba(X).shape == (9, 3)
    with pytest.raises(Exception, match="other settings"):
        transfer(Job(**{**job.__dict__, "set": (), "resume": True}))
    kept = json.loads((done.folder / "model" / "config.json").read_text())["recipe"]["keep_source_head"]
    pixels = torch.from_numpy(np.ascontiguousarray(X.transpose(0, 3, 1, 2)))
    if not kept:
        with pytest.raises(BundleError, match=r"--set keep_source_head=true$"):
            _ = model.source_head
        return
    logits = model.network.source_logits(pixels)
    told = model.source_head
    assert told.classes == tuple("0123456789")  # bare weights have no names
    np.testing.assert_allclose(told.predict_proba(X), logits.softmax(1).detach(), atol=1e-6)
    assert [one.label for one in told.predict(X)] == [str(int(i)) for i in logits.argmax(1)]


def test_set_overrules_a_recipe_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('lr = 1e-5\n[rates]\n"block3" = 1e-4\n')
    recipe = Job(recipe=str(tmp_path / "mine.toml"), set=("lr=1e-3", "freeze=stem")).chosen_recipe
    assert recipe is not None and (recipe.lr, recipe.freeze, recipe.rates) == (1e-3, "stem", {"block3": 1e-4})
    assert Job().chosen_recipe is None
    with pytest.raises(RecipeError, match="lr = -1"):
        _ = Job(set=("lr=-1",)).chosen_recipe


def test_what_no_update_improved_is_not_called_trained(place: Path, tmp_path: Path) -> None:
    """A training that diverges at once leaves the probe's head on the source's own layers."""
    job = Job(
        data=str(place / "shapes"),
        source=(str(place / "tiny.pt"),),
        arch=(TINY_ARCH,),
        recipe="finetune",
        set=("lr=1e9", "head_lr=1e9", "clip=0", "optimizer=sgd"),
        out=tmp_path / "run",
        cache=tmp_path / "cache",
        runtime="torch",
        evidence="off",
    )
    done = transfer(job)
    why = json.loads((done.folder / "decision.json").read_text())["why"][-1]
    assert "validation was best before the first of them, so the start is delivered" in why
    states = {row["state"] for row in json.loads((done.folder / "plan.json").read_text())["rows"]}
    assert "fitted" in states and "trained" not in states
