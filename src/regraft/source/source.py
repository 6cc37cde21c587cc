"""The noun of this stage: a pretrained network together with what it expects as input."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import Tensor, nn

from regraft.digest import digest_json, digest_state
from regraft.source.arch import build
from regraft.spec import Spec


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of a checkpoint and of every parameter of a network.

    Args:
        matched: names whose values were loaded.
        missing: names of the network that the checkpoint does not have; they keep their fresh values.
        unexpected: names of the checkpoint that the network does not have; they were not used.
        mismatched: (name, shape in the network, shape in the checkpoint); not loaded.
        harmless: missing names without influence on the output (batch norm's counters).
        ignored: entries of the checkpoint that are not weights ("best_prec1", "optimizer").
        renamed: how the checkpoint's names were changed to fit, for people.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    renamed: str = ""
    harmless: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Every tensor of the network was loaded and every one of the checkpoint was used."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        shapes = tuple(f"{name} is {ours} here, {theirs} there" for name, ours, theirs in self.mismatched)
        parts = [
            f"{len(self.matched)} tensors matched",
            _count("missing in the checkpoint and left fresh", self.missing),
            _count("unexpected in the checkpoint and not used", self.unexpected),
            _count("of another shape and left fresh", shapes),
            _count("without influence on the output", self.harmless),
            _count("no weights", self.ignored),
            self.renamed,
        ]
        return "; ".join(part for part in parts if part)


def _count(what: str, names: tuple[str, ...], shown: int = 3) -> str:
    if not names:
        return ""
    more = f", … {len(names) - shown} more" if len(names) > shown else ""
    return f"{len(names)} {what} ({', '.join(names[:shown])}{more})"


@dataclass(frozen=True)
class Source:
    """A pretrained network and what it expects as input.

    Args:
        uri: where it came from, as given.
        arch: the URI that rebuilds the architecture without weights.
        arch_args: keyword arguments for the architecture, plain JSON.
        model: the network, in eval mode, on the CPU, float32.
        input: the input it was trained on.
        weights_digest: content digest of its weights and buffers.
        classes: the names of its outputs, where known.
        licence: of the weights, where known.
        origin: who made the weights and how, where known.
        report: what became of the tensors of the file it was loaded from.
    """

    uri: str
    arch: str
    arch_args: dict[str, Any]
    model: nn.Module = field(repr=False)
    input: Spec
    weights_digest: str
    classes: tuple[str, ...] = field(default=(), repr=False)
    licence: str = ""
    origin: str = ""
    report: LoadReport | None = field(default=None, repr=False)

    @property
    def n_params(self) -> int:
        """Number of learnable values; buffers are not counted."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process the network is built again: some modules refuse `pickle`, none its architecture."""
        facts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "model"}
        return _built_again, (facts, self.model.state_dict())


def _built_again(facts: dict[str, Any], state: dict[str, Tensor]) -> Source:
    model, _ = build(facts["arch"], facts["arch_args"])
    model.load_state_dict(state)
    return Source(**facts, model=model.cpu().float().eval())


def make_source(
    uri: str,
    arch: str,
    arch_args: dict[str, Any],
    model: nn.Module,
    input: Spec,
    *,
    classes: tuple[str, ...] = (),
    licence: str = "",
    origin: str = "",
    report: LoadReport | None = None,
) -> Source:
    """A Source around a network that is at hand: CPU, float32, eval mode, digest taken.

    Example:
        >>> network, spec = build("regraft.source.cifar_resnet:resnet20")
        >>> make_source("mine", "python:regraft.source.cifar_resnet:resnet20", {}, network, spec).n_params
        269722
    """
    model = model.cpu().float().eval()
    digest = digest_state(model.state_dict())
    return Source(uri, arch, arch_args, model, input, digest, classes, licence, origin, report)


def with_random_weights(source: Source, seed: int) -> Source:
    """The same architecture with fresh weights: the control that tells weights from procedure.

    Args:
        source: any source; it is not changed.
        seed: of the initialisation; the global random state is left as it was.

    Returns:
        A source with the same input and outputs, another digest, and no load report.

    Example:
        >>> from regraft.testing import tiny_source
        >>> fresh = with_random_weights(tiny_source(), seed=1)
        >>> fresh.weights_digest == tiny_source().weights_digest
        False
    """
    model, _ = build(source.arch, source.arch_args, seed=seed)
    digest = digest_state(model.state_dict())
    origin = f"random weights, seed {seed}"
    return replace(source, model=model, weights_digest=digest, origin=origin, report=None)


def describe(source: Source) -> dict[str, Any]:
    """A source as plain values, for people and for JSON.

    Returns:
        uri, arch, arch_args, params, input, licence, origin, classes (a count), digest, report (text or
        None), kinds (how many leaf modules of each class), and layers: a list of {name, kind, params} for
        every leaf module, in the order of definition.

    Example:
        >>> from regraft.testing import tiny_source
        >>> describe(tiny_source())["layers"][-1]
        {'name': 'classifier', 'kind': 'Linear', 'params': 330}
    """
    layers = _layers(source.model)
    return {
        "uri": source.uri,
        "arch": source.arch,
        "arch_args": source.arch_args,
        "params": source.n_params,
        "input": _input_facts(source.input),
        "licence": source.licence,
        "origin": source.origin,
        "classes": len(source.classes),
        "digest": source.weights_digest,
        "report": str(source.report) if source.report else None,
        "kinds": dict(Counter(layer["kind"] for layer in layers)),
        "layers": layers,
    }


def _input_facts(spec: Spec) -> dict[str, Any]:
    """A spec without the content of its vocabulary, which can be megabytes: its digest tells it from others."""
    facts = spec.to_dict()
    return facts | {"vocabulary": digest_json(facts["vocabulary"])} if "vocabulary" in facts else facts


def _layers(model: nn.Module) -> list[dict[str, Any]]:
    """Leaves, and parents that hold parameters of their own (a class token, a scale)."""
    rows = []
    for name, module in model.named_modules():
        own = sum(p.numel() for p in module.parameters(recurse=False))
        if own or not any(module.children()):
            rows.append({"name": name, "kind": type(module).__name__, "params": own})
    return rows
