"""Who takes part, with which settings. The first setting of a peer is its documented default.

Keras' guide to transfer learning (two stages: the head on a frozen network, then the whole network at 1e-5) is not
among them: it needs weights of keras.applications, which come from the network and in another format than ours, so
it could not start from the same weights as the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Contestant:
    """A way to make a classifier of a cell's folder.

    Args:
        name: on the command line and in the table.
        script: of a peer, in this folder; "" for ours.
        settings: name to what it means.
        flags: of `regraft fit`, for ours.
        n_seeds: how many seeds it is run with; one for the slow ones.
    """

    name: str
    script: str = ""
    settings: dict[str, str] = field(default_factory=lambda: {"default": ""})
    flags: tuple[str, ...] = ()
    n_seeds: int = 3

    @property
    def ours(self) -> bool:
        """Whether it is regraft."""
        return not self.script


_TUTORIAL = {
    "default": "25 epochs, batches of 4, SGD at 0.001 with momentum 0.9, a tenth of it after each 7 epochs, random "
    "crops and flips, the best epoch on validation",
    "faster": "rate 0.01",
    "plain": "rate 0.01, pictures resized and cropped in the middle, neither random crops nor flips",
}

# In the order in which they are run: the cheapest first.
CONTESTANTS = {
    c.name: c
    for c in (
        Contestant("probe", flags=("--recipe", "probe", "--evidence", "off")),
        Contestant("auto", flags=("--evidence", "off")),
        Contestant(
            "sklearn",
            "sklearn_probe.py",
            {
                "default": "last-layer features, StandardScaler, LogisticRegressionCV(Cs=10, cv=5)",
                "unit": "features of length 1, LogisticRegressionCV over 13 C from 1e-3 to 1e5",
                "neighbours": "features of length 1, five nearest neighbours weighted by distance",
            },
        ),
        Contestant(
            "fastai",
            "fastai_fine_tune.py",
            {
                "default": "vision_learner(...).fine_tune(4), batches of 64 (of all examples where there are fewer)",
                "longer": "fine_tune(10, freeze_epochs=3), batches of 16",
                "longest": "fine_tune(20, freeze_epochs=5), batches of 16",
            },
        ),
        Contestant("finetune", flags=("--recipe", "finetune", "--evidence", "off")),
        Contestant("gradual", flags=("--recipe", "gradual", "--evidence", "off")),
        Contestant(
            "trainer",
            "hf_trainer.py",
            {
                "default": "3 epochs, batches of 8, AdamW at 5e-5 falling linearly, random resized crops as in "
                "the guide",
                "longer": "20 epochs at 5e-4",
                "head first": "the head alone for 5 epochs at 5e-3, then 20 epochs at 5e-4, pictures resized and "
                "cropped in the middle",
            },
            n_seeds=1,
        ),
        Contestant("auto with evidence", n_seeds=1),
        Contestant("auto, 10 min", flags=("--time-limit", "10m", "--evidence", "off")),
        Contestant("tutorial, fixed", "pytorch_tutorial.py", _TUTORIAL, n_seeds=1),
        Contestant("tutorial, finetune", "pytorch_tutorial.py", _TUTORIAL, n_seeds=1),
        Contestant("naive", flags=("--recipe", "naive", "--evidence", "off"), n_seeds=1),
        Contestant("tutorial, scratch", "pytorch_tutorial.py", _TUTORIAL, n_seeds=1),
        Contestant("scratch", flags=("--recipe", "scratch", "--evidence", "off"), n_seeds=1),
    )
}
