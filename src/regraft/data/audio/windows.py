"""Windows of recordings that are longer than what a network hears at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regraft.spec import AudioSpec

if TYPE_CHECKING:
    from regraft.data.dataset import Dataset

# Where the window of each view lies, from the beginning (0) to the end (1): the middle first, as view 0 has it, and
# whatever the number of views, they are spread over the recording. Five cover one of five windows' length.
_PLACES = (0.5, 0.0, 1.0, 0.25, 0.75)
WINDOWS = len(_PLACES)
_LONGER = 0.1  # of the window: of what is longer by less, every window hears nearly all


def window_start(spare: int, window: int, view: int) -> int | None:
    """Where the window of a view begins; None where views are no windows: of short recordings, or beyond the fifth.

    Args:
        spare: samples that the recording has more than the window; negative if it is shorter.
        window: samples of the window.
        view: 0 is the middle.

    Example:
        >>> [window_start(2000, 1000, view) for view in range(4)], window_start(50, 1000, 0)
        ([1000, 0, 2000, 500], None)
    """
    return int(_PLACES[view] * spare) if view < WINDOWS and spare > _LONGER * window else None


def share_of_long(dataset: Dataset, spec: AudioSpec) -> float:
    """The share of the recordings whose views are windows, 0 to 1.

    Args:
        dataset: recordings.
        spec: what the network hears.
    """
    seconds = spec.samples / spec.rate
    long = [example.width / example.height > (1 + _LONGER) * seconds for example in dataset.examples]
    return sum(long) / max(1, len(long))
