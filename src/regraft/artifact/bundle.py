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
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from regraft.artifact.architecture import check_harmless
from regraft.artifact.card import model_card
from regraft.cache import Tap
from regraft.cut import trace_source
from regraft.data import CLASSIFICATION, Task, transform_for
from regraft.digest import digest_file
from regraft.errors import BundleError, CutError
from regraft.run import write_atomic
from regraft.source import Source, build, make_source
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
MOST_EXAMPLES = 8
TOLERANCE = 1e-4  # on probabilities: above what another processor changes, below what a wrong mean does


@dataclass(frozen=True)
class Bundle:
    """What a bundle's config.json says, checked.

    Args:
        folder: where it lies.
        source: uri, arch, arch_args, digest, licence, origin.
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
    with _renamed_when_whole(folder) as new:
        save_file(_tensors(delivery.network), new / WEIGHTS, metadata={"format": "pt"})
        save_file(_examples(delivery), new / SELFTEST)
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
    rows = np.ascontiguousarray(delivery.rows[:MOST_EXAMPLES])
    expected = probabilities(delivery.network, rows, task=delivery.task)
    return {"rows": torch.from_numpy(rows), "probabilities": torch.from_numpy(expected)}


def _config(delivery: Delivery, results: Results, folder: Path) -> dict[str, Any]:
    """The content of config.json; a vocabulary goes into a file of its own beside the weights."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "source": _source_dict(delivery.source),
        "input": _kept_apart(delivery.source.input, folder),
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


def probabilities(
    network: nn.Module, rows: np.ndarray, batch_size: int = 64, *, task: Task = CLASSIFICATION
) -> np.ndarray:
    """Probabilities of prepared examples for classes or labels; or numbers, as they were learned.

    Args:
        network: from prepared rows to class scores, in eval mode.
        rows: (n, …), as a preparation gives them.
        batch_size: examples per pass.
        task: what the outputs are.

    Returns:
        float32 (n, K); of classes rows sum to one.
    """
    answer = {"classification": lambda x: x.softmax(1), "multilabel": torch.sigmoid, "regression": lambda x: x}
    device = next(network.parameters()).device
    with torch.inference_mode():
        parts = [
            answer[task.kind](network(torch.from_numpy(rows[i : i + batch_size]).to(device))).float().cpu()
            for i in range(0, len(rows), batch_size)
        ]
    return torch.cat(parts).numpy()


def read_bundle(folder: str | Path) -> Bundle:
    """Read and check a bundle's config.json.

    Raises:
        BundleError: there is none, it is of another format or a newer version, or something is missing in it.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise BundleError(
            f"{folder} is no saved model: it has no {CONFIG}. `regraft fit` writes one into its run folder: "
            f"load('RUN_DIR/model')"
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
    needed = set(_needed_names(network))
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


def _self_test(network: nn.Module, bundle: Bundle) -> None:
    stored = _safetensors(bundle.folder / SELFTEST)
    stored = {"rows" if name == "pixels" else name: tensor for name, tensor in stored.items()}  # as once called
    if stored.keys() != {"rows", "probabilities"} or not stored["rows"].numel():
        raise BundleError(f"{bundle.folder / SELFTEST} has no examples. Save the model again: save(folder, ...)")
    rows, expected = stored["rows"].numpy(), stored["probabilities"].numpy()
    if not _fits(rows, bundle.input) or expected.shape != (len(rows), len(bundle.classes)):
        raise BundleError(
            f"{bundle.folder / SELFTEST} holds rows {rows.shape} and probabilities {expected.shape}; expected "
            f"(n, {', '.join(map(str, bundle.input.size))}) and (n, {len(bundle.classes)}). Save the model again."
        )
    worst = float(np.abs(probabilities(network, rows, task=bundle.task) - expected).max())
    if not worst <= TOLERANCE:  # also where it is not a number
        raise BundleError(
            f"{bundle.folder} fails its self-test: on its own examples, probabilities differ from the saved "
            "ones by "
            f"up to {worst:.2g} (allowed: {TOLERANCE:g}). The architecture or a library has changed since; "
            "install the versions that its README.md names."
        )


def _fits(rows: np.ndarray, spec: Spec) -> bool:
    """Whether rows are as a spec says; those of different lengths may be shorter than the longest."""
    if rows.dtype != transform_for(spec).dtype or rows.ndim != 1 + len(spec.size):
        return False
    return rows.shape[1] <= spec.size[0] if spec.ragged else rows.shape[1:] == spec.size


def _kept_apart(spec: Spec, folder: Path) -> dict[str, Any]:
    """A spec as plain values; a vocabulary goes into a file of its own."""
    values = spec.to_dict()
    if isinstance(spec, TextSpec):
        (folder / VOCABULARY).write_text(spec.vocabulary, encoding="utf-8", newline="")
        values["vocabulary"] = VOCABULARY
    return values


def _put_together(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The inverse of `_kept_apart`."""
    if values.get("modality") != "text":
        return values
    with (folder / VOCABULARY).open(encoding="utf-8", newline="") as file:
        return values | {"vocabulary": file.read()}


def _needed_names(network: nn.Module) -> list[str]:
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


def _tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """On the CPU, each with its own memory: safetensors refuses tensors that share theirs."""
    state = network.state_dict()
    return {name: state[name].detach().cpu().clone().contiguous() for name in _needed_names(network)}


def _source_dict(source: Source) -> dict[str, Any]:
    return {
        "uri": source.uri,
        "arch": source.arch,
        "arch_args": source.arch_args,
        "digest": source.weights_digest,
        "licence": source.licence,
        "origin": source.origin,
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
    if len(rows) == 0 or not _fits(rows, spec):
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
def _renamed_when_whole(folder: Path) -> Iterator[Path]:
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
