"""Writing a bundle: what is delivered goes into a folder of the format that `bundle` describes.

Shape letters: n stored examples, K outputs.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft.artifact.bundle import (
    CARD,
    CONFIG,
    FORMAT,
    LABELS,
    SELFTEST,
    VERSION,
    WEIGHTS,
    fits,
    kept_apart,
    needed_names,
    probabilities,
)
from regraft.artifact.card import model_card
from regraft.cache import Tap
from regraft.data import CLASSIFICATION, Task, transform_for
from regraft.digest import digest_file
from regraft.errors import BundleError
from regraft.run import write_atomic
from regraft.source import Source, save_tensors
from regraft.tune import Network

_MOST_EXAMPLES = 8  # of the self-test


@dataclass(frozen=True)
class Delivery:
    """What is delivered: all that answers depend on.

    Args:
        network: from prepared rows to class scores (`full_network`).
        source: the source it was made from.
        taps: what its head reads.
        classes: names, in the order of the outputs: of classes, of labels or of numbers, as the task says.
        rows: prepared examples, as `load_rows` gives them; the first 8 become the self-test.
        recipe: how it was made, plain values; what it replaces and adds is built again from it.
        views: of each example, whose predictions are to be averaged; 1 is the plain one alone.
        task: what the outputs are.
    """

    network: Network
    source: Source
    taps: Sequence[Tap]
    classes: Sequence[str]
    rows: np.ndarray
    recipe: Mapping[str, Any] = field(default_factory=dict)
    views: int = 1
    task: Task = CLASSIFICATION


@dataclass(frozen=True)
class Results:
    """What is known of a delivered model, for its card; no answer depends on it.

    Args:
        dataset: name of the data.
        metrics: the run's metrics.json, which config.json holds as well.
        evidence: the run's evidence.json.
    """

    dataset: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)


def save(folder: str | Path, delivery: Delivery, results: Results | None = None, *, replace: bool = False) -> Path:
    """Write a delivered model as a bundle.

    Args:
        folder: where; must not hold anything yet.
        delivery: the model and all that its answers depend on.
        results: how good it is and on which data, where that is known.
        replace: put the new bundle in the place of an older one.

    Returns:
        The folder.

    Raises:
        BundleError: the folder holds something, there is no example, or classes and head disagree.

    Example:
        >>> import tempfile
        >>> from regraft.artifact import load
        >>> from regraft.cache import Tap
        >>> from regraft.cut import trace_source
        >>> from regraft.head import LinearHead
        >>> from regraft.testing import tiny_images, tiny_source
        >>> from regraft.tune import full_network
        >>> source = tiny_source()
        >>> traced = trace_source(source)
        >>> taps = [Tap("block2", 2)]
        >>> network = full_network(source, traced, taps, LinearHead.zeros(64, 3))
        >>> X, _ = tiny_images(2)
        >>> where = Path(tempfile.mkdtemp()) / "model"
        >>> _ = save(where, Delivery(network, source, taps, ["disc", "square", "cross"], X.transpose(0, 3, 1, 2)))
        >>> load(where).classes
        ('disc', 'square', 'cross')
    """
    folder, results = Path(folder), results or Results()
    _check_folder(folder, replace=replace)
    _check_delivery(delivery)
    with renamed_when_whole(folder) as new:
        save_tensors(_tensors(delivery.network), new / WEIGHTS, metadata={"format": "pt"})
        save_tensors(_examples(delivery), new / SELFTEST)
        config = _config(delivery, results, new)
        (new / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (new / LABELS).write_text("".join(f"{_one_line(name)}\n" for name in delivery.classes), encoding="utf-8")
        card = model_card(config, evidence=dict(results.evidence), dataset=results.dataset)
        (new / CARD).write_text(card, encoding="utf-8")
        for file in (WEIGHTS, SELFTEST):  # which safetensors writes for the owner's eyes only
            (new / file).chmod(0o644)
    return folder


def _examples(delivery: Delivery) -> dict[str, torch.Tensor]:
    """The self-test: a few examples and what the network says of them."""
    rows = np.ascontiguousarray(delivery.rows[:_MOST_EXAMPLES])
    expected = probabilities(delivery.network, rows, task=delivery.task)
    return {"rows": torch.from_numpy(rows), "probabilities": torch.from_numpy(expected)}


def _config(delivery: Delivery, results: Results, folder: Path) -> dict[str, Any]:
    """The content of config.json; a vocabulary goes into a file of its own beside the weights."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "source": _source_dict(delivery),
        "input": kept_apart(delivery.source.input, folder),
        "taps": [asdict(tap) for tap in delivery.taps],
        "classes": list(delivery.classes),
        "task": delivery.task.to_dict(),
        "views": delivery.views,
        "recipe": dict(delivery.recipe),
        "metrics": dict(results.metrics),
        "digest": digest_file(folder / WEIGHTS),
    }


def write_card(folder: str | Path, *, evidence: Mapping[str, Any], dataset: str = "") -> None:
    """Write a bundle's card again, now that its evidence is known.

    Args:
        folder: a saved bundle.
        evidence: the run's evidence.json.
        dataset: name of the data.
    """
    config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    write_atomic(Path(folder) / CARD, model_card(config, evidence=dict(evidence), dataset=dataset))


def _tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """On the CPU, each with its own memory: safetensors refuses tensors that share theirs."""
    state = network.state_dict()
    return {name: state[name].detach().cpu().clone().contiguous() for name in needed_names(network)}


def _source_dict(delivery: Delivery) -> dict[str, Any]:
    source = delivery.source
    classes = {} if delivery.network.logits is None else {"classes": list(source.classes)}
    return {
        "uri": source.uri,
        "arch": source.arch,
        "arch_args": source.arch_args,
        "digest": source.weights_digest,
        "licence": source.licence,
        "origin": source.origin,
        **classes,
    }


def _one_line(name: str) -> str:
    return " ".join(name.split())


def _check_folder(folder: Path, *, replace: bool) -> None:
    if folder.exists() and not replace and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleError(f"{folder} already holds something. Choose another: save({str(folder) + '-2'!r}, ...)")
    if replace and folder.exists() and any(folder.iterdir()) and not (folder / CONFIG).is_file():
        raise BundleError(f"{folder} is no saved model, so it is not replaced. Choose another folder: save(...)")


def _check_delivery(delivery: Delivery) -> None:
    rows, spec = delivery.rows, delivery.source.input
    if len(rows) == 0 or not fits(rows, spec):
        raise BundleError(
            f"rows must be {transform_for(spec).dtype} (n, {', '.join(map(str, spec.size))}) with n at least 1, got "
            f"{rows.dtype} {rows.shape}. Pass prepared examples: "
            "save(folder, Delivery(rows=load_rows(dataset, transform_for(source.input)), ...))"
        )
    outputs = delivery.network.state_dict()["head.weight"].shape[0]
    if outputs != len(delivery.classes):
        raise BundleError(
            f"the head has {outputs} outputs and there are {len(delivery.classes)} classes. "
            "Pass the classes that it was trained on: save(folder, Delivery(classes=dataset.classes, ...))"
        )


@contextmanager
def renamed_when_whole(folder: Path) -> Iterator[Path]:
    """A new folder beside the final one, which takes its name once everything is in it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    new.chmod(0o755)
    try:
        yield new
        if folder.exists():
            old = new.with_name(f"{new.name}-old")
            folder.rename(old)
            new.rename(folder)
            shutil.rmtree(old)
        else:
            new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
