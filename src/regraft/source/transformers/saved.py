"""A network as transformers saves it, and the steps by which one of any modality becomes a source."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regraft.errors import SourceError, first_line
from regraft.source.arch import build
from regraft.source.files import read_checkpoint
from regraft.source.match import check_finite
from regraft.source.request import Request
from regraft.source.source import LoadReport, Source, make_source
from regraft.source.timm_hub import label_names
from regraft.source.transformers.hub import check_size, config_of, quiet
from regraft.spec import Spec


@dataclass(frozen=True)
class Saved:
    """A folder in transformers' layout, and what the user asked of it.

    Args:
        folder: with `config.json` and what describes the input.
        fields: of the config.
        weights: the file or index of files; None where only the architecture is wanted.
        request: what the user asked for.
    """

    folder: Path
    fields: dict[str, Any]
    weights: Path | None
    request: Request

    def built(self, kind: type[nn.Module], arch_args: dict[str, Any]) -> nn.Module:
        """The network with the random weights that were asked for."""
        return build(_arch(kind), arch_args, seed=self.request.seed)[0]

    def tensors(self, kind: type[nn.Module]) -> dict[str, torch.Tensor]:
        """The weights, seen to be finite, and about as many as the config promises."""
        assert self.weights is not None
        tensors = dict(read_checkpoint(self.weights).tensors)
        check_finite(tensors, str(self.weights))
        most = 2 * sum(t.numel() for t in tensors.values()) + (1 << 24)
        check_size(kind, self.fields, str(self.weights), most)
        return tensors

    def loaded(self, kind: Any, tensors: dict[str, torch.Tensor], **settings: bool) -> tuple[nn.Module, LoadReport]:
        """By transformers itself, which knows how the names of older versions have changed."""
        assert self.weights is not None
        # transformers keeps the tensors that it is given; those of a mapped file lie at any address, by which kernels
        # round differently
        own = {name: tensor.clone() for name, tensor in tensors.items()}
        try:
            with quiet():
                model, found = kind.from_pretrained(
                    None,
                    config=config_of(self.fields, str(self.weights)),
                    state_dict=own,
                    dtype=torch.float32,
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                    **settings,
                )
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(
                f"{self.weights} cannot be laid onto {kind.__name__} ({first_line(error)}). Copy config.json and the "
                f"weights again, from the same place, then pass {self.weights.parent}"
            ) from error
        return model, _report(model, found)

    def check_fit(self, kind: type[nn.Module], report: LoadReport) -> None:
        """Only the classifier may be fresh."""
        assert self.weights is not None
        fresh = (*report.missing, *(name for name, _, _ in report.mismatched))
        wrong = [name for name in fresh if "classifier" not in name and not name.startswith("head.")]
        if wrong or not report.matched:
            raise SourceError(
                f"{self.weights} does not fit its config.json, starting with {wrong[:1] or 'all'}: {report}. Expected "
                f"every tensor of {kind.__name__} but the classifier's. Copy both files again, from the same place, "
                f"then pass {self.weights.parent}"
            )

    def source(
        self,
        kind: type[nn.Module],
        arch_args: dict[str, Any],
        model: nn.Module,
        spec: Spec,
        report: LoadReport | None,
    ) -> Source:
        """The source around a network of this folder.

        Args:
            kind: its class in transformers.
            arch_args: from which `build` makes it again.
            model: with its weights.
            spec: what it expects.
            report: what became of every tensor; None of random weights.
        """
        return make_source(
            self.request.uri,
            _arch(kind),
            arch_args,
            model,
            spec,
            classes=_class_names(self.fields) if classifies(kind) else (),
            licence=_licence(self.folder),
            origin=str(self.fields.get("_name_or_path") or "") if self.weights else "",
            report=report,
        )


def classifies(kind: type[nn.Module]) -> bool:
    """Whether a class of transformers ends in a classifier: those with one all have it in their names."""
    return "Classification" in kind.__name__


def mixed_in(mixin: type[nn.Module], model: nn.Module) -> nn.Module:
    """The same network with another `forward`; its class keeps the name that transformers gave it."""
    base = type(model)
    model.__class__ = type(base.__name__, (mixin, base), {"__module__": base.__module__})
    return model


def _arch(kind: type[nn.Module]) -> str:
    return f"hf:{kind.__name__}"


def _report(model: nn.Module, found: Mapping[str, Any]) -> LoadReport:
    """What transformers says of a loading, in our words."""
    missing, mismatched = set(found["missing_keys"]), sorted(found["mismatched_keys"])
    unused = missing | {name for name, _, _ in mismatched}
    return LoadReport(
        matched=tuple(name for name in model.state_dict() if name not in unused),
        missing=tuple(sorted(missing)),
        unexpected=tuple(sorted(found["unexpected_keys"])),
        mismatched=tuple((name, tuple(ours), tuple(theirs)) for name, theirs, ours in mismatched),
    )


def _class_names(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names; none where they are transformers' own placeholders."""
    try:
        names = label_names(fields.get("id2label") or None)
    except (TypeError, ValueError):
        return ()
    return () if names and all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names


def _licence(folder: Path) -> str:
    """What the model card's header says."""
    card = folder / "README.md"
    if not card.is_file():
        return ""
    with card.open(encoding="utf-8", errors="replace") as file:
        head = file.read(4096)
    found = re.search(r"^license:\s*([\w.-]+)\s*$", head, re.MULTILINE) if head.startswith("---") else None
    return found.group(1) if found else ""
