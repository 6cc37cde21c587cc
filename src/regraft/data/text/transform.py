"""From a text to the row of token ids that a network's TextSpec asks for.

Shape letters: L tokens.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from regraft.data.from_spec import FromSpec
from regraft.data.text.opening import Opened, Pair
from regraft.data.text.tokens import tokens_of
from regraft.spec import TextSpec

_DROPPED = 0.1  # share of the words that a view leaves out


@dataclass(frozen=True)
class TextTransform(FromSpec[TextSpec]):
    """Splits into tokens as the source was trained; the same text always gives the same ids.

    View 0 is plain. Each view k > 0 leaves out a tenth of the words, at least one word stays (random deletion of
    EDA: Wei and Zou, 2019, arXiv:1901.11196).

    Args:
        spec: what the network expects.
        view: 0 plain, k > 0 the k-th augmented version, fixed by the example's key and k.

    Example:
        >>> TextTransform(TextSpec("a\\nfilm\\ngood", kind="words"))("a good film").tolist()
        [0, 2, 1]
    """

    name = "text"

    @property
    def dtype(self) -> np.dtype:
        """Of a row."""
        return np.dtype(np.int32)

    def __call__(self, text: Opened, key: str = "") -> np.ndarray:
        """Token ids as int32 (L,), as many as there are, at most `spec.length`.

        Args:
            text: one text, or a pair.
            key: the example's content key; views above 0 depend on it.
        """
        if self.view:
            chosen = random.Random(f"{key}:{self.view}")
            parts = [_thinned(part, chosen) for part in (text if isinstance(text, Pair) else (text,))]
            text = Pair(*parts) if isinstance(text, Pair) else parts[0]
        return np.array(tokens_of(self.spec)(text), np.int32)


def _thinned(text: str, chosen: random.Random) -> str:
    words = text.split()
    kept = [word for word in words if chosen.random() >= _DROPPED]
    return " ".join(kept or words[:1])
