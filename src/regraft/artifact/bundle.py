"""The bundle: a folder that holds a delivered model and all that is needed to use it.

    config.json           format "regraft-model", version; source (uri, arch, arch_args, digest, licence,
                          origin); input (the spec of its modality: preprocessing); taps; classes in the order of
                          the outputs; task (kind; of numbers mean and std, in whose units the outputs are; without
                          it, classification); views (of each example that predictions are the mean of); recipe,
                          metrics; digest (SHA-256 of model.safetensors)
    model.safetensors     body.NAME for every tensor of the source that the head depends on, NAME as in the
                          source; head.mean, head.scale, head.weight, head.bias
    selftest.safetensors  rows, prepared examples (n, …) with n <= 8; probabilities, or numbers as
                          they were learned, float32 (n, K)
    labels.txt            one class a line
    vocabulary.txt        for texts: the tokenizer, or one word a line
    README.md             the model card

Why so: weights and examples are safetensors, because a pickle can carry code. The graph is not stored: it is
traced again from the architecture, so that a bundle does not depend on the serialised operators of one
PyTorch release; the self-test notices when architecture, tracing or arithmetic have changed. Everything is
written under a temporary name and renamed once, so a folder with the final name is whole.

Shape letters: n stored examples, D features, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from regraft.artifact.architecture import check_harmless
from regraft.cache import Tap
from regraft.cut import rows_at_once, trace_source
from regraft.data import CLASSIFICATION, Task, transform_for
from regraft.digest import digest_file
from regraft.errors import BundleError, CutError
from regraft.source import build, make_source
from regraft.spec import Spec, TextSpec, spec_from_dict
from regraft.tune import MOST_VIEWS, Network, Recipe, fresh_head, full_network

FORMAT, VERSION = "regraft-model", 1
CONFIG, WEIGHTS, SELFTEST, LABELS, VOCABULARY, CARD = (
    "config.json",
    "model.safetensors",
    "selftest.safetensors",
    "labels.txt",
    "vocabulary.txt",
    "README.md",
)
TOLERANCE = 1e-4  # on probabilities: above what another processor changes, below what a wrong mean does


@dataclass(frozen=True)
class Bundle:
    """What a bundle's config.json says, checked.

    Args:
        folder: where it lies.
        source: uri, arch, arch_args, digest, licence, origin; where its own head was kept, the classes of that.
        input: how examples are prepared.
        taps: what the head reads.
        classes: in the order of the outputs.
        recipe: how it was made, plain values.
        metrics: how good it is, as in metrics.json.
        digest: SHA-256 of model.safetensors.
        views: of each example, whose predictions are averaged; 1 is the plain one alone.
        task: what the outputs are.
    """

    folder: Path
    source: dict[str, Any]
    input: Spec
    taps: tuple[Tap, ...]
    classes: tuple[str, ...]
    recipe: dict[str, Any]
    metrics: dict[str, Any]
    digest: str
    views: int = 1
    task: Task = CLASSIFICATION


def probabilities(
    network: nn.Module, rows: np.ndarray, batch_size: int = 64, *, task: Task = CLASSIFICATION
) -> np.ndarray:
    """Probabilities of prepared examples for classes or labels; or numbers, as they were learned.

    Args:
        network: from prepared rows to class scores, in eval mode.
        rows: (n, …), as a preparation gives them.
        batch_size: examples per pass, at most.
        task: what the outputs are.

    Returns:
        float32 (n, K); of classes rows sum to one.
    """
    answer = {"classification": lambda x: x.softmax(1), "multilabel": torch.sigmoid, "regression": lambda x: x}
    device, size = next(network.parameters()).device, min(batch_size, rows_at_once(network))
    with torch.inference_mode():
        parts = [
            answer[task.kind](network(torch.from_numpy(rows[i : i + size]).to(device))).float().cpu()
            for i in range(0, len(rows), size)
        ]
    return torch.cat(parts).numpy()


def read_bundle(folder: str | Path) -> Bundle:
    """Read and check a bundle's config.json.

    Raises:
        BundleError: there is none, it is of another format or a newer version, or something is missing in it.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        inside = folder / "model"
        where = inside if (inside / CONFIG).is_file() else Path("RUN_DIR/model")
        raise BundleError(
            f"{folder} is no saved model: it has no {CONFIG}. `regraft fit` writes one into its run folder; pass that: "
            f"{where}"
        )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(
            f"{folder / CONFIG} is not JSON ({error}). Save the model again: save(folder, ...)"
        ) from error
    found = config.get("format") if isinstance(config, dict) else None
    if found != FORMAT:
        raise BundleError(
            f"{folder} is no regraft model (format {found!r}, expected {FORMAT!r}). "
            f"A pretrained network is opened as a source: load_source({str(folder)!r})"
        )
    if config.get("version") != VERSION:
        raise BundleError(
            f"{folder} has version {config.get('version')!r} of the format; this regraft reads version "
            f"{VERSION}. "
            "Install the one that wrote it: pip install --upgrade regraft"
        )
    return _checked(folder, config)


def _checked(folder: Path, config: dict[str, Any]) -> Bundle:
    try:
        return Bundle(
            folder=folder,
            source={**config["source"], "arch": str(config["source"]["arch"])},
            input=spec_from_dict(_put_together(config["input"], folder)),
            taps=tuple(Tap(str(tap["cut"]), int(tap["grid"])) for tap in config["taps"]),
            classes=tuple(str(name) for name in config["classes"]),
            recipe=config["recipe"],
            metrics=config["metrics"],
            digest=config["digest"],
            views=_views(config.get("views", 1)),
            task=_task(config),
        )
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise BundleError(
            f"{folder / CONFIG} is not complete ({type(error).__name__}: {error}). "
            "Save the model again: save(folder, Delivery(...))"
        ) from error


def _task(config: dict[str, Any]) -> Task:
    """What the outputs are; bundles of before there was a choice tell classes."""
    task = Task.from_dict(config["task"]) if "task" in config else CLASSIFICATION
    if task.numeric and len(task.mean) != len(config["classes"]):
        raise ValueError(f"{len(config['classes'])} numbers have {len(task.mean)} means")
    return task


def _views(number: Any) -> int:
    if type(number) is not int or not 1 <= number <= MOST_VIEWS:
        raise ValueError(f"views is {number!r}, expected a number from 1 to {MOST_VIEWS}")
    return number


def rebuild(bundle: Bundle, *, trust_code: bool = False) -> Network:
    """The network of a bundle: built and traced again, tensors loaded, self-test passed.

    Args:
        bundle: from `read_bundle`.
        trust_code: call the architecture even if it may be something else than an architecture.

    Raises:
        BundleError: files are missing or damaged, tensors do not fit, or the self-test fails.
        SourceError: the architecture is not installed here.
    """
    tensors = _load_tensors(bundle.folder / WEIGHTS, bundle.digest)
    network = _empty_network(bundle, tensors, trust_code=trust_code)
    _load_strictly(network, tensors, bundle.folder)
    _self_test(network, bundle)
    return network


def _empty_network(bundle: Bundle, tensors: Mapping[str, torch.Tensor], *, trust_code: bool) -> Network:
    arch, arguments = bundle.source["arch"], bundle.source.get("arch_args") or {}
    if not trust_code:
        check_harmless(arch, arguments, bundle.folder)
    model, _ = build(arch, arguments)
    source = make_source(str(bundle.source.get("uri", arch)), arch, arguments, model, bundle.input)
    n_classes, recipe = _n_classes(bundle, tensors), _recipe(bundle, tensors)
    try:
        traced = trace_source(source)
        head = fresh_head(recipe, traced, bundle.taps, n_classes)
        return full_network(source, traced, bundle.taps, head, recipe=recipe)
    except CutError as error:
        raise BundleError(
            f"{bundle.folder} cannot be rebuilt from {arch} as it is installed here: {error} "
            "Install the versions that its README.md names."
        ) from error


def _recipe(bundle: Bundle, tensors: Mapping[str, torch.Tensor]) -> Recipe:
    """What the network was made by; layers as wide as no tensor is are not allocated."""
    recipe = Recipe.from_dict(bundle.recipe)
    widths = {size for tensor in tensors.values() for size in tensor.shape}
    for layers in (recipe.head_layers, *recipe.replace.values()):
        _, _, width = layers.partition(":")
        if width and int(width) not in widths:
            raise BundleError(
                f"{bundle.folder}: its recipe has the layers {layers!r}, but no tensor in {WEIGHTS} is as wide. "
                "Save the model again: save(folder, ...)"
            )
    return recipe


def _n_classes(bundle: Bundle, tensors: Mapping[str, torch.Tensor]) -> int:
    weight = tensors.get("head.weight")
    if weight is None or weight.ndim != 2 or len(weight) != len(bundle.classes):
        found = None if weight is None else tuple(weight.shape)
        raise BundleError(
            f"{bundle.folder}: head.weight has the shape {found}, expected one row for each of "
            f"{len(bundle.classes)} classes. Save the model again: save(folder, ...)"
        )
    return weight.shape[0]


def _load_tensors(path: Path, digest: str) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise BundleError(f"{path} is missing. Copy the whole folder: cp -r RUN_DIR/model .")
    if digest_file(path) != digest:
        raise BundleError(
            f"{path} is not the file that was saved: its SHA-256 differs from the one in {CONFIG}. "
            "Copy the whole folder again: cp -r RUN_DIR/model ."
        )
    return _safetensors(path)


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path} cannot be read ({error}). Copy it again: cp -r RUN_DIR/model .") from error


def _load_strictly(network: nn.Module, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    own = network.state_dict()
    needed = set(needed_names(network))
    wrong = [f"{name} is missing" for name in sorted(needed - tensors.keys())]
    wrong += [f"{name} is not part of the network" for name in sorted(tensors.keys() - own.keys())]
    wrong += [
        f"{name} is {tuple(tensor.shape)}, the network has {tuple(own[name].shape)}"
        for name, tensor in sorted(tensors.items())
        if name in own and tensor.shape != own[name].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise BundleError(
            f"{folder / WEIGHTS} does not fit its architecture: {'; '.join(wrong[:5])}{more}. "
            "Install the versions that its README.md names, or save the model again."
        )
    network.load_state_dict(dict(tensors), strict=False)


def selftest_examples(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    """The prepared examples (n, …) that a bundle holds, and what its network gave for them, float32 (n, K).

    Raises:
        BundleError: there are none, or they do not fit the bundle's input and classes.
    """
    stored = _safetensors(bundle.folder / SELFTEST)
    stored = {"rows" if name == "pixels" else name: tensor for name, tensor in stored.items()}  # as once called
    if stored.keys() != {"rows", "probabilities"} or not stored["rows"].numel():
        raise BundleError(f"{bundle.folder / SELFTEST} has no examples. Save the model again: save(folder, ...)")
    rows, expected = stored["rows"].numpy(), stored["probabilities"].numpy()
    if not fits(rows, bundle.input) or expected.shape != (len(rows), len(bundle.classes)):
        raise BundleError(
            f"{bundle.folder / SELFTEST} holds rows {rows.shape} and probabilities {expected.shape}; expected "
            f"(n, {', '.join(map(str, bundle.input.size))}) and (n, {len(bundle.classes)}). Save the model again."
        )
    return rows, expected


def _self_test(network: nn.Module, bundle: Bundle) -> None:
    rows, expected = selftest_examples(bundle)
    worst = float(np.abs(probabilities(network, rows, task=bundle.task) - expected).max())
    if not worst <= TOLERANCE:  # also where it is not a number
        raise BundleError(
            f"{bundle.folder} fails its self-test: on its own examples, probabilities differ from the saved "
            "ones by "
            f"up to {worst:.2g} (allowed: {TOLERANCE:g}). The architecture or a library has changed since; "
            "install the versions that its README.md names."
        )


def fits(rows: np.ndarray, spec: Spec) -> bool:
    """Whether rows are as a spec says; those of different lengths may be shorter than the longest."""
    if rows.dtype != transform_for(spec).dtype or rows.ndim != 1 + len(spec.size):
        return False
    return rows.shape[1] <= spec.size[0] if spec.ragged else rows.shape[1:] == spec.size


def kept_apart(spec: Spec, folder: Path) -> dict[str, Any]:
    """A spec as plain values; a vocabulary goes into a file of its own in the folder."""
    values = spec.to_dict()
    if isinstance(spec, TextSpec):
        (folder / VOCABULARY).write_text(spec.vocabulary, encoding="utf-8", newline="")
        values["vocabulary"] = VOCABULARY
    return values


def _put_together(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The inverse of `kept_apart`."""
    if values.get("modality") != "text":
        return values
    with (folder / VOCABULARY).open(encoding="utf-8", newline="") as file:
        return values | {"vocabulary": file.read()}


def needed_names(network: nn.Module) -> list[str]:
    """Names of the tensors that the output depends on; a body may carry tensors of layers above its taps."""
    body = getattr(network, "body", None)
    if not isinstance(body, torch.fx.GraphModule):
        return list(network.state_dict())
    used = {f"body.{node.target}" for node in body.graph.nodes if node.op == "get_attr"}
    modules = tuple(f"body.{node.target}." for node in body.graph.nodes if node.op == "call_module")
    return [
        name
        for name in network.state_dict()
        if not name.startswith("body.") or name in used or (modules and name.startswith(modules))
    ]
