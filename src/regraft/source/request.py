"""What the caller of `load_source` asked for, beside the URI."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from regraft.errors import SourceError
from regraft.spec import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ChannelOrder,
    CropMode,
    InputOverride,
    InputSpec,
    Interpolation,
    Spec,
)

_MOST_VALUES = 3 * 2048 * 2048  # of one prepared example; what a user asks for is not limited


class MissingInput(SourceError):  # noqa: N818  (it reads as what it is)
    """A network that says the size of its input, and not how pictures are scaled.

    Args:
        message: what to do.
        size: (C, H, W).
    """

    def __init__(self, message: str, size: tuple[int, int, int]) -> None:
        super().__init__(message)
        self.size = size


@dataclass(frozen=True)
class Request:
    """The options of `load_source`, handed to the adapter of the URI's scheme.

    Args:
        uri: as the user wrote it.
        arch: which architecture bare weights belong to.
        input: in place of what the source says about its input, or of parts of it.
        random_weights: build the architecture only; no weights are read or downloaded.
        seed: of the random weights.
    """

    uri: str
    arch: str | None = None
    input: Spec | InputOverride | None = None
    random_weights: bool = False
    seed: int = 0

    def without_arch(self) -> None:
        """Refuse `arch` where the URI says the architecture already."""
        if self.arch is not None:
            raise SourceError(
                f"{self.uri} says its architecture itself; arch={self.arch!r} is for bare weight files. "
                f"Leave it out: load_source({self.uri!r})"
            )

    def picture_or(self, found: InputSpec | None, size: tuple[int, int, int] | None = None) -> InputSpec | None:
        """The input of a network that sees pictures: what was asked for, over what was found.

        Args:
            found: what the source says.
            size: (C, H, W), where it says no more than that.

        Returns:
            None where neither says enough.

        Raises:
            SourceError: an input of another modality was asked for, or one that makes no sense.
        """
        if self.input is None or isinstance(self.input, InputSpec):
            return self.input or found
        if not isinstance(self.input, InputOverride):
            raise self.wrong_input("image")
        return self.input.over(found, size)

    def wrong_input(self, taken: str) -> SourceError:
        """What to say of an input that was asked for and is of another modality.

        Args:
            taken: the modality of what the network takes.
        """
        asked = self.input.modality if self.input else ""
        return SourceError(
            f"{self.uri} takes input of the modality {taken!r}, and {asked!r} was asked for. Leave it out: "
            f"load_source({self.uri!r})"
        )

    def input_or(self, found: Spec | None, size: tuple[int, int, int] | None = None) -> Spec:
        """The input asked for, else the one that was found.

        Args:
            found: what the source says.
            size: (C, H, W), where it says no more than that.

        Raises:
            SourceError: there is neither, they are of different modalities, or what was found makes no sense.
        """
        if self.input and found and self.input.modality != found.modality:
            raise self.wrong_input(found.modality)
        if not self.input and found:
            self._check(found)
        spec = self.input or found
        if isinstance(spec, InputOverride):  # which only pictures have
            spec = self.picture_or(found if isinstance(found, InputSpec) else None, size)
        if spec is None:
            message = self._ask(size or (3, 32, 32))
            raise MissingInput(message, size) if size else SourceError(message)
        return spec

    def size_or(self, found: Sequence[Any], example: tuple[int, int, int] | None = None) -> tuple[int, int, int]:
        """(C, H, W) of the pictures that a network takes whose file may leave sides open.

        Args:
            found: (C, H, W) as the file says it; 0 or None where it takes any.
            example: (C, H, W) that the file was made with, for sides that nobody says.

        Raises:
            SourceError: a side is open and none was asked for, or another size was.
        """
        channels, height, width = found
        known = example or (channels or 3, height or 224, width or 224)
        if not (self._says_size or example or (height and width)):
            raise MissingInput(self._ask(known), known)
        picture = self.picture_or(None, known)
        asked = picture.size if picture else known
        if any(said and said != wanted for said, wanted in zip(found, asked, strict=True)):
            raise SourceError(
                f"{self.uri} takes pictures of (C, H, W) = ({channels or 'any'}, {height or 'any'}, {width or 'any'}), "
                f"asked for {tuple(asked)}. Pass input=InputSpec(size=({channels or 3}, {height or 224}, "
                f"{width or 224}))"
            )
        return int(asked[0]), int(asked[1]), int(asked[2])

    @property
    def _says_size(self) -> bool:
        return self.input is not None and self.input.size is not None

    def _check(self, found: Spec) -> None:
        """Refuse an input that no network has: a file's word for it is not trusted."""
        wrong = next(_wrong(found), "")
        if wrong:
            raise SourceError(
                f"{self.uri} says that its input has {wrong}, which makes no sense. Copy it again, or say the input "
                f"yourself: load_source({self.uri!r}, input=InputSpec(size=(3, 224, 224)))"
            )

    def _ask(self, size: tuple[int, int, int]) -> str:
        arch = f"arch={self.arch!r}, " if self.arch else ""
        mean, std = IMAGENET_MEAN[: size[0]], IMAGENET_STD[: size[0]]
        flags = (",".join(map(str, numbers)) for numbers in (size, mean, std))
        return (
            f"{self.uri} does not say what input it expects, so pictures cannot be prepared for it. "
            f"Pass it: load_source({self.uri!r}, {arch}input=InputSpec(size={size}, mean={mean}, std={std})), "
            "on the command line --input-size {} --mean {} --std {}".format(*flags)
        )


def _wrong(spec: Spec) -> Iterator[str]:
    """What is wrong with an input, in words."""
    whole = all(isinstance(n, int) and n > 0 for n in spec.size)
    if not whole or math.prod(spec.size) > _MOST_VALUES:
        yield f"the size {spec.size}"
    if not isinstance(spec, InputSpec):
        return
    if len(spec.size) != 3 or spec.size[0] not in (1, 3):
        yield f"the size {spec.size}"
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in (*spec.mean, *spec.std)):
        yield f"the mean {spec.mean} and std {spec.std}"
    elif min(spec.std) <= 0:
        yield f"the std {spec.std}"
    for name, kind in (("interpolation", Interpolation), ("crop_mode", CropMode), ("channel_order", ChannelOrder)):
        if (value := getattr(spec, name)) not in get_args(kind):
            yield f"the {name} {value!r}"
    if not isinstance(spec.crop_pct, int | float) or not 0 < spec.crop_pct <= 1:
        yield f"the crop_pct {spec.crop_pct!r}"
