"""What the caller of `load_source` asked for, beside the URI."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.errors import SourceError
from regraft.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec


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
        input: overrides what the source says about its input.
        random_weights: build the architecture only; no weights are read or downloaded.
        seed: of the random weights.
    """

    uri: str
    arch: str | None = None
    input: InputSpec | None = None
    random_weights: bool = False
    seed: int = 0

    def without_arch(self) -> None:
        """Refuse `arch` where the URI says the architecture already."""
        if self.arch is not None:
            raise SourceError(
                f"{self.uri} says its architecture itself; arch={self.arch!r} is for bare weight files. "
                f"Leave it out: load_source({self.uri!r})"
            )

    def input_or(self, found: InputSpec | None, size: tuple[int, int, int] | None = None) -> InputSpec:
        """The input asked for, else the one that was found.

        Args:
            found: what the source says.
            size: (C, H, W), where it says no more than that.

        Raises:
            SourceError: there is neither.
        """
        spec = self.input or found
        if spec is None:
            message = self._ask(size or (3, 32, 32))
            raise MissingInput(message, size) if size else SourceError(message)
        return spec

    def _ask(self, size: tuple[int, int, int]) -> str:
        arch = f"arch={self.arch!r}, " if self.arch else ""
        mean, std = IMAGENET_MEAN[: size[0]], IMAGENET_STD[: size[0]]
        flags = (",".join(map(str, numbers)) for numbers in (size, mean, std))
        return (
            f"{self.uri} does not say what input it expects, so pictures cannot be prepared for it. "
            f"Pass it: load_source({self.uri!r}, {arch}input=InputSpec(size={size}, mean={mean}, std={std})), "
            "on the command line --input-size {} --mean {} --std {}".format(*flags)
        )
