"""The cells of the comparison: a data set, how many examples of each class, a source; written once for everybody."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, UnidentifiedImageError

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import DATA

from regraft.data import Dataset, Example, read
from regraft.source import load_source
from regraft.spec import InputSpec

IMAGENET = str(DATA / "weights" / "mobilenetv2_100_imagenet")
EMBEDDED = "regraft:cifar10-resnet20"
CELL = "cell.json"  # in the folder of a cell


@dataclass(frozen=True)
class Cell:
    """One comparison.

    Args:
        data: "digits", or a folder of the shared data.
        k: training examples of each class.
        source: URI of the pretrained network.
        side: pixels, where the pictures are not fed at the source's own size.
        per_class: (validation, test) examples of each class; None keeps what the data set has.
        spare: validation examples of each class, taken from the training examples that were not drawn; what the data
            set has for validation is then tested on as well. For a data set with few examples to test on.
    """

    data: str
    k: int
    source: str = IMAGENET
    side: int | None = None
    per_class: tuple[int, int] | None = None
    spare: int | None = None

    @property
    def name(self) -> str:
        """As on the command line: "sign_digits-5"."""
        return f"{self.data}-{self.k}"

    @property
    def input(self) -> InputSpec:
        """What every contestant feeds to the network."""
        spec = load_source(self.source).input
        return spec if self.side is None else InputSpec((3, self.side, self.side), spec.mean, spec.std)

    @property
    def flags(self) -> list[str]:
        """The input as `regraft fit` takes it."""
        if self.side is None:
            return []
        spec = self.input
        numbers = {"--input-size": spec.size, "--mean": spec.mean, "--std": spec.std}
        return [word for flag, values in numbers.items() for word in (flag, ",".join(map(str, values)))]


CELLS = {
    cell.name: cell
    for cell in (
        Cell("sign_digits", 5),
        Cell("sign_digits", 10),
        Cell("sign_digits", 25),
        Cell("ants_bees", 5, spare=40),
        Cell("ants_bees", 25, spare=40),
        Cell("cifar10", 10, side=96, per_class=(20, 100)),
        Cell("digits", 5, source=EMBEDDED),
    )
}


def write(cell: Cell, seed: int, root: Path) -> Path:
    """The folder root/CELL-sSEED with SPLIT/CLASS/PICTURE and cell.json; made if it is not there."""
    folder = root / f"{cell.name}-s{seed}"
    if (folder / CELL).is_file():
        return folder
    whole = read(cell.data if cell.data == "digits" else DATA / "datasets" / cell.data)
    data = _smaller(whole.per_class(cell.k, seed), cell.per_class)
    if cell.spare:
        data = _all_tested(data, _left_over(whole, data, cell.spare))
    for i, example in enumerate(data.examples):
        target = folder / example.split / data.classes[example.label]
        target.mkdir(parents=True, exist_ok=True)
        content, suffix = _encoded(data, i)
        (target / f"{example.key[:16]}{suffix}").write_bytes(content)
    facts = {"name": cell.name, "seed": seed, "source": cell.source, "input": cell.input.to_dict()}
    (folder / CELL).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return folder


def _smaller(data: Dataset, per_class: tuple[int, int] | None) -> Dataset:
    """Validation and test cut down to the pictures of the lowest content key in each class."""
    if per_class is None:
        return data
    n_val, n_test = per_class
    kept = [*_lowest(data, "train", None), *_lowest(data, "val", n_val), *_lowest(data, "test", n_test)]
    return replace(data, examples=tuple(kept))


def _left_over(whole: Dataset, data: Dataset, n: int) -> list[Example]:
    """n training examples of each class that were not drawn."""
    drawn = {example.key for example in data.split("train").examples}
    rest = tuple(e for e in whole.split("train").examples if e.key not in drawn)
    return [*_lowest(replace(whole, examples=rest), "train", n)]


def _all_tested(data: Dataset, val: Sequence[Example]) -> Dataset:
    """Other examples to validate on, and all that were not trained on to test on."""
    splits = {"train": "train", "val": "test", "test": "test"}
    kept = [replace(e, split=splits[e.split]) for e in data.examples]
    return replace(data, examples=(*kept, *(replace(e, split="val") for e in val)))


def _lowest(data: Dataset, split: str, n: int | None) -> Sequence[Example]:
    members = sorted(data.split(split).examples, key=lambda e: (e.label, e.key))
    by_class = [[e for e in members if e.label == label][:n] for label in range(len(data.classes))]
    return [example for some in by_class for example in some]


def _encoded(data: Dataset, i: int) -> tuple[bytes, str]:
    """The file's own bytes; a picture that was an array becomes a PNG."""
    content = data.examples[i].locator.content()
    try:
        kind = Image.open(io.BytesIO(content)).format or "PNG"
    except UnidentifiedImageError:
        stream = io.BytesIO()
        data.open(i).save(stream, "PNG")
        return stream.getvalue(), ".png"
    return content, ".jpg" if kind == "JPEG" else f".{kind.lower()}"
