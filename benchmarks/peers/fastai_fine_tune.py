"""fastai: vision_learner on a timm network, fine_tune; the test pictures through its own test_dl."""

from __future__ import annotations

from fastai.vision.all import ImageDataLoaders, Resize, set_seed, vision_learner
from task import EmbeddedTrunk, Task

SETTINGS = {
    "default": {"bs": 64, "epochs": 4, "freeze_epochs": 1},
    "longer": {"bs": 16, "epochs": 10, "freeze_epochs": 3},
    "longest": {"bs": 16, "epochs": 20, "freeze_epochs": 5},
}


def learner(task: Task, dls: ImageDataLoaders):
    if not task.source.startswith("regraft:"):
        return vision_learner(dls, f"local-dir:{task.source}")
    network, _ = task.network()
    spec = task.cell["input"]
    from fastai.vision.all import Normalize

    dls.add_tfms([Normalize.from_stats(spec["mean"], spec["std"])], "after_batch")
    return vision_learner(dls, lambda pretrained: network, cut=lambda m: _body(m), normalize=False)


def _body(model):
    from torch import nn

    return nn.Sequential(EmbeddedTrunk(model))


def main() -> None:
    task = Task.given()
    set_seed(task.seed, reproducible=True)
    how = SETTINGS[task.setting]
    n_train = len(task.pictures("train"))
    dls = ImageDataLoaders.from_folder(
        task.folder, valid="val", item_tfms=Resize(task.side), bs=min(how["bs"], n_train), seed=task.seed
    )
    learn = learner(task, dls)
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(how["epochs"], freeze_epochs=how["freeze_epochs"])
        files = [path for path, _ in task.pictures("test").samples]
        scores, _ = learn.get_preds(dl=dls.test_dl(files))
    assert list(dls.vocab) == task.classes
    task.answer(scores.argmax(1).tolist())


if __name__ == "__main__":
    main()
