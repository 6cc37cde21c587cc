"""From a text to token ids: by a tokenizer of Hugging Face's library, or by looking words up in a list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from string import punctuation
from typing import Any

from regraft.data.text.opening import Opened, Pair
from regraft.errors import MissingExtra, SourceError
from regraft.spec import TextSpec

# Clitics stay whole ('s, 'll), as in the vocabularies of word vectors; every other sign is a word of its own.
_PIECES = re.compile(r"'\w+|\w+|[^\w\s]")
_SIGNS = punctuation + "“”‘’„«»…–—¿¡"


@dataclass(frozen=True)
class Tokens:
    """What a vocabulary makes of a text.

    Args:
        length: of the row, before it is cut.
        looked_up: tokens that were looked up, known or not; special ones are not.
        words: number of words that these tokens stand for.
        unknown: those that the vocabulary does not know, in order.
    """

    length: int
    looked_up: int
    words: int
    unknown: list[str]


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

    def numbered(self, text: Opened) -> tuple[list[int], list[int]]:
        """Ids of the uncut text, and for each the number that the tokenizer gives its part of a pair."""
        found = _encoded(self._whole, text)
        return found.ids, found.type_ids

    def examine(self, text: Opened) -> Tokens:
        """How many tokens there are, and what is unknown."""
        found = _encoded(self._whole, text)
        parts = text if isinstance(text, Pair) else (text,)
        tokens = zip(found.sequence_ids, found.word_ids, found.ids, found.offsets, strict=True)
        own = [token for token in tokens if token[0] is not None]
        unknown = [parts[part][slice(*offsets)] for part, _, token, offsets in own if token == self._unknown]
        return Tokens(len(found.ids), len(own), len({token[:2] for token in own}), unknown)


class WordLookup:
    """A list of words; an id is the number of a line. Words that are not in it are dropped.

    A word is looked up as it is written, then in lower case, then without the signs around it, then in pieces.

    Args:
        spec: of kind "words".
    """

    def __init__(self, spec: TextSpec) -> None:
        words = spec.vocabulary.split("\n")
        self._number = {word: number for number, word in reversed(list(enumerate(words))) if word}
        self._length = spec.length

    def __call__(self, text: Opened) -> list[int]:
        """Ids of the first `length` known words; a pair is one text after the other."""
        known = (number for _, number in self._look_up(text) if number is not None)
        return list(islice(known, self._length))

    def examine(self, text: Opened) -> Tokens:
        """How many words there are, and which are unknown."""
        found = list(self._look_up(text))
        unknown = [word for word, number in found if number is None]
        return Tokens(len(found) - len(unknown), len(found), len(found), unknown)

    def _look_up(self, text: Opened) -> Iterator[tuple[str, int | None]]:
        for part in text if isinstance(text, Pair) else (text,):
            for written in part.split():
                yield from ((piece, self._find(piece)) for piece in self._pieces(written))

    def _pieces(self, written: str) -> list[str]:
        """The longest parts that are known: all of it, or what is between the signs, or its words."""
        if self._find(written) is not None:
            return [written]
        core = written.strip(_SIGNS)
        if core and self._find(core) is not None:
            before, _, after = written.partition(core)
            return [*before, core, *after]
        return _PIECES.findall(written)

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
