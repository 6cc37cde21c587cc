"""fastai: vision_learner on a timm network, fine_tune; the test pictures through its own test_dl."""

from __future__ import annotations

from fastai.callback.core import Callback, CancelValidException
from fastai.vision.all import ImageDataLoaders, Normalize, Resize, default_split, set_seed, vision_learner
from fastai.vision.learner import model_meta
from task import EmbeddedTrunk, Task
from torch import nn

SETTINGS = {
    "default": {"bs": 64, "epochs": 4, "freeze_epochs": 1},
    "longer": {"bs": 16, "epochs": 10, "freeze_epochs": 3},
    "longest": {"bs": 16, "epochs": 20, "freeze_epochs": 5},
}


class NoValidation(Callback):
    """Validation after each epoch is only shown: nothing is chosen by it."""

    def before_validate(self):
        raise CancelValidException


def learner(task: Task, dls: ImageDataLoaders):
    if not task.source.startswith("regraft:"):
        return vision_learner(dls, f"local-dir:{task.source}")
    network, _ = task.network()
    spec = task.cell["input"]
    dls.add_tfms([Normalize.from_stats(spec["mean"], spec["std"])], "after_batch")

    def arch(pretrained):
        return network

    model_meta[arch] = {"cut": _body, "split": default_split}  # vision_learner's own `cut` goes nowhere in fastai 2.8
    return vision_learner(dls, arch, normalize=False)


def _body(model: nn.Module) -> nn.Module:
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
        skipped = [] if task.timed else [NoValidation()]
        learn.fine_tune(how["epochs"], freeze_epochs=how["freeze_epochs"], cbs=skipped)
        files = [path for path, _ in task.pictures("test").samples]
        scores, _ = learn.get_preds(dl=dls.test_dl(files))
    assert list(dls.vocab) == task.classes
    task.answer(scores.argmax(1).tolist())


if __name__ == "__main__":
    main()
