"""The tokenizer beside a network's weights, as the one file that says all of it: `tokenizer.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from regraft.data.text import tokens_of
from regraft.errors import SourceError, first_line
from regraft.source.files import read_json
from regraft.source.transformers.hub import library, quiet
from regraft.spec import TextSpec

_FILES = "tokenizer.json, or vocab.txt (BERT), or vocab.json with merges.txt (GPT-2, RoBERTa)"
_SOME = "a snowman ☃"  # words that a vocabulary knows, and some that it has to have a token for
_OLDER = ("vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")


def tokenizer_of(folder: Path, n_tokens: int, *, lowercase: bool = False) -> tuple[str, int | None]:
    """The content of a folder's tokenizer.json, made of older files where there is none, and its longest text.

    Args:
        folder: where the tokenizer's files lie.
        n_tokens: how many different tokens the network knows.
        lowercase: whether texts are made lower case first.

    Returns:
        the content, without padding and cutting, which come with a batch; the most tokens that the tokenizer's
        settings allow, None if they do not say.

    Raises:
        SourceError: there is no tokenizer, it is damaged, or it knows tokens that the network does not.
    """
    fields = _read(folder) | {"padding": None, "truncation": None}
    try:
        ids = _ids(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, repr(error)) from error
    extra = [token for token, i in ids.items() if i >= n_tokens]
    if extra:
        raise SourceError(
            f"the tokenizer in {folder} knows {len(ids)} tokens, the network {n_tokens} ({extra[:3]} have no row). "
            f"Copy the tokenizer and the weights again, from the same place, then pass {folder}"
        )
    content = json.dumps(_lowered(fields) if lowercase else fields, ensure_ascii=False)
    try:
        tokens_of(TextSpec(content))(_SOME)
    except Exception as error:  # the library raises a bare one where a token is missing
        raise _damaged(folder, first_line(error)) from error
    return content, _longest(folder)


def _read(folder: Path) -> dict[str, Any]:
    if (folder / "tokenizer.json").is_file():
        return read_json(folder / "tokenizer.json")
    if not any((folder / name).is_file() for name in _OLDER):
        raise SourceError(
            f"{folder} has no tokenizer, so texts cannot be turned into numbers. Copy {_FILES} beside config.json, "
            f"then pass {folder}"
        )
    try:
        with quiet():
            found = library().AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        return json.loads(found.backend_tokenizer.to_str())
    except Exception as error:  # a stranger's files may fail anywhere in two libraries
        raise _damaged(folder, first_line(error)) from error


def _damaged(folder: Path, reason: str) -> SourceError:
    return SourceError(
        f"the tokenizer in {folder} cannot be read ({reason}). Expected {_FILES}. Copy its files again, then pass "
        f"{folder}"
    )


def _ids(fields: dict[str, Any]) -> dict[str, int]:
    """Every token and its number; the vocabularies of some models are lists in the order of the numbers."""
    vocabulary = fields["model"]["vocab"]
    if isinstance(vocabulary, list):
        vocabulary = {str(entry[0]): i for i, entry in enumerate(vocabulary)}
    added = {str(token["content"]): int(token["id"]) for token in fields.get("added_tokens") or []}
    return {str(token): int(i) for token, i in vocabulary.items()} | added


def _longest(folder: Path) -> int | None:
    """What the tokenizer's settings say; very large numbers mean that they say nothing."""
    path = folder / "tokenizer_config.json"
    found = read_json(path).get("model_max_length") if path.is_file() else None
    return found if isinstance(found, int) and 0 < found < 1 << 21 else None


def _lowered(fields: dict[str, Any]) -> dict[str, Any]:
    """The same tokenizer, with texts made lower case before all else."""
    steps = [{"type": "Lowercase"}, *([fields["normalizer"]] if fields.get("normalizer") else [])]
    return fields | {"normalizer": {"type": "Sequence", "normalizers": steps}}
