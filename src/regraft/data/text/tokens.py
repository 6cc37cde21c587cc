"""From a text to token ids: by a tokenizer of Hugging Face's library, or by looking words up in a list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from regraft.data.text.opening import Opened, Pair
from regraft.errors import MissingExtra, SourceError
from regraft.spec import TextSpec

# Clitics stay whole ('s, 'll), as in the vocabularies of word vectors; every other sign is a word of its own.
_PIECES = re.compile(r"'\w+|\w+|[^\w\s]")


@dataclass(frozen=True)
class Tokens:
    """What a tokenizer makes of a text, before it is cut to length.

    Args:
        ids: of every token, the special ones included.
        unknown: the words or signs that the vocabulary does not know, in order.
        words: number of words that the tokens stand for.
    """

    ids: list[int]
    unknown: list[str]
    words: int


class SubwordTokenizer:
    """A `tokenizer.json`, cutting to length as transformers does: special tokens stay.

    Args:
        spec: of kind "tokenizer".

    Raises:
        SourceError: the vocabulary is no tokenizer.
    """

    def __init__(self, spec: TextSpec) -> None:
        self._whole = _read(spec)
        self._whole.no_truncation()
        self._cutting = _read(spec)
        self._cutting.enable_truncation(spec.length)
        self._unknown = _unknown_id(self._whole)

    def __call__(self, text: Opened) -> list[int]:
        """Ids of at most `length` tokens; a pair is joined as the tokenizer joins pairs."""
        return _encoded(self._cutting, text).ids

    def examine(self, text: Opened) -> Tokens:
        """All of the tokens, and what is unknown."""
        found = _encoded(self._whole, text)
        parts = text if isinstance(text, Pair) else (text,)
        unknown = [
            parts[sequence][slice(*offsets)]
            for sequence, token, offsets in zip(found.sequence_ids, found.ids, found.offsets, strict=True)
            if token == self._unknown and sequence is not None
        ]
        words = set(zip(found.sequence_ids, found.word_ids, strict=True)) - {(None, None)}
        return Tokens(found.ids, unknown, len(words))


class WordLookup:
    """A list of words; an id is the number of a line. Words that are not in it are dropped.

    A word is looked up as it is written, then in lower case, then without the signs around and inside it.

    Args:
        spec: of kind "words".
    """

    def __init__(self, spec: TextSpec) -> None:
        words = spec.vocabulary.split("\n")
        self._number = {word: number for number, word in reversed(list(enumerate(words))) if word}
        self._length = spec.length

    def __call__(self, text: Opened) -> list[int]:
        """Ids of the first `length` known words; a pair is one text after the other."""
        return self.examine(text).ids[: self._length]

    def examine(self, text: Opened) -> Tokens:
        """All of the known words, and the others."""
        parts = text if isinstance(text, Pair) else (text,)
        found = [pair for part in parts for written in part.split() for pair in self._look_up(written)]
        ids = [number for _, number in found if number is not None]
        return Tokens(ids, [word for word, number in found if number is None], len(found))

    def _look_up(self, written: str) -> Iterator[tuple[str, int | None]]:
        whole = self._find(written)
        pieces = [written] if whole is not None else _PIECES.findall(written)
        yield from ((piece, self._find(piece)) for piece in pieces)

    def _find(self, word: str) -> int | None:
        number = self._number.get(word)
        return self._number.get(word.lower()) if number is None else number


@lru_cache(maxsize=8)
def tokens_of(spec: TextSpec) -> SubwordTokenizer | WordLookup:
    """The tokenizer of a spec: called with a text, it gives a list of ids.

    Args:
        spec: what the network expects.

    Raises:
        SourceError: the vocabulary is no tokenizer.
        MissingExtra: the tokenizers package is not installed.

    Example:
        >>> tokens_of(TextSpec("the\\ncat\\n'm\\ni", kind="words"))("The CAT, I'm sure")
        [0, 1, 3, 2]
    """
    return WordLookup(spec) if spec.kind == "words" else SubwordTokenizer(spec)


def _encoded(tokenizer: Any, text: Opened) -> Any:
    return tokenizer.encode(*text) if isinstance(text, Pair) else tokenizer.encode(text)


def _read(spec: TextSpec) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra("tokenizers", "hf", "prepare texts for this source") from error
    try:
        tokenizer = Tokenizer.from_str(spec.vocabulary)
    except Exception as error:  # the library raises plain Exception
        raise SourceError(
            f"the vocabulary is not the content of a tokenizer.json ({error}). "
            "Expected TextSpec(Path('tokenizer.json').read_text())"
        ) from error
    tokenizer.no_padding()
    return tokenizer


def _unknown_id(tokenizer: Any) -> int | None:
    """Id of the token that stands for what is unknown; byte-level vocabularies know everything."""
    name = getattr(tokenizer.model, "unk_token", None)
    return None if name is None else tokenizer.token_to_id(name)
