"""How long texts are for a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from regraft.data.text.tokens import tokens_of
from regraft.spec import TextSpec

if TYPE_CHECKING:
    from regraft.data.dataset import Dataset

_COUNTED = 256  # texts, which tell the length well enough to reckon with
_BATCH = 16  # of them that are padded together


def padded_length(dataset: Dataset, spec: TextSpec) -> int:
    """About how many tokens a text comes to in training, where it is padded to the longest of others of like length.

    Args:
        dataset: of texts; up to 256 of them, that their keys choose, are counted.
        spec: what the network expects; longer texts are cut.

    Raises:
        DataError: a text that is no longer there.
        MissingExtra: the tokenizers package is not installed.

    Example:
        >>> from regraft.data import read
        >>> films = read((["good film", "film", "a", "good"], [1, 0, 1, 0]), val_fraction=0, test_fraction=0)
        >>> padded_length(films, TextSpec("a\\ngood\\nfilm", kind="words"))
        2
    """
    tokenizer = tokens_of(spec)
    counted = sorted(range(len(dataset)), key=dataset.keys.__getitem__)[:_COUNTED]
    lengths = np.sort([len(tokenizer(dataset.open(i))) for i in counted])[::-1]
    padded = np.repeat(lengths[::_BATCH], _BATCH)[: len(lengths)]
    return max(1, round(float(padded.mean())))
