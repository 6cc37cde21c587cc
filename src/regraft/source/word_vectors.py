"""`vectors:PATH` and files of word vectors: a table, and a weighted mean over the words of a text.

Arora, Liang & Ma: A Simple but Tough-to-Beat Baseline for Sentence Embeddings, 2017 (smooth inverse frequency: a
word of probability p counts a / (a + p)).

B texts, L words of a text, N words of the table, D numbers of each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regraft.source.arch import build
from regraft.source.pooling import Pooling
from regraft.source.request import Request
from regraft.source.source import LoadReport, Source, make_source
from regraft.source.vector_file import VectorTable, read_vectors
from regraft.spec import TextSpec

ARCH = "python:regraft.source.word_vectors:WordVectors"
_SMOOTH = 1e-3  # "a"; the paper finds 1e-4 to 1e-2 equally good
_LENGTH = 512


class Frequency(nn.Module):
    """Each word's vector times a / (a + p); p from the word's place in a list ordered by frequency (Zipf's law).

    Args:
        n_words: of the list.
    """

    weights: Tensor

    def __init__(self, n_words: int) -> None:
        super().__init__()
        places = torch.arange(1, n_words + 1, dtype=torch.float64)
        probability = 1 / places / (1 / places).sum()
        weights = _SMOOTH / (_SMOOTH + probability)
        self.register_buffer("weights", weights.to(torch.float32).unsqueeze(1), persistent=False)

    def forward(self, vectors: Tensor, ids: Tensor) -> Tensor:
        """(B, L, D) and (B, L) to (B, L, D)."""
        return vectors * nn.functional.embedding(ids, self.weights)


class WordVectors(nn.Module):
    """A table of word vectors and their mean over a text.

    Args:
        n_words: rows of the table.
        width: numbers of a row.
        by_frequency: whether the words are ordered by frequency, so that frequent ones can count less.

    Example:
        >>> network = WordVectors(5, 3, by_frequency=False)
        >>> network(torch.tensor([[4, 2, 0]]), torch.tensor([[1, 1, 0]])).shape
        torch.Size([1, 3])
    """

    def __init__(self, n_words: int, width: int, by_frequency: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(n_words, width)
        self.frequency = Frequency(n_words) if by_frequency else None
        self.pooling = Pooling(["mean"])
        nn.init.normal_(self.table.weight, std=width**-0.5)  # vectors of about unit length, as trained ones are

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, L) ids and (B, L) ones and zeros to features (B, D)."""
        vectors = self.table(ids)
        return self.pooling(vectors if self.frequency is None else self.frequency(vectors, ids), mask)


def open_vectors(name: str, request: Request) -> Source:
    """`vectors:PATH` as a source.

    Raises:
        SourceError: no such file, another format, or a damaged one.
    """
    request.without_arch()
    found = read_vectors(Path(name).expanduser())
    n_words, width = found.table.shape
    arch_args: dict[str, Any] = {"n_words": n_words, "width": width, "by_frequency": by_frequency(found.words)}
    if request.random_weights:
        model, report = build(ARCH, arch_args, seed=request.seed)[0], None
    else:
        model, report = _filled(found, arch_args), _report(found)
    spec = TextSpec("\n".join(found.words), kind="words", length=_LENGTH)
    return make_source(request.uri, ARCH, arch_args, model, request.input_or(spec), report=report)


def by_frequency(words: tuple[str, ...]) -> bool:
    """Whether a list of words seems to be ordered by frequency: the first of it are then clearly shorter.

    Zipf: The Psychology of Language, 1935 (frequent words are short).

    Example:
        >>> by_frequency(("of", "to", "in", "people", "because", "however")), by_frequency(("aardvark", "abacus"))
        (True, False)
    """
    first = words[: min(100, max(1, len(words) // 10))]
    return _mean_length(first) < 0.85 * _mean_length(words)  # the mean of 100 lengths in any order varies by 4 %


def _mean_length(words: tuple[str, ...]) -> float:
    return sum(map(len, words)) / len(words)


def _filled(found: VectorTable, arch_args: dict[str, Any]) -> nn.Module:
    """The network on the table as it lies on disk: pages are read when they are used."""
    with torch.device("meta"):
        model = WordVectors(**arch_args)
    if model.frequency is not None:
        model.frequency = Frequency(arch_args["n_words"])
    model.table.weight = nn.Parameter(torch.from_numpy(found.table))
    return model


def _report(found: VectorTable) -> LoadReport:
    shown = ", ".join(repr(word) for word in found.repeated[:3])
    n = len(found.repeated)
    again = (f"{n} {'word' if n == 1 else 'words'} again, of which the first vector counts ({shown})",) if n else ()
    return LoadReport(matched=("table.weight",), ignored=again)
