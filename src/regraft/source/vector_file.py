"""Files of word vectors as a table that lies on disk: word2vec's text and binary form, GloVe's, fastText's, gzip.

    word2vec, fastText .vec    a line "COUNT WIDTH", then one line "WORD NUMBER …" per word
    GloVe                      the same without the first line
    word2vec binary            a line "COUNT WIDTH", then per word its bytes, a blank, and WIDTH float32

Mikolov et al.: word2vec, 2013, arXiv 1310.4546. Pennington et al.: GloVe, 2014. Bojanowski et al.: fastText, 2017,
arXiv 1607.04606.

N words, D numbers of each.
"""

from __future__ import annotations

import gzip
import json
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from regraft.errors import SourceError
from regraft.source.made import made_once

VECTOR_FILES = (".vec", ".vec.gz")  # endings that mean nothing else
_MAYBE = (".txt", ".bin", ".gz")
_WIDEST, _LONGEST_LINE, _BLOCK_ROWS, _BLOCK_BYTES = 1 << 14, 1 << 20, 2048, 1 << 22
_HEADER = 128  # bytes of a .npy file before its numbers
_FASTTEXT_MODEL = b"\xba\x16\x4f\x2f"
_DAMAGE = (OSError, EOFError, zlib.error)
Block = tuple[list[bytes], np.ndarray]


@dataclass(frozen=True)
class VectorTable:
    """Word vectors.

    Args:
        words: in the order of the file, each once.
        table: (N, D) float32, mapped into memory; writing to it changes nothing on disk.
        repeated: words that the file holds more than once; their first vector counts.
    """

    words: tuple[str, ...]
    table: np.ndarray
    repeated: tuple[str, ...]


@dataclass(frozen=True)
class _Layout:
    """What the start of a file says: how many words of how many numbers, and in which form."""

    count: int | None
    width: int
    binary: bool


def is_vectors(path: Path) -> bool:
    """Whether a file holds word vectors, by its name, or by its first lines where the name leaves it open."""
    if path.name.endswith(VECTOR_FILES):
        return True
    if not path.name.endswith(_MAYBE) or not path.is_file():
        return False
    try:
        return _layout(path).width > 1
    except SourceError:
        return False


def read_vectors(path: Path) -> VectorTable:
    """Read a file of word vectors; it is converted once for each content, beside the downloads.

    Args:
        path: in any of the forms above, perhaps compressed with gzip.

    Raises:
        SourceError: no such file, another format, or a damaged one.
    """
    if not path.is_file():
        raise SourceError(f"there is no file of word vectors at {path}. Pass one: load_source('vectors:glove.txt')")
    folder = made_once(path, "vectors", _convert)
    facts = json.loads((folder / "words.json").read_text(encoding="utf-8"))
    table = np.load(folder / "table.npy", mmap_mode="c")
    return VectorTable(tuple(facts["words"]), table, tuple(facts["repeated"]))


def _convert(path: Path, folder: Path) -> None:
    """A block at a time, so that only the words are held in memory."""
    layout = _layout(path)
    words: dict[str, None] = {}
    repeated: dict[str, None] = {}
    n_rows = 0
    with (folder / "table.npy").open("wb") as out:
        out.write(bytes(_HEADER))
        for raw, numbers in _blocks(path, layout):
            n_rows += len(raw)
            _check_finite(path, raw, numbers)
            fresh = []
            for i, word in enumerate(map(_decoded, raw)):
                fresh += [] if word in words else [i]
                (repeated if word in words else words)[word] = None
            np.ascontiguousarray(numbers[fresh], "<f4").tofile(out)
        _check_count(path, layout, n_rows)
        out.seek(0)
        header = {"descr": "<f4", "fortran_order": False, "shape": (len(words), layout.width)}
        np.lib.format.write_array_header_1_0(out, header)
    facts = {"words": list(words), "repeated": list(repeated)}
    (folder / "words.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")


def _decoded(word: bytes) -> str:
    return word.replace(b"\n", b" ").decode("utf-8", errors="backslashreplace")


def _check_finite(path: Path, words: list[bytes], numbers: np.ndarray) -> None:
    broken = np.flatnonzero(~np.isfinite(numbers).all(1))
    if len(broken):
        raise SourceError(
            f"{path} holds NaN or infinite numbers, first for the word {_decoded(words[broken[0]])!r}: the training "
            f"that made it diverged, or the file is damaged. Leave such words out, then pass vectors:{path}"
        )


def _check_count(path: Path, layout: _Layout, n_rows: int) -> None:
    if n_rows == 0:
        raise SourceError(f"{path} holds no words. Copy it again, then pass vectors:{path}")
    if layout.count is not None and n_rows != layout.count:
        raise SourceError(
            f"{path} promises {layout.count} words in its first line and holds {n_rows}. Copy it again; if it was cut "
            f"on purpose, let its first line be '{n_rows} {layout.width}'. Then pass vectors:{path}"
        )


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path)) if packed else path.open("rb")


def _layout(path: Path) -> _Layout:
    try:
        with _open(path) as file:
            start = file.read(_LONGEST_LINE)
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    head, _, rest = start.partition(b"\n")
    fields = head.split()
    if len(fields) == 2 and all(field.isdigit() for field in fields):
        count, width = (int(field[:12]) for field in fields)  # more digits are wrong in any case
        layout = _Layout(count, width, binary=bool(rest) and _numbers(rest.partition(b"\n")[0], width) is None)
    else:
        layout = _Layout(None, len(fields) - 1, binary=False)
    known = not start.startswith(_FASTTEXT_MODEL) and 1 <= layout.width <= _WIDEST
    if not known or (layout.count is None and _numbers(head, layout.width) is None):
        raise SourceError(
            f"{path} holds no word vectors of a form that is read: a first line 'COUNT WIDTH' or 'WORD NUMBER …', as "
            "word2vec, GloVe and fastText write them. Of fastText pass the .vec file, not the model: "
            "load_source('vectors:wiki.en.vec')"
        )
    return layout


def _damaged(path: Path, error: Exception) -> SourceError:
    return SourceError(
        f"{path} is damaged or cut short ({error or type(error).__name__}). Copy it again, then pass vectors:{path}"
    )


def _blocks(path: Path, layout: _Layout) -> Iterator[Block]:
    """Words and their numbers (n, D), many at a time."""
    try:
        with _open(path) as file:
            if layout.count is not None:
                file.readline(_LONGEST_LINE)
            yield from (_binary_blocks if layout.binary else _text_blocks)(path, file, layout)
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _text_blocks(path: Path, file: BinaryIO, layout: _Layout) -> Iterator[Block]:
    number = 1 if layout.count is None else 2
    lines = iter(lambda: file.readline(_LONGEST_LINE), b"")
    while block := list(islice(lines, _BLOCK_ROWS)):
        rows = [(number + i, line, _numbers(line, layout.width)) for i, line in enumerate(block) if line.strip()]
        wrong = next(((at, line) for at, line, row in rows if row is None), None)
        if wrong:
            raise SourceError(
                f"{path}, line {wrong[0]}: expected a word and {layout.width} numbers, found "
                f"{_decoded(wrong[1][:60])!r}. Correct or remove the line, then pass vectors:{path}"
            )
        number += len(block)
        parsed = [row for _, _, row in rows if row is not None]
        if parsed:
            yield [word for word, _ in parsed], np.stack([values for _, values in parsed])


def _numbers(line: bytes, width: int) -> tuple[bytes, np.ndarray] | None:
    """The word of a line and its numbers; None if it is no such line. Words with blanks in them do occur."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy only warns of what is no number
        for word, *rest in ([*line.split(b" ", 1)], line.rsplit(None, width)):
            try:
                values = np.fromstring(b" ".join(rest), np.float32, sep=" ")
            except (ValueError, DeprecationWarning, RuntimeWarning):
                continue
            if len(values) == width:
                return word.strip(), values
    return None


def _binary_blocks(path: Path, file: BinaryIO, layout: _Layout) -> Iterator[Block]:
    assert layout.count is not None
    pending, size = b"", 4 * layout.width
    words: list[bytes] = []
    rows: list[np.ndarray] = []
    at = done = 0
    while done < layout.count:
        end = pending.find(b" ", at)
        if end < 0 or len(pending) < end + 1 + size:
            more = file.read(_BLOCK_BYTES)
            if not more or len(pending) - at > _LONGEST_LINE + size:
                break
            if words:
                yield words, np.stack(rows)
            words, rows, pending, at = [], [], pending[at:] + more, 0
            continue
        words.append(pending[at:end].lstrip(b"\n"))
        rows.append(np.frombuffer(pending, "<f4", layout.width, end + 1))
        at, done = end + 1 + size, done + 1
    if words:
        yield words, np.stack(rows)
    if done == layout.count and (pending[at:] + file.read(_LONGEST_LINE)).strip(b"\n"):
        raise SourceError(
            f"{path} promises {done} words in its first line and holds more. Copy it again, then pass vectors:{path}"
        )
