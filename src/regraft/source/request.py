"""What the caller of `load_source` asked for, beside the URI."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.errors import SourceError
from regraft.spec import InputSpec


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

    def input_or(self, found: InputSpec | None) -> InputSpec:
        """The input asked for, else the one that was found.

        Raises:
            SourceError: there is neither.
        """
        spec = self.input or found
        if spec is None:
            raise SourceError(
                f"{self.uri} does not say what input it expects, so pictures cannot be prepared for it. "
                f"Pass it: load_source({self.uri!r}, arch={self.arch!r}, input=InputSpec(size=(3, 32, 32), "
                "mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))), on the command line "
                "--input-size 3,32,32 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
            )
        return spec
