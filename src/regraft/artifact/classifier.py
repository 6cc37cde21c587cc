"""A delivered model in use: pictures, texts or recordings in, answers out.

Shape letters: N examples, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import nn

from regraft.artifact.bundle import Bundle, probabilities, read_bundle, rebuild, selftest_examples
from regraft.data import CLASSIFICATION, Dataset, Example, Preparation, Problem, decode, transform_for
from regraft.data.arrays import list_arrays
from regraft.data.bad import BadExample
from regraft.data.check import listed
from regraft.data.listing import TABLES
from regraft.data.locate import BytesLocator, FileLocator, Locator, printable
from regraft.data.medium import MEDIA, Medium
from regraft.data.read import unlabelled
from regraft.data.text.opening import PairLocator, TextLocator
from regraft.errors import BundleError, DataError
from regraft.tune import Network

_LONGEST_NAME = 60  # characters of a text that stand for it


@dataclass(frozen=True)
class Upload:
    """A file that is in memory: its name, and the bytes of a picture, a text or a recording."""

    name: str
    content: bytes


One = str | Path | Image.Image | np.ndarray | tuple[str, str] | Upload
Inputs = One | Dataset | Iterable[One]


@dataclass(frozen=True)
class Prediction:
    """The answer on one example.

    Args:
        name: of the example: its path, the beginning of a text, or "image#3", "array#3" for what has neither.
        label: the most probable class.
        probability: of that class, in [0, 1].
        probabilities: of every class, in the order of `Classifier.classes`.
        labels: of a multilabel model, those more probable than not; `label` joins them, `probability` is that of the
            least sure yes or no.
        values: of a regression, the numbers, in their own units; `label` writes them, and there are no probabilities.
    """

    name: str
    label: str
    probability: float
    probabilities: tuple[float, ...]
    labels: tuple[str, ...] = ()
    values: tuple[float, ...] = ()


class Classifier:
    """A delivered model with its preprocessing and its class names.

    Where the bundle says so, a prediction is the mean over views of an example. They follow from its content, so that
    the same example always has the same answer.

    Args:
        network: from prepared rows to class scores.
        bundle: what its config.json says.

    Example:
        >>> model = Classifier.load("run/model")                    # doctest: +SKIP
        >>> model.predict("new_photos")[0]                          # doctest: +SKIP
        Prediction(name='new_photos/a.jpg', label='bee', probability=0.98, probabilities=(0.02, 0.98))
    """

    def __init__(self, network: nn.Module, bundle: Bundle) -> None:
        self.network = network
        self.bundle = bundle
        self.medium = MEDIA[bundle.input.modality]
        self._views = [transform_for(bundle.input, view) for view in range(bundle.views)]

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu", trust_code: bool = False) -> Self:
        """Load a saved model; see `load`."""
        bundle = read_bundle(folder)
        return cls(rebuild(bundle, trust_code=trust_code).to(device), bundle)

    @property
    def source_head(self) -> Classifier:
        """The same network answering with its source's own head, where the recipe said `keep_source_head`.

        Its classes have the source's names, or numbers where that has none. Where layers below that head were
        trained, it answers as they are now.

        Raises:
            BundleError: that head was not kept, or does not tell classes apart.
        """
        if not isinstance(self.network, Network) or self.network.logits is None:
            raise BundleError(
                f"{self.bundle.folder} has no head of its source beside its own. A fit keeps it: "
                "regraft fit DATA --source URI --set keep_source_head=true"
            )
        network = _SourceHead(self.network)
        rows, _ = selftest_examples(self.bundle)
        with torch.inference_mode():
            logits = network(torch.from_numpy(rows[:1]).to(next(self.network.parameters()).device))
        if logits.ndim != 2:
            raise BundleError(
                f"the source of {self.bundle.folder} gives {tuple(logits.shape[1:])} for an example, and no scores of "
                "classes. model.network.source_logits(rows) gives its output as it is"
            )
        classes = _names_of(self.bundle.source.get("classes"), logits.shape[1])
        return Classifier(network, replace(self.bundle, classes=classes, task=CLASSIFICATION))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.bundle.classes

    def predict(
        self, inputs: Inputs, *, batch_size: int = 64, on_bad: Callable[[Problem], None] | None = None
    ) -> list[Prediction]:
        """The most probable class of every example, or its labels, or numbers.

        Args:
            inputs: a file, a folder (every picture, text or recording below it), a table (.csv, .tsv, .jsonl, .parquet)
                with a column as in training, a Dataset, or a list of these. A model for pictures takes arrays
                (N, H, W), (N, H, W, C) or (N, C, H, W) with uint8 0..255 or float 0..1, PIL images and lists of them
                and of single arrays too. To a model for texts a string is a text, and a file or table is given as a
                Path; pairs are tuples. A file in memory is an `Upload`.
            batch_size: examples per pass.
            on_bad: hears of every example that cannot be used, which is then left out.

        Returns:
            One answer for each example, in order.

        Raises:
            DataError: some examples cannot be used (all of them are named), if there is no `on_bad`.
        """
        names, rows = self._answer(inputs, batch_size, on_bad)
        said = self.bundle.task.said(rows, self.classes)
        return [self._prediction(name, label, row) for name, label, row in zip(names, said, rows, strict=True)]

    def _prediction(self, name: str, label: str, row: np.ndarray) -> Prediction:
        task, plain = self.bundle.task, tuple(row.tolist())
        if task.one_of:
            return Prediction(name, label, float(row[row.argmax()]), plain)
        if task.numeric:
            return Prediction(name, label, float("nan"), (), values=tuple(task.natural(row).tolist()))
        held = tuple(one for one, p in zip(self.classes, plain, strict=True) if p > 0.5)
        return Prediction(name, label, float(np.maximum(row, 1 - row).min()), plain, labels=held)

    def plain(self, prediction: Prediction) -> dict[str, Any]:
        """A prediction of this model as plain values, as `regraft predict --json` and `regraft serve` write it."""
        if self.bundle.task.numeric:
            return {"name": prediction.name, "values": dict(zip(self.classes, prediction.values, strict=True))}
        probabilities = dict(zip(self.classes, prediction.probabilities, strict=True))
        if not self.bundle.task.one_of:
            return {"name": prediction.name, "labels": list(prediction.labels), "probabilities": probabilities}
        return {
            "name": prediction.name,
            "label": prediction.label,
            "probability": prediction.probability,
            "probabilities": probabilities,
        }

    def predict_proba(self, inputs: Inputs, *, batch_size: int = 64) -> np.ndarray:
        """Probabilities of every class, or label, for every example.

        Args:
            inputs: as in `predict`.
            batch_size: examples per pass.

        Returns:
            float32 (N, K), in order; of classes, rows sum to one.

        Raises:
            DataError: some examples cannot be used; all of them are named. Or the model predicts numbers.
        """
        if self.bundle.task.numeric:
            raise DataError("this model predicts numbers, which have no probabilities: model.predict_values(inputs)")
        return self._answer(inputs, batch_size, None)[1]

    def predict_values(self, inputs: Inputs, *, batch_size: int = 64) -> np.ndarray:
        """The numbers that a regression predicts, in their own units.

        Args:
            inputs: as in `predict`.
            batch_size: examples per pass.

        Returns:
            float64 (N, K), in order.

        Raises:
            DataError: some examples cannot be used; all of them are named. Or the model tells classes.
        """
        if not self.bundle.task.numeric:
            raise DataError("this model predicts no numbers: model.predict_proba(inputs)")
        return self.bundle.task.natural(self._answer(inputs, batch_size, None)[1])

    def _answer(
        self, inputs: Inputs, batch_size: int, on_bad: Callable[[Problem], None] | None
    ) -> tuple[list[str], np.ndarray]:
        bad: list[Problem] = []
        given = _examples(inputs, self.medium, bad.append)
        kept, rows = self._seen(given, self._views[0], batch_size, bad.append)
        given = replace(given, examples=kept)
        for view in self._views[1:]:
            rows = rows + self._seen(given, view, batch_size, bad.append)[1]
        names = [example.name for example in kept]
        if on_bad is None and bad:
            raise DataError(f"{listed(bad, len(names) + len(bad))}\nLeave them out: model.predict(..., on_bad=print)")
        for problem in bad:
            assert on_bad is not None
            on_bad(problem)
        return names, rows / np.float32(len(self._views))

    def _seen(
        self, given: Dataset, view: Preparation, batch_size: int, tell: Callable[[Problem], None]
    ) -> tuple[tuple[Example, ...], np.ndarray]:
        """The examples that can be used, and their probabilities in one view."""
        parts, kept = [np.empty((0, len(self.classes)), np.float32)], []
        for where, rows in decode(given, view, batch_size=batch_size, on_bad=tell):
            parts.append(probabilities(self.network, rows, batch_size, task=self.bundle.task))
            kept += [given.examples[i] for i in where]
        return tuple(kept), np.concatenate(parts)


class _SourceHead(nn.Module):
    """Of a network with two heads, the one that its source had."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Prepared rows (B, …) to the scores of the source's classes (B, S)."""
        return self.network.source_logits(rows)


def _names_of(named: Any, n: int) -> tuple[str, ...]:
    """A source's names of its n outputs, each once (ImageNet has two cranes); their numbers where it has no names.

    Example:
        >>> _names_of(["crane", "ant", "crane"], 3), _names_of([], 2)
        (('crane', 'ant', 'crane (2)'), ('0', '1'))
    """
    if not isinstance(named, list) or len(named) != n:
        return tuple(map(str, range(n)))
    return tuple(f"{name} ({i})" if name in named[:i] else str(name) for i, name in enumerate(named))


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

    def opened(self, content: bytes) -> Image.Image:
        return self.picture.copy()


def _examples(inputs: Inputs, medium: Medium, tell: Callable[[Problem], None]) -> Dataset:
    """Whatever was given, as a dataset whose labels mean nothing; what cannot be read is told."""
    if isinstance(inputs, Dataset):
        return inputs
    found = []
    for name, locator in _located(inputs, medium, tell):
        try:
            key = medium.key(locator, locator.content())
        except FileNotFoundError:
            tell(Problem("missing", name, "there is no such file"))
        except BadExample as error:
            tell(Problem(error.kind, name, error.detail))
        except OSError as error:
            tell(Problem("unreadable", name, str(error)))
        else:
            found.append(Example(key, 0, "test", printable(name), locator))
    return Dataset("inputs", (), tuple(found), modality=medium.modality)


def _located(inputs: object, medium: Medium, tell: Callable[[Problem], None]) -> Iterator[tuple[str, Locator]]:
    if medium.modality == "image" and isinstance(inputs, np.ndarray):
        yield from _rows(inputs)
    elif isinstance(inputs, Iterable) and not isinstance(inputs, str | Path | tuple | np.ndarray | Image.Image):
        for i, one in enumerate(inputs):
            yield from _one(i, one, medium, tell)
    else:
        yield from _one(0, inputs, medium, tell)


def _one(i: int, one: object, medium: Medium, tell: Callable[[Problem], None]) -> Iterator[tuple[str, Locator]]:
    match medium.modality, one:
        case _, Upload(name, content):
            yield name, BytesLocator(content)
        case "text", str():
            yield shorten(one, _LONGEST_NAME), TextLocator(one)
        case "text", (str(first), str(second)):
            yield shorten(f"{first} | {second}", _LONGEST_NAME), PairLocator(first, second)
        case _, str() | Path() if Path(one).suffix.lower() in TABLES and Path(one).is_file():
            listing = unlabelled(Path(one), medium.modality)
            for problem in listing.bad:
                tell(problem)
            yield from ((row.name, row.locator) for row in listing.rows)
        case _, str() | Path():
            yield from _files(Path(one), medium)
        case "image", Image.Image():
            yield f"image#{i}", _ImageLocator(one)
        case "image", np.ndarray():
            yield from ((f"array#{i}", locator) for _, locator in _rows(one[None]))
        case _:
            raise DataError(_unknown(i, one, medium))


def _unknown(i: int, one: object, medium: Medium) -> str:
    expected = {
        "image": "a picture file, a folder, an array (N, H, W, C), PIL images or a list of these: "
        "model.predict(['photo.jpg'])",
        "text": "texts, or files as Path objects: model.predict(['a text'])",
        "audio": "a file of sound, a folder, or a list of these: model.predict(['word.wav'])",
    }
    return f"cannot predict on a {type(one).__name__} (number {i}). Expected {expected[medium.modality]}"


def _rows(pixels: np.ndarray) -> Iterator[tuple[str, Locator]]:
    for row in list_arrays(pixels, np.zeros(len(pixels), np.int64)).rows:
        yield row.name, row.locator


def _files(path: Path, medium: Medium) -> Iterator[tuple[str, Locator]]:
    """The file itself, whatever its ending; of a folder, every example below it, in the order of names."""
    if not path.is_dir():
        yield str(path), FileLocator(str(path))
        return
    found: Sequence[Path] = sorted(p for p in path.rglob("*") if p.suffix.lower() in medium.suffixes and not p.is_dir())
    if not found:
        raise DataError(
            f"{path} has no {medium.noun}s ({', '.join(sorted(medium.suffixes)[:6])}, ...). "
            f"Name a folder that has some: model.predict('new_{medium.noun}s')"
        )
    yield from ((str(p), FileLocator(str(p))) for p in found)
