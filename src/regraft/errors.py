"""Every error that regraft raises on purpose.

    RegraftError            the user can mend it: one message, exit status 2
    ├── DataError           examples that cannot be found, read, or used
    ├── SourceError         a pretrained network that cannot be found, read, or matched to its architecture
    ├── CutError            a place in a network that is not a legal cut
    ├── CacheError          a feature cache that cannot be read or written
    ├── RecipeError         a recipe that does not fit its source
    ├── RunError            a run folder that cannot be used
    ├── BundleError         a saved model that does not load or fails its self-test
    └── MissingExtra        an optional dependency that is not installed

A message says what happened, what was expected, and ends with the call that would have worked.
Anything else that escapes is a defect: traceback, exit status 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RegraftError(Exception):
    """A mistake that the user can mend; the command line prints it without a traceback and exits with 2."""


class DataError(RegraftError):
    """Examples that cannot be found, read, or used."""


class SourceError(RegraftError):
    """A pretrained network that cannot be found, read, or matched to its architecture."""


class CutError(RegraftError):
    """A place in a network that is not a legal cut."""


class CacheError(RegraftError):
    """A feature cache that cannot be read or written."""


class RecipeError(RegraftError):
    """A recipe that does not fit its source."""


class RunError(RegraftError):
    """A run folder that cannot be used."""


class BundleError(RegraftError):
    """A saved model that does not load or fails its self-test."""


class MissingExtra(RegraftError):  # noqa: N818  (it reads as what it is)
    """An optional dependency that is not installed.

    Args:
        package: the package that failed to import.
        extra: the extra of regraft that installs it.
        purpose: what it would have been used for, as the end of "… is needed to".
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{package} is needed to {purpose}. Install it: pip install 'regraft[{extra}]'")


def closest(name: str, options: Iterable[str], n: int = 3, cutoff: float = 0.5) -> str:
    """The options nearest to a misspelt name, ready to end a message with; empty if none is near.

    Example:
        >>> closest("resnt18", ["resnet18", "vgg11"])
        " Did you mean 'resnet18'?"
    """
    return did_you_mean(difflib.get_close_matches(name, list(options), n=n, cutoff=cutoff))


def did_you_mean(near: Iterable[str]) -> str:
    """Some names as a question to end a message with; empty if there are none.

    Example:
        >>> did_you_mean(["conv1", "conv2"])
        " Did you mean 'conv1' or 'conv2'?"
    """
    named = " or ".join(map(repr, near))
    return f" Did you mean {named}?" if named else ""


def first_line(error: Exception) -> str:
    """What another library said, short enough to stand inside a message of ours; its class if it said nothing.

    Example:
        >>> first_line(ValueError("\\nno such layer\\nAt:\\n  line 3")), first_line(KeyError())
        ('no such layer', 'KeyError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
