"""A saved model as a folder that transformers opens, for programs without regraft and for the Hugging Face hub.

    config.json               classes, kind of task, and which file holds the class of the model
    modeling_regraft.py       that class: the network's graph as Python, in the operators of PyTorch
    model.safetensors         its tensors
    preprocessor_config.json  of pictures: size, crop, mean and std; or tokenizer.json, tokenizer_config.json of texts
    README.md                 the model card

Architectures that regraft cut, joined and gave another head are none that transformers knows, so the code comes along
and is run by `trust_remote_code=True`. The folder is kept when that code gives the bundle's own answers again.

Shape letters: B examples of a batch, C channels, H and W pixels, L tokens, K outputs.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, fx, nn

from regraft.artifact.bundle import CARD, CONFIG, TOLERANCE, WEIGHTS, selftest_examples
from regraft.artifact.card import template
from regraft.artifact.classifier import Classifier
from regraft.artifact.export import Answering
from regraft.artifact.saving import renamed_when_whole
from regraft.cut.graph import attribute, exported, inputs_of, normalised
from regraft.data import Task
from regraft.errors import BundleError, MissingExtra, first_line
from regraft.source import front
from regraft.spec import InputSpec, Spec, TextSpec

MODELING = "modeling_regraft.py"
_RESAMPLE = {"nearest": 0, "bilinear": 2, "bicubic": 3}  # Pillow's numbers
_PADDING = ("[PAD]", "<pad>", "<|endoftext|>", "</s>")
_INSTEAD = "Write ONNX instead: regraft export MODEL_DIR --to onnx"
_PROBLEMS = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}


@dataclass(frozen=True)
class _Kind:
    """What transformers calls a model of one modality."""

    auto: str
    output: str
    inputs: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.auto.replace("AutoModel", "Regraft")


_PICTURES = _Kind("AutoModelForImageClassification", "ImageClassifierOutput", ("pixel_values",))
_TEXTS = _Kind("AutoModelForSequenceClassification", "SequenceClassifierOutput", ("input_ids", "attention_mask"))


class _Logits(nn.Module):
    """What a network says, classes as logits and numbers in their own units."""

    def __init__(self, network: nn.Module, task: Task) -> None:
        super().__init__()
        self.answering = Answering(copy.deepcopy(network), task)
        self.answering.network.front = nn.Identity()  # what the body takes is given

    def logits(self, *prepared: Tensor) -> Tensor:
        """What the body takes, to (B, K)."""
        scores = self.answering.network(prepared)
        return self.answering.said(scores) if self.answering.task.numeric else scores


class _Pictures(_Logits):
    """Of pixels as transformers prepares them, red first."""

    def __init__(self, network: nn.Module, task: Task, *, blue_first: bool) -> None:
        super().__init__(network, task)
        self.blue_first = blue_first

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, C, H, W) to (B, K)."""
        return self.logits(pixel_values.flip(1) if self.blue_first else pixel_values)


class _Texts(_Logits):
    """Of token ids, and which of them count."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L) twice to (B, K)."""
        return self.logits(input_ids, attention_mask)


def export_hf(model: Classifier, folder: Path) -> Path:
    """Write a model as a folder that `AutoModelFor….from_pretrained(folder, trust_remote_code=True)` opens.

    Args:
        model: a loaded model for pictures, or for texts in a tokenizer's tokens.
        folder: nothing may be there.

    Returns:
        The folder.

    Raises:
        BundleError: something is there already, transformers cannot prepare such examples, PyTorch cannot export the
            network, or the folder would give other answers than the model.
        MissingExtra: the package transformers is not installed.
    """
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtra("transformers", "hf", "write a folder for transformers")
    if folder.exists():
        raise BundleError(f"{folder} is there already. Choose another name: regraft export … --out OTHER")
    spec = model.bundle.input
    _refuse(spec)
    kind = _TEXTS if spec.ragged else _PICTURES
    graph, inputs = _graph(model)
    tensors = _tensors(graph)
    with renamed_when_whole(folder) as new:
        save_file(tensors, new / WEIGHTS, metadata={"format": "pt"})
        (new / WEIGHTS).chmod(0o644)  # which safetensors writes for the owner's eyes only
        (new / MODELING).write_text(_modeling(graph, tensors, kind), encoding="utf-8")
        (new / CONFIG).write_text(_json(_config(model, kind)), encoding="utf-8")
        for name, text in _preparation(spec).items():
            (new / name).write_text(text, encoding="utf-8", newline="")
        shutil.copy(model.bundle.folder / CARD, new)
        _check(model, new, kind, inputs)
    return folder


def _refuse(spec: Spec) -> None:
    """What the preprocessing of transformers cannot say."""
    if isinstance(spec, TextSpec):
        odd = "a list of words instead of a tokenizer" if spec.kind == "words" else ""
    elif not isinstance(spec, InputSpec):
        odd = "recordings"
    elif spec.size[0] != 3:
        odd = "grey pictures"
    else:
        odd = "a crop that is not square" if spec.size[1] != spec.size[2] and spec.crop_mode == "center" else ""
    if odd:
        raise BundleError(f"this model takes {odd}, which transformers does not prepare. {_INSTEAD}")


def _graph(model: Classifier) -> tuple[fx.GraphModule, tuple[Tensor, ...]]:
    """The network as a graph of PyTorch's operators, and the examples of the self-test as it takes them."""
    bundle, spec = model.bundle, model.bundle.input
    prepared = front(spec)(torch.from_numpy(selftest_examples(bundle)[0]))
    if isinstance(spec, InputSpec):
        blue_first = spec.channel_order == "BGR"
        prepared = (prepared[0].flip(1),) if blue_first else prepared
        whole = _Pictures(model.network.cpu(), bundle.task, blue_first=blue_first)
    else:
        whole = _Texts(model.network.cpu(), bundle.task)
    try:
        program = exported(whole.eval(), inputs_of(prepared, ragged=spec.ragged), ragged=spec.ragged)
    except Exception as error:  # export fails in as many ways as there are models
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise BundleError(f"PyTorch cannot export this network ({reason}). {_INSTEAD}") from error
    return normalised(program, whole, ragged=spec.ragged), prepared


def _tensors(graph: fx.GraphModule) -> dict[str, Tensor]:
    """What the graph uses, by the names that the bundle has for it."""
    used = sorted({str(node.target) for node in graph.graph.nodes if node.op == "get_attr"})
    return {_short(name): attribute(graph, name).detach().clone().contiguous() for name in used}  # type: ignore[attr-defined]


def _short(name: str) -> str:
    return name.removeprefix("answering.").removeprefix("network.")


def _modeling(graph: fx.GraphModule, tensors: dict[str, Tensor], kind: _Kind) -> str:
    """The Python file.

    Raises:
        BundleError: a tensor's name would end the text that it stands in.
    """
    learned = {_short(name) for name, _ in graph.named_parameters(remove_duplicate=False)}
    listed = [
        (name, tuple(value.shape), str(value.dtype).removeprefix("torch."), name in learned)
        for name, value in tensors.items()
    ]
    odd = [name for name in tensors if not re.fullmatch(r"[^\"\\\x00-\x1f]+", name)]
    if odd:
        raise BundleError(f"the tensor {odd[0]!r} cannot be named in Python's code. {_INSTEAD}")
    logits = graph.graph.python_code("self").src.strip().replace("def forward(", "def logits(", 1)
    for prefix in ("self.answering.network.", "self.answering."):
        logits = logits.replace(prefix, "self.")
    return template(f"{MODELING}.j2").render(
        kind=kind.name,
        output=kind.output,
        inputs=kind.inputs,
        tensors=listed,
        logits=logits.replace("device(type='cpu')", "self.device"),
    )


def _config(model: Classifier, kind: _Kind) -> dict[str, Any]:
    module = MODELING.removesuffix(".py")
    return {
        "model_type": "regraft",
        "architectures": [kind.name],
        "auto_map": {"AutoConfig": f"{module}.RegraftConfig", kind.auto: f"{module}.{kind.name}"},
        "id2label": dict(enumerate(model.classes)),
        "label2id": {name: i for i, name in enumerate(model.classes)},
        "problem_type": _PROBLEMS[model.bundle.task.kind],
        "dtype": "float32",
        "source": model.bundle.source["uri"],
    }


def _preparation(spec: Spec) -> dict[str, str]:
    """Files of the preprocessing, by name."""
    if isinstance(spec, InputSpec):
        return {"preprocessor_config.json": _json(_pictures_prepared(spec))}
    assert isinstance(spec, TextSpec)
    known = {token["content"] for token in json.loads(spec.vocabulary).get("added_tokens", [])}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": spec.length,
        "model_input_names": list(_TEXTS.inputs),
        "pad_token": next((token for token in _PADDING if token in known), None),
    }
    return {"tokenizer.json": spec.vocabulary, "tokenizer_config.json": _json(settings)}


def _pictures_prepared(spec: InputSpec) -> dict[str, Any]:
    _, height, width = spec.size
    high, wide = (math.floor(side / spec.crop_pct) for side in (height, width))
    turn = -1 if spec.channel_order == "BGR" else 1  # transformers has red first
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": high} if spec.crop_mode == "center" else {"height": high, "width": wide},
        "resample": _RESAMPLE[spec.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.mean[::turn]),
        "image_std": list(spec.std[::turn]),
    }


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


@torch.no_grad()
def _check(model: Classifier, folder: Path, kind: _Kind, inputs: tuple[Tensor, ...]) -> None:
    """The written class has to say of the self-test's examples what the bundle's network says."""
    where = importlib.util.spec_from_file_location("regraft_exported", folder / MODELING)
    assert where is not None and where.loader is not None
    module = importlib.util.module_from_spec(where)
    where.loader.exec_module(module)
    written = getattr(module, kind.name)(module.RegraftConfig()).eval()
    written.load_state_dict(load_file(folder / WEIGHTS))
    answering, logits = Answering(model.network, model.bundle.task), written(*inputs).logits
    found = logits if model.bundle.task.numeric else answering.said(logits)
    expected = answering(torch.from_numpy(selftest_examples(model.bundle)[0]))
    worst = float((found - expected).abs().max()) / max(1.0, float(expected.abs().max()))
    if not worst <= TOLERANCE:
        raise BundleError(
            f"the folder would give other answers than the model, by up to {worst:.2g} (allowed: {TOLERANCE:g}), and "
            "is not written. The bundle itself answers: regraft predict MODEL_DIR INPUT"
        )
