"""A delivered model small enough for every test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regraft.artifact import Classifier, Delivery, Results, load, save
from regraft.cache import Tap
from regraft.cut import trace, trace_source
from regraft.data import CLASSIFICATION, Task, read, transform_for
from regraft.data.decode import load_rows, pad
from regraft.data.text import tokens_of
from regraft.head import LinearHead
from regraft.source import Source, load_source
from regraft.spec import Spec, TextSpec
from regraft.testing import tiny_images, tiny_source, tiny_text_source, tiny_texts
from regraft.tune import Network, feature_width, full_network

CLASSES = ("disc", "square", "cross")


@dataclass(frozen=True)
class Delivered:
    """A model and a few pictures of its data."""

    network: Network
    source: Source
    taps: tuple[Tap, ...]
    pixels: np.ndarray

    def save(
        self,
        folder: Path,
        *,
        classes: Sequence[str] = CLASSES,
        task: Task = CLASSIFICATION,
        replace: bool = False,
        **results: Any,
    ) -> Path:
        delivery = Delivery(self.network, self.source, self.taps, classes, self.pixels, task=task)
        return save(folder, delivery, Results(**results), replace=replace)


def _deliver(*taps: Tap) -> Delivered:
    """A network with a random head on the given taps."""
    source = tiny_source()
    traced = trace(source.model, torch.zeros(2, *source.input.size))
    head = LinearHead.zeros(feature_width(traced, taps), len(CLASSES))
    torch.nn.init.normal_(head.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    X, _ = tiny_images(4)
    return Delivered(full_network(source, traced, taps, head), source, taps, X.transpose(0, 3, 1, 2))


@pytest.fixture(scope="session")
def deliver() -> Callable[..., Delivered]:
    """Makes a delivered model whose head reads the given taps."""
    return _deliver


@pytest.fixture(scope="session")
def delivered() -> Delivered:
    return _deliver(Tap("block1", 2), Tap("block2", 2))


@pytest.fixture(scope="session")
def saved(delivered: Delivered, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that no test may change."""
    metrics = {"test": {"accuracy": 0.9, "n": 30, "ci95": [0.74, 0.97]}, "recipe": "probe", "cut": "output"}
    evidence = {"verdict": "helps", "control": "from scratch", "difference": 0.1, "ci95": [0.02, 0.18]}
    return delivered.save(
        tmp_path_factory.mktemp("bundle") / "model",
        metrics=metrics | {"n_train": 15, "seed": 0},
        evidence=evidence,
        dataset="shapes",
    )


def deliver_texts(source: Source, rows: np.ndarray, classes: Sequence[str], folder: Path) -> Classifier:
    """A saved and loaded model of texts with a random head on the last features."""
    traced = trace_source(source)
    taps = [Tap(traced.feature.name, 1)]
    head = LinearHead.zeros(feature_width(traced, taps), len(classes))
    torch.nn.init.normal_(head.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    return load(save(folder, Delivery(full_network(source, traced, taps, head), source, taps, classes, rows)))


def prepared(texts: list[str], spec: Spec) -> np.ndarray:
    assert isinstance(spec, TextSpec)
    return pad([np.array(tokens_of(spec)(text), np.int32) for text in texts], transform_for(spec))


@pytest.fixture(params=["BertModel", "GPT2Model"])
def of_texts(request: pytest.FixtureRequest, tmp_path: Path) -> Classifier:
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film"]
    kind, sizes = {
        "BertModel": ("bert", {"num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}),
        "GPT2Model": ("gpt2", {"n_head": 2, "n_embd": 16, "n_positions": 48}),
    }[request.param]
    config = transformers.AutoConfig.for_model(kind, vocab_size=len(words), num_hidden_layers=2, **sizes)
    getattr(transformers, request.param)(config).save_pretrained(tmp_path / "source")
    tokenizer = transformers.BertTokenizerFast(vocab={word: number for number, word in enumerate(words)})
    tokenizer.save_pretrained(tmp_path / "source")
    source = load_source(str(tmp_path / "source"))
    rows = prepared(["a", "bad", "good"], source.input)  # as many as tokens: two sizes all the same
    return deliver_texts(source, rows, ("no", "yes"), tmp_path / "model")


@pytest.fixture(scope="session")
def of_tiny_texts(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """A model of three topics."""
    source = tiny_text_source()
    rows = load_rows(read(tiny_texts(2)), transform_for(source.input))
    return deliver_texts(source, rows, ("city", "forest", "sea"), tmp_path_factory.mktemp("texts") / "model")
