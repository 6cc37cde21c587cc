"""Text encoders and decoders of Hugging Face's transformers, from folders in its layout or sentence-transformers'.

B texts, L tokens, D features, K classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regraft.data.text import Pair, SubwordTokenizer, tokens_of
from regraft.errors import SourceError
from regraft.source.pooling import Pooling, UnitLength
from regraft.source.source import LoadReport, Source
from regraft.source.transformers.hub import fresh, kinds, model_types, with_classifier
from regraft.source.transformers.saved import Saved, classifies, mixed_in
from regraft.source.transformers.sentence import Reading, reading, transformer_folder
from regraft.source.transformers.tokenizers import tokenizer_of
from regraft.spec import TextSpec

_LENGTH = 512  # of networks that know no longest text
# What a checkpoint may have switched on and a network for one pass over whole texts has no use for.
_SETTINGS = {"use_cache": False, "return_dict": True, "output_attentions": False, "output_hidden_states": False}


def is_text(fields: Mapping[str, Any]) -> bool:
    """Whether a config describes a network that reads text and nothing else."""
    return fields["model_type"] in model_types("MASKED_LM", "CAUSAL_LM", "TEXT_ENCODING") - model_types("IMAGE")


def open_text(saved: Saved) -> Source:
    """A text encoder or decoder of transformers as a source.

    Args:
        saved: what describes the input is a tokenizer, or sentence-transformers' `modules.json`.

    Raises:
        SourceError: a kind of network that is not read, weights that do not fit, or no tokenizer.
    """
    saved, asked = replace(saved, fields=saved.fields | _SETTINGS), saved.request.input
    if asked is not None and not isinstance(asked, TextSpec):
        raise saved.request.wrong_input("text")
    kind, how = text_class(saved.fields, str(saved.folder)), reading(saved.folder)
    arch_args = _arch_args(kind, saved.fields, how)
    model, report = _filled(saved, kind, arch_args) if saved.weights else (saved.built(kind, arch_args), None)
    spec = asked or _input(transformer_folder(saved.folder), model, how)
    if (separator := _separator(spec, kind, model)) is not None:
        arch_args["separator"] = separator
        model.segments = Segments(separator)
    return saved.source(kind, arch_args, model, spec, report)


def build_text(kind: type[nn.Module], fields: dict[str, Any], arch_args: dict[str, Any]) -> nn.Module:
    """A text encoder or decoder with fresh weights, read out as `arch_args` says."""
    return _as_network(fresh(kind, fields, **_without_pooler(kind)), arch_args)


def _filled(saved: Saved, kind: type[nn.Module], arch_args: Mapping[str, Any]) -> tuple[nn.Module, LoadReport]:
    """The network with its weights, and what became of every tensor."""
    model, report = saved.loaded(kind, saved.tensors(kind), **_without_pooler(kind))
    saved.check_fit(kind, report)
    return _as_network(model, arch_args), report


def text_class(fields: Mapping[str, Any], where: str) -> type[nn.Module]:
    """The class that a config describes: with its classifier if that is what was saved.

    Raises:
        SourceError: it describes an encoder with a decoder.
    """
    both = fields.get("is_encoder_decoder")
    if not both and (kind := with_classifier("SEQUENCE", fields, where)):
        return kind
    bare = kinds("MODEL_FOR_TEXT_ENCODING_MAPPING", fields, where)  # T5's encoder alone
    bare = bare or (() if both else kinds("MODEL_MAPPING", fields, where))
    if not bare:
        raise SourceError(
            f"{where} is a network of the kind {fields['model_type']!r}, which reads one text and writes another; "
            "expected an encoder (bert, distilbert, roberta, mpnet and others) or a decoder (gpt2 and others), for "
            "example load_source('hf:sentence-transformers/all-MiniLM-L6-v2')"
        )
    return bare[0]


def _arch_args(kind: type[nn.Module], fields: dict[str, Any], how: Reading) -> dict[str, Any]:
    if classifies(kind):
        return {"config": fields}
    pooling = how.pooling or (("lasttoken",) if _decodes(fields) else ("mean",))
    return {"config": fields, "pooling": list(pooling), "normalise": how.normalise}


def _decodes(fields: Mapping[str, Any]) -> bool:
    """Whether a token sees only what stands before it."""
    return fields["model_type"] in model_types("CAUSAL_LM") - model_types("MASKED_LM", "TEXT_ENCODING")


def _without_pooler(kind: type[nn.Module]) -> dict[str, bool]:
    """BERT's layer on the class token was trained to tell neighbouring sentences, and is no part of pooling."""
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(kind).parameters else {}


class Segments(nn.Module):
    """Which text of a pair each token belongs to: 0 up to the first separator, 1 after it.

    BERT's kind adds an embedding of its own to the tokens of the second text (Devlin et al., 2018, arXiv:1810.04805).

    Args:
        separator: the token between the texts; None for networks that do not tell them apart.

    Example:
        >>> Segments(separator=3)(torch.tensor([[2, 7, 3, 8, 9, 3], [2, 7, 8, 9, 9, 3]]))["token_type_ids"]
        tensor([[0, 0, 0, 1, 1, 1],
                [0, 0, 0, 0, 0, 0]])
    """

    def __init__(self, separator: int | None) -> None:
        super().__init__()
        self.separator = separator

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        """(B, L) ids to what transformers is given beside them: `token_type_ids` (B, L), or nothing."""
        if self.separator is None:
            return {}
        ends = (ids == self.separator).to(torch.int64)
        return {"token_type_ids": (ends.cumsum(1) - ends).clamp(max=1)}


def _separator(spec: TextSpec, kind: type[nn.Module], model: nn.Module) -> int | None:
    """The token that ends the first text of a pair; None if the network or its tokenizer does not number the texts.

    It is read off a pair, and seen to give the numbers that the tokenizer gives.
    """
    numbered = "token_type_ids" in inspect.signature(kind.forward).parameters
    if not numbered or getattr(model.config, "type_vocab_size", 0) < 2:
        return None
    tokenizer = tokens_of(spec)
    if not isinstance(tokenizer, SubwordTokenizer):
        return None
    ids, numbers = tokenizer.numbered(Pair("a", "a"))
    if 1 not in numbers or numbers[0] != 0:
        return None
    separator = ids[numbers.index(1) - 1]
    found = Segments(separator)(torch.tensor([ids]))["token_type_ids"]
    return separator if found[0].tolist() == numbers else None


class TextEncoder(nn.Module):
    """Mixed into a class of transformers: token ids in, one row per text out; names stay transformers' own."""

    segments: Segments
    pooling: nn.Module
    unit_length: nn.Module

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, L) ids and (B, L) ones and zeros to features (B, D)."""
        found = super().forward(input_ids=ids, attention_mask=mask, **self.segments(ids))  # type: ignore[misc]
        return self.unit_length(self.pooling(found.last_hidden_state, mask))


class TextClassifier(nn.Module):
    """Mixed into a class of transformers with a classifier: token ids in, logits out."""

    segments: Segments

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, L) ids and (B, L) ones and zeros to logits (B, K)."""
        found = super().forward(input_ids=ids, attention_mask=mask, **self.segments(ids))  # type: ignore[misc]
        return found.logits


class DecoderClassifier(nn.Module):
    """As `TextClassifier`; the last token is told by the mask, where transformers reads the ids a second time."""

    base_model: nn.Module
    pooling: nn.Module
    score: nn.Module

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, L) ids and (B, L) ones and zeros to logits (B, K)."""
        hidden = self.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        return self.score(self.pooling(hidden, mask))


def _as_network(model: nn.Module, arch_args: Mapping[str, Any]) -> nn.Module:
    base = type(model)
    mixin: type[nn.Module] = TextClassifier
    if not classifies(base):
        mixin = TextEncoder
        model.pooling = Pooling(arch_args["pooling"])
        model.unit_length = UnitLength() if arch_args["normalise"] else nn.Identity()
    elif hasattr(model, "score"):
        mixin = DecoderClassifier
        model.pooling = Pooling(["lasttoken"])
    model.segments = Segments(arch_args.get("separator"))
    return mixed_in(mixin, model)


def _input(folder: Path, model: nn.Module, how: Reading) -> TextSpec:
    """The tokenizer beside the weights, and the longest text that all parts can take."""
    vocabulary, longest = tokenizer_of(folder, _words(model), lowercase=how.lowercase)
    lengths = (longest, _positions(model), how.length, _LENGTH if how.length is None else None)
    return TextSpec(vocabulary, length=min(length for length in lengths if length is not None))


def _words(model: nn.Module) -> int:
    """How many different tokens the network has rows for."""
    table = model.get_input_embeddings()  # type: ignore[operator]
    return table.num_embeddings


def _positions(model: nn.Module) -> int | None:
    """How many places the network tells apart; RoBERTa's kind begins to count after its padding token."""
    for name, table in model.named_modules():
        if isinstance(table, nn.Embedding) and name.rpartition(".")[2] in ("position_embeddings", "wpe"):
            return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    found = getattr(model.config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None
