"""How well a vocabulary covers some texts, and how much of them a network will see."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.data.text.tokens import tokens_of
from regraft.spec import TextSpec

if TYPE_CHECKING:
    from regraft.data.dataset import Dataset

_SHOWN = 20  # unknown words that are named
_KNOWN = 0.9  # share of known tokens below which a person should look for another source
_PIECES = 3.0  # tokens per word above which a vocabulary spells rather than reads; English under BERT has about 1.2
_CUT = 0.05  # share of the texts that may be longer than what the network reads


@dataclass(frozen=True)
class Coverage:
    """What a vocabulary makes of some texts.

    Args:
        n: number of texts.
        tokens: (or words) looked up in all of them, known or not; special ones are not.
        known: share of the tokens (or words) that the vocabulary knows, 0 to 1.
        unknown: the most frequent of the others and how often they occur.
        pieces: tokens per word (fertility: Rust et al., 2021, arXiv:2012.15613).
        cut: texts that are longer than the network reads.
        lost: share of what would be read that is cut off.
        blank: texts without a single known word.
    """

    n: int
    tokens: int
    known: float
    unknown: tuple[tuple[str, int], ...]
    pieces: float
    cut: int
    lost: float
    blank: int

    def warnings(self) -> list[str]:
        """What a person should know, in words; empty if the vocabulary suits the texts."""
        found = []
        if self.known < _KNOWN:
            words = sorted(self.unknown, key=lambda pair: not any(map(str.isalnum, pair[0])))  # signs last
            examples = ", ".join([*(repr(word) for word, _ in words[:5]), *(["..."] if len(words) > 5 else [])])
            found.append(f"the vocabulary knows {self.known:.0%} of the words; unknown are {examples}")
        if self.pieces > _PIECES:
            found.append(f"a word takes {self.pieces:.1f} tokens: the source hardly knows this language or these words")
        if self.cut > _CUT * self.n:
            found.append(f"{self.cut} of {self.n} texts are longer than the source reads; {self.lost:.0%} is cut off")
        if self.blank:
            found.append(f"{self.blank} of {self.n} texts have no word that the vocabulary knows")
        return found


def coverage(dataset: Dataset, spec: TextSpec) -> Coverage:
    """How well the vocabulary of a source covers the texts of a dataset.

    Args:
        dataset: of texts.
        spec: what the network expects.

    Raises:
        DataError: a text that is no longer there.
        MissingExtra: the tokenizers package is not installed.

    Example:
        >>> from regraft.data import read
        >>> films = read((["a good film", "a bad film", "good", "bad"], [1, 0, 1, 0]), val_fraction=0, test_fraction=0)
        >>> found = coverage(films, TextSpec("a\\ngood\\nfilm", kind="words", length=2))
        >>> found.known, found.unknown, found.cut, found.blank
        (0.75, (('bad', 2),), 1, 1)
    """
    tokenizer = tokens_of(spec)
    texts = [tokenizer.examine(dataset.open(i)) for i in range(len(dataset))]
    unknown = Counter(word for text in texts for word in text.unknown)
    tokens = sum(text.looked_up for text in texts)
    over = [max(0, text.length - spec.length) for text in texts]
    return Coverage(
        n=len(texts),
        tokens=tokens,
        known=(tokens - unknown.total()) / max(1, tokens),
        unknown=tuple(unknown.most_common(_SHOWN)),
        pieces=tokens / max(1, sum(text.words for text in texts)),
        cut=sum(n > 0 for n in over),
        lost=sum(over) / max(1, sum(text.length for text in texts)),
        blank=sum(len(text.unknown) == text.looked_up for text in texts),
    )
