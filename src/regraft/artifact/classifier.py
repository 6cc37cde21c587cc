"""A delivered model in use: pictures in, answers out.

Shape letters: N pictures, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image
from torch import nn

from regraft.artifact.bundle import Bundle, probabilities, read_bundle, rebuild
from regraft.data import Dataset, Example, Problem, Transform, decode
from regraft.data.arrays import list_arrays
from regraft.data.check import listed
from regraft.data.locate import FileLocator, Locator
from regraft.data.picture import SUFFIXES
from regraft.digest import digest_bytes
from regraft.errors import DataError

Inputs = str | Path | np.ndarray | Image.Image | Dataset | Iterable[str | Path | Image.Image | np.ndarray]


@dataclass(frozen=True)
class Prediction:
    """The answer on one picture.

    Args:
        name: of the picture: its path, or "image#3", "array#3" for what has none.
        label: the most probable class.
        probability: of that class, in [0, 1].
        probabilities: of every class, in the order of `Classifier.classes`.
    """

    name: str
    label: str
    probability: float
    probabilities: tuple[float, ...]


class Classifier:
    """A delivered model with its preprocessing and its class names.

    Where the bundle says so, a prediction is the mean over views of a picture. They follow from the picture's content,
    so that the same picture always has the same answer.

    Args:
        network: from pixels 0..255 to class scores.
        bundle: what its config.json says.

    Example:
        >>> model = Classifier.load("run/model")                    # doctest: +SKIP
        >>> model.predict("new_photos")[0]                          # doctest: +SKIP
        Prediction(name='new_photos/a.jpg', label='bee', probability=0.98, probabilities=(0.02, 0.98))
    """

    def __init__(self, network: nn.Module, bundle: Bundle) -> None:
        self.network = network
        self.bundle = bundle
        self.transform = Transform(bundle.input)
        self._views = [Transform(bundle.input, view) for view in range(bundle.views)]

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu", trust_code: bool = False) -> Self:
        """Load a saved model; see `load`."""
        bundle = read_bundle(folder)
        return cls(rebuild(bundle, trust_code=trust_code).to(device), bundle)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.bundle.classes

    def predict(
        self, inputs: Inputs, *, batch_size: int = 64, on_bad: Callable[[Problem], None] | None = None
    ) -> list[Prediction]:
        """The most probable class of every picture.

        Args:
            inputs: a picture file, a folder (every picture below it), a Dataset, arrays (N, H, W), (N, H, W,
                C) or (N, C, H, W) with uint8 0..255 or float 0..1, one PIL image, or a list of files,
                folders, PIL images and single arrays (H, W) or (H, W, C).
            batch_size: pictures per pass.
            on_bad: hears of every picture that cannot be used, which is then left out.

        Returns:
            One answer for each picture, in order.

        Raises:
            DataError: some pictures cannot be used (all of them are named), if there is no `on_bad`.
        """
        names, rows = self._answer(inputs, batch_size, on_bad)
        best = rows.argmax(1)
        return [
            Prediction(name, self.classes[k], float(row[k]), tuple(row.tolist()))
            for name, k, row in zip(names, best, rows, strict=True)
        ]

    def predict_proba(self, inputs: Inputs, *, batch_size: int = 64) -> np.ndarray:
        """Class probabilities of every picture.

        Args:
            inputs: as in `predict`.
            batch_size: pictures per pass.

        Returns:
            float32 (N, K), in order; rows sum to one.

        Raises:
            DataError: some pictures cannot be used; all of them are named.
        """
        return self._answer(inputs, batch_size, None)[1]

    def _answer(
        self, inputs: Inputs, batch_size: int, on_bad: Callable[[Problem], None] | None
    ) -> tuple[list[str], np.ndarray]:
        bad: list[Problem] = []
        pictures = _pictures(inputs, bad.append)
        kept, rows = self._seen(pictures, self._views[0], batch_size, bad.append)
        pictures = replace(pictures, examples=kept)
        for view in self._views[1:]:
            rows = rows + self._seen(pictures, view, batch_size, bad.append)[1]
        names = [example.name for example in kept]
        if on_bad is None and bad:
            raise DataError(f"{listed(bad, len(names) + len(bad))}\nLeave them out: model.predict(..., on_bad=print)")
        for problem in bad:
            assert on_bad is not None
            on_bad(problem)
        return names, rows / np.float32(len(self._views))

    def _seen(
        self, pictures: Dataset, view: Transform, batch_size: int, tell: Callable[[Problem], None]
    ) -> tuple[tuple[Example, ...], np.ndarray]:
        """The pictures that can be used, and their probabilities in one view."""
        parts, kept = [np.empty((0, len(self.classes)), np.float32)], []
        for where, pixels in decode(pictures, view, batch_size=batch_size, on_bad=tell):
            parts.append(probabilities(self.network, pixels, batch_size))
            kept += [pictures.examples[i] for i in where]
        return tuple(kept), np.concatenate(parts)


def load(folder: str | Path, *, device: str = "cpu", trust_code: bool = False) -> Classifier:
    """Load a saved model and run its self-test.

    Args:
        folder: a bundle: the `model` folder of a run.
        device: where it computes, in PyTorch's words.
        trust_code: call its architecture even if that is an arbitrary function.

    Raises:
        BundleError: it is no bundle, is damaged, or does not give its saved probabilities again.
        SourceError: its architecture is not installed here.
    """
    return Classifier.load(folder, device=device, trust_code=trust_code)


@dataclass(frozen=True, slots=True, eq=False)
class _ImageLocator:
    """A PIL image that is in memory anyway."""

    picture: Image.Image

    def content(self) -> bytes:
        return f"{self.picture.mode}{self.picture.size}".encode() + self.picture.tobytes()

    def image(self, content: bytes) -> Image.Image:
        return self.picture.copy()


def _pictures(inputs: Inputs, tell: Callable[[Problem], None]) -> Dataset:
    """Whatever was given, as a dataset whose labels mean nothing; what cannot be read is told."""
    if isinstance(inputs, Dataset):
        return inputs
    examples = []
    for name, locator in _located(inputs):
        try:
            examples.append(Example(digest_bytes(locator.content()), 0, "test", name, locator))
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            kind, detail = ("missing", "there is no such file") if missing else ("unreadable", str(error))
            tell(Problem(kind, name, detail))
    return Dataset("inputs", (), tuple(examples))


def _located(inputs: Inputs) -> Iterator[tuple[str, Locator]]:
    if isinstance(inputs, str | Path):
        yield from _files(Path(inputs))
    elif isinstance(inputs, Image.Image):
        yield "image#0", _ImageLocator(inputs)
    elif isinstance(inputs, np.ndarray):
        yield from _rows(inputs)
    elif isinstance(inputs, Iterable):
        for i, one in enumerate(inputs):
            yield from _one(i, one)
    else:
        raise DataError(
            f"cannot predict on a {type(inputs).__name__}. Expected a picture file, a folder, an array (N, "
            "H, W, C), "
            "PIL images or a list of these: model.predict(['photo.jpg'])"
        )


def _one(i: int, one: object) -> Iterator[tuple[str, Locator]]:
    if isinstance(one, str | Path):
        yield from _files(Path(one))
    elif isinstance(one, Image.Image):
        yield f"image#{i}", _ImageLocator(one)
    elif isinstance(one, np.ndarray):
        yield from ((f"array#{i}", locator) for _, locator in _rows(one[None]))
    else:
        raise DataError(
            f"cannot predict on a {type(one).__name__} (number {i} of the list). Expected a path, a PIL "
            "image or an "
            "array (H, W, C): model.predict(['photo.jpg'])"
        )


def _rows(pixels: np.ndarray) -> Iterator[tuple[str, Locator]]:
    for row in list_arrays(pixels, np.zeros(len(pixels), np.int64)).rows:
        yield row.name, row.locator


def _files(path: Path) -> Iterator[tuple[str, Locator]]:
    """The file itself, whatever its ending; of a folder, every picture below it, in the order of names."""
    if not path.is_dir():
        yield str(path), FileLocator(str(path))
        return
    found: Sequence[Path] = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise DataError(
            f"{path} has no pictures ({', '.join(sorted(SUFFIXES)[:6])}, ...). "
            "Name a folder that has some: model.predict('new_photos')"
        )
    yield from ((str(p), FileLocator(str(p))) for p in found)
