"""`hf:NAME_OR_FOLDER` and folders in transformers' layout: image encoders of Hugging Face's transformers.

Wolf et al.: Transformers: State-of-the-Art Natural Language Processing, 2020, arXiv 1910.03771.

B batch, C channels, H height, W width, L tokens, D features, K classes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from regraft.errors import MissingExtra, SourceError
from regraft.source.arch import ARCHITECTURES, build
from regraft.source.download import is_offline
from regraft.source.files import read_checkpoint, read_json
from regraft.source.match import check_finite
from regraft.source.request import Request
from regraft.source.source import LoadReport, Source, make_source
from regraft.source.timm_hub import label_names
from regraft.spec import InputSpec, Interpolation

_FILES = ("config.json", "preprocessor_config.json", "processor_config.json", "README.md")
_RESAMPLE: dict[int, Interpolation] = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
# A config is a stranger's: it may not ask for layers without end, nor for code from elsewhere.
_LARGEST, _MOST_LAYERS, _MOST_PARAMETERS = 1 << 21, 512, 1 << 31
_NOT_DATA = re.compile(r"auto_map|.*attn_implementation.*|.*experts_implementation.*|.*kernels.*|trust_remote_code")


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "hf", "open networks of transformers") from error
    return transformers


def hf_folder(name: str) -> Path:
    """A folder of this machine, or the files of a network on the Hugging Face hub, downloaded once.

    Args:
        name: a folder, or `OWNER/NAME`, perhaps with `@REVISION`.

    Raises:
        SourceError: the hub does not give it, or the network is forbidden and the files are not here.
        MissingExtra: huggingface_hub is not installed.
    """
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    repository, _, revision = name.partition("@")
    try:
        for weights in (("*.safetensors", "*.safetensors.index.json"), ("pytorch_model*",)):
            folder = _snapshot(repository, revision or None, [*_FILES, *weights])
            if any(folder.glob(weights[0])):
                break
    except (MissingExtra, SourceError):
        raise
    except Exception as error:  # the hub's, HTTP's and the file system's errors of several libraries
        raise _unreachable(name, error) from error
    return folder


def _snapshot(repository: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hf", "download networks from the Hugging Face hub") from error
    return Path(
        snapshot_download(repository, revision=revision, allow_patterns=patterns, local_files_only=is_offline())
    )


def _unreachable(name: str, error: Exception) -> SourceError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return SourceError(
        f"hf:{name} could not be fetched, and there is no folder of this name ({reason}). Files from the Hugging Face "
        "hub are downloaded once into its cache ($HF_HOME/hub, else ~/.cache/huggingface/hub); REGRAFT_OFFLINE=1 and "
        "HF_HUB_OFFLINE=1 forbid it. Without a network, copy config.json, preprocessor_config.json and "
        f"model.safetensors of https://huggingface.co/{name.partition('@')[0]} into a folder of this machine and pass "
        "that: load_source('hf:path/to/folder')"
    )


def is_transformers(config: Mapping[str, Any]) -> bool:
    """Whether a folder's config.json is of transformers' layout."""
    return isinstance(config.get("model_type"), str) and not isinstance(config.get("architecture"), str)


def open_transformers(folder: Path, weights: Path | None, request: Request) -> Source:
    """A folder in transformers' layout as a source.

    Args:
        folder: with `config.json` and, for the input, `preprocessor_config.json`.
        weights: the file or index of files; None where only the architecture is wanted.
        request: what the user asked for.

    Raises:
        SourceError: a kind of network that is not read, a config that asks for too much, or weights that do not fit.
        MissingExtra: transformers is not installed.
    """
    request.without_arch()
    fields = _plain(read_json(folder / "config.json"), folder)
    kind = _class_of(fields, str(folder)).__name__
    arch, arch_args = f"hf:{kind}", {"config": fields}
    spec = request.input_or(input_of(folder, fields))
    if weights is None:
        model, _ = build(arch, arch_args, seed=request.seed)
        return make_source(request.uri, arch, arch_args, model, spec, classes=_classes(fields))
    model, pooler, report = _filled(fields, weights)
    if not pooler:
        arch_args |= {"pooler": False}
    return make_source(
        request.uri,
        arch,
        arch_args,
        model,
        spec,
        classes=_classes(fields) if "ForImageClassification" in kind else (),
        licence=_licence(folder),
        origin=str(fields.get("_name_or_path") or ""),
        report=report,
    )


def build_transformers(name: str, arch_args: dict[str, Any]) -> tuple[nn.Module, InputSpec | None]:
    """`hf:CLASS` with its config among the arguments: the architecture with fresh weights."""
    config = arch_args.get("config")
    if not isinstance(config, dict):
        raise SourceError(
            f"hf:{name} is an architecture of transformers, and comes with its config: "
            "build(source.arch, source.arch_args). A network with its weights: load_source('hf:OWNER/NAME')"
        )
    fields = _plain(config, f"hf:{name}")
    kind = _class_of(fields, f"hf:{name}")
    if kind.__name__ != name:
        raise SourceError(f"the config given with hf:{name} is one of {kind.__name__}: build('hf:{kind.__name__}', …)")
    _check_size(kind, fields, f"hf:{name}")
    return _encoder(kind, fields, pooler=bool(arch_args.get("pooler", True))), None


ARCHITECTURES.add("hf", build_transformers)


def _plain(config: Mapping[str, Any], where: Path | str) -> dict[str, Any]:
    """The fields of a config that are data, seen to be of sane size."""
    if config.get("quantization_config"):
        raise SourceError(
            f"{where} holds quantised weights, which cannot be trained. Take the repository that they were made from: "
            "load_source('hf:OWNER/NAME')"
        )
    too_much = next(_excess(config), "")
    if too_much:
        raise SourceError(f"{where} asks for {too_much}, more than any network has. Copy its config.json again")
    return {name: value for name, value in config.items() if not _NOT_DATA.fullmatch(name)}


def _excess(value: Any, name: str = "config") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _excess(inner, str(key))
    elif isinstance(value, list):
        if len(value) > _MOST_LAYERS and not all(isinstance(entry, str) for entry in value):
            yield f"{len(value)} of {name!r}"
        for entry in value[:_MOST_LAYERS]:
            yield from _excess(entry, name)
    elif isinstance(value, int | float):
        most = _MOST_LAYERS if re.search(r"layers|depth|blocks|stages", name) else _LARGEST
        if not abs(value) <= most and not isinstance(value, float):
            yield f"{name!r} = {value}"


def _class_of(fields: Mapping[str, Any], where: str) -> type[nn.Module]:
    """The class of transformers that a config describes: with its classifier if that is what was saved."""
    _transformers()
    from transformers.models.auto import modeling_auto as auto

    architectures = fields.get("architectures")
    named = architectures if isinstance(architectures, list) and architectures else [""]
    config = _config(fields, where)
    for kind in _entries(auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, config):
        if kind.__name__ == named[0]:
            return kind
    bare = _entries(auto.MODEL_MAPPING, config)
    if fields["model_type"] not in auto.MODEL_FOR_IMAGE_MAPPING_NAMES or not bare:
        raise SourceError(
            f"{where} is a network of the kind {fields['model_type']!r}, expected an image encoder of transformers "
            "(vit, convnext, dinov2, beit, swin, resnet and others), for example "
            "load_source('hf:facebook/dinov2-base')"
        )
    return bare[0]


def _entries(mapping: Any, config: Any) -> tuple[type[nn.Module], ...]:
    """The classes for a config; DeiT has two classifiers."""
    found = mapping.get(type(config), ())
    return found if isinstance(found, tuple) else (found,)


def _config(fields: Mapping[str, Any], where: str) -> Any:
    transformers = _transformers()
    try:
        with _quiet():
            return transformers.AutoConfig.for_model(**fields)
    except Exception as error:  # a config's own checks raise errors of many classes
        raise SourceError(
            f"{where} is no config that transformers {transformers.__version__} reads ({_first_line(error)}). "
            "Copy its config.json again, or install a newer one: pip install --upgrade transformers"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the load reports and progress bars of transformers; we make a report of our own."""
    logging = _transformers().logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _check_size(kind: type[nn.Module], fields: Mapping[str, Any], where: str, most: int = _MOST_PARAMETERS) -> None:
    """Count parameters before any memory is taken."""
    try:
        with torch.device("meta"), _quiet():
            wanted = sum(p.numel() for p in kind(_config(fields, where)).parameters())
    except SourceError:
        raise
    except Exception as error:  # what a wrong config does to a constructor is anybody's guess
        raise SourceError(
            f"{where} describes no network: {kind.__name__} cannot be built from its config ({_first_line(error)}). "
            "Copy its config.json again"
        ) from error
    if wanted > most:
        raise SourceError(
            f"{where} describes a network of {wanted:,} parameters, and its weights hold far fewer values. "
            "Copy config.json and the weights again, from the same place"
        )


class ImageEncoder(nn.Module):
    """Mixed into a class of transformers: pixels in, one tensor out; all names stay transformers' own."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to logits (B, K), or to features (B, D)."""
        found = super().forward(pixel_values=pixels)  # type: ignore[misc]
        if getattr(found, "logits", None) is not None:
            return found.logits
        if getattr(found, "pooler_output", None) is not None:
            return found.pooler_output.flatten(1)
        return _pooled(found.last_hidden_state)


def _pooled(hidden: torch.Tensor) -> torch.Tensor:
    """The mean over places: (B, L, D) or (B, D, H, W) to (B, D)."""
    return hidden.mean(1) if hidden.dim() == 3 else hidden.mean((2, 3))


def _encoder(kind: type[nn.Module], fields: Mapping[str, Any], *, pooler: bool = True) -> nn.Module:
    settings = {} if pooler else {"add_pooling_layer": False}
    with _quiet():
        return _as_network(kind(_config(fields, kind.__name__), **settings))


def _as_network(model: nn.Module) -> nn.Module:
    base = type(model)
    model.__class__ = type(base.__name__, (ImageEncoder, base), {"__module__": base.__module__})
    return model


def _filled(fields: Mapping[str, Any], weights: Path) -> tuple[nn.Module, bool, LoadReport]:
    """The network with its weights; whether it has a pooler; and what became of every tensor."""
    tensors = dict(read_checkpoint(weights).tensors)
    check_finite(tensors, str(weights))
    kind = _class_of(fields, str(weights))
    _check_size(kind, fields, str(weights), 2 * sum(t.numel() for t in tensors.values()) + (1 << 24))
    model, report = _loaded(kind, fields, tensors, weights)
    # Self-supervised encoders are saved without the layer that pools their class token; a random one is of no use.
    pooler = not any(name.startswith("pooler.") for name in report.missing)
    if not pooler:
        model, report = _loaded(kind, fields, tensors, weights, add_pooling_layer=False)
    _check_fit(kind, report, weights)
    return _as_network(model), pooler, report


def _loaded(
    kind: Any, fields: Mapping[str, Any], tensors: dict[str, torch.Tensor], weights: Path, **settings: bool
) -> tuple[nn.Module, LoadReport]:
    """By transformers itself, which knows how the names of older versions have changed."""
    try:
        with _quiet():
            model, found = kind.from_pretrained(
                None,
                config=_config(fields, str(weights)),
                state_dict=dict(tensors),
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **settings,
            )
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(
            f"{weights} cannot be laid onto {kind.__name__} ({_first_line(error)}). Copy config.json and the weights "
            f"again, from the same place, then pass {weights.parent}"
        ) from error
    missing, mismatched = set(found["missing_keys"]), sorted(found["mismatched_keys"])
    unused = missing | {name for name, _, _ in mismatched}
    return model, LoadReport(
        matched=tuple(name for name in model.state_dict() if name not in unused),
        missing=tuple(sorted(missing)),
        unexpected=tuple(sorted(found["unexpected_keys"])),
        mismatched=tuple((name, tuple(ours), tuple(theirs)) for name, theirs, ours in mismatched),
    )


def _check_fit(kind: type[nn.Module], report: LoadReport, weights: Path) -> None:
    """Only the classifier may be fresh."""
    fresh = (*report.missing, *(name for name, _, _ in report.mismatched))
    wrong = [name for name in fresh if "classifier" not in name and not name.startswith("head.")]
    if wrong or not report.matched:
        raise SourceError(
            f"{weights} does not fit its config.json, starting with {wrong[:1] or 'all'}: {report}. Expected every "
            f"tensor of {kind.__name__} but the classifier's. Copy both files again, from the same place, then pass "
            f"{weights.parent}"
        )


def _classes(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names; none where they are transformers' own placeholders."""
    try:
        names = label_names(fields.get("id2label") or None)
    except (TypeError, ValueError):
        return ()
    return () if names and all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names


def _licence(folder: Path) -> str:
    """What the model card's header says."""
    card = folder / "README.md"
    with card.open(encoding="utf-8", errors="replace") if card.is_file() else _nothing() as file:
        head = file.read(4096) if file else ""
    found = re.search(r"^license:\s*([\w.-]+)\s*$", head, re.MULTILINE) if head.startswith("---") else None
    return found.group(1) if found else ""


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


def input_of(folder: Path, fields: Mapping[str, Any]) -> InputSpec | None:
    """The input that a folder's preprocessor describes; None where there is no preprocessor.

    Raises:
        SourceError: it describes none that makes sense.
    """
    settings = _preprocessor(folder)
    if settings is None:
        return None
    try:
        return _input(settings, int(fields.get("num_channels") or 3))
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise SourceError(
            f"{folder / 'preprocessor_config.json'} lacks something or has a wrong value: {error!r}. Copy it again, or "
            "say the input yourself: load_source(uri, input=InputSpec(size=(3, 224, 224)))"
        ) from error


def _preprocessor(folder: Path) -> dict[str, Any] | None:
    if (folder / "preprocessor_config.json").is_file():
        return read_json(folder / "preprocessor_config.json")
    if (folder / "processor_config.json").is_file():
        inner = read_json(folder / "processor_config.json").get("image_processor")
        return inner if isinstance(inner, dict) else None
    return None


def _input(settings: Mapping[str, Any], channels: int) -> InputSpec:
    """As transformers' image processors read these fields."""
    (height, width), resized, squashed = _sizes(settings)
    if not all(1 <= side <= _LARGEST for side in (height, width, resized)):
        raise ValueError(f"sizes {height}, {width}, {resized}")
    mean, std = _scaling(settings, channels)
    return InputSpec(
        size=(channels, height, width),
        mean=mean,
        std=std,
        interpolation=_RESAMPLE.get(settings.get("resample", 2), "bicubic"),
        crop_pct=min(min(height, width) / resized, 1.0),
        crop_mode="squash" if squashed else "center",
        channel_order="BGR" if settings.get("do_flip_channel_order") else "RGB",
    )


def _sizes(settings: Mapping[str, Any]) -> tuple[tuple[int, int], int, bool]:
    """(height, width) of the network's input, the side resized to before cropping, whether the shape is squashed."""
    size, crop = _sides(settings["size"]), settings.get("crop_size")
    by_edge = isinstance(settings["size"], Mapping) and "shortest_edge" in settings["size"]
    if "crop_pct" in settings and by_edge:  # ConvNeXt's rule: from 384 on, the whole picture is squashed
        return (size, int(size[0] / settings["crop_pct"]), False) if size[0] < 384 else (size, size[0], True)
    if settings.get("do_center_crop") and crop:
        return _sides(crop), min(size), False
    return size, min(size), not by_edge


def _sides(size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping):
        edge = size.get("shortest_edge")
        return (int(edge), int(edge)) if edge else (int(size["height"]), int(size["width"]))
    height, width = size if isinstance(size, list) else (size, size)
    return int(height), int(width)


def _scaling(settings: Mapping[str, Any], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std for pixels of 0..1, where the settings speak of pixels times `rescale_factor`."""
    factor = 255 * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 255.0
    offset = 1.0 if settings.get("rescale_offset") else 0.0
    normal = settings.get("do_normalize", True)
    mean = _numbers(settings["image_mean"] if normal else 0.0, channels)
    std = _numbers(settings["image_std"] if normal else 1.0, channels)
    if not all(deviation > 0 for deviation in std):
        raise ValueError(f"image_std {std}")
    return tuple(_rounded((m + offset) / factor) for m in mean), tuple(_rounded(s / factor) for s in std)


def _numbers(values: Any, channels: int) -> tuple[float, ...]:
    numbers = tuple(map(float, values)) if isinstance(values, list) else (float(values),) * channels
    if len(numbers) != channels:
        raise ValueError(f"{len(numbers)} numbers for {channels} channels")
    return numbers


def _rounded(value: float) -> float:
    """Without the last digits, which multiplying by 255 and by its inverse leaves behind."""
    return round(value, 9)
