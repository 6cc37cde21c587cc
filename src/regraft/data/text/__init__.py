"""Texts: opening what nobody vouches for, and preparing it for a network.

In: bytes in any of the usual encodings, or cells of a table. Out: a text or a pair of texts, and from it the row of
token ids that a `TextSpec` asks for.
Law: the same text, spec, view and key give the same ids, those of the tokenizer that the network was trained with.
"""

from regraft.data.text.coverage import Coverage, coverage
from regraft.data.text.length import padded_length
from regraft.data.text.opening import Pair, TextLocator, open_text
from regraft.data.text.tokens import SubwordTokenizer, tokens_of
from regraft.data.text.transform import TextTransform

__all__ = [
    "Coverage",
    "Pair",
    "SubwordTokenizer",
    "TextLocator",
    "TextTransform",
    "coverage",
    "open_text",
    "padded_length",
    "tokens_of",
]
