"""The model card: README.md with the head that the Hugging Face hub reads."""

from __future__ import annotations

import json
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from regraft.data import CLASSIFICATION, Task
from regraft.data.audio import WINDOWS
from regraft.data.medium import MEDIA
from regraft.evidence.measures import WORDS, as_shown, in_words
from regraft.evidence.report import control_in_words, percent, points, source_name, taps_in_words, verdict_in_words
from regraft.spec import Modality

# Identifiers that the hub knows; any other licence is "other" with its own name beside it.
_LICENCES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "lgpl-3.0", "mpl-2.0", "openrail"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "unknown"),
)

# The package that an architecture is built by; all others are built by regraft itself.
_BUILT_BY = {"timm": ("timm",), "torchvision": ("torchvision",), "hf": ("transformers",)}

_EXAMPLES: dict[Modality, str] = {"image": '"photo.jpg"', "text": '"A text."', "audio": '"recording.wav"'}

_KINDS = {"classification": "classification", "multilabel": "classification", "regression": "regression"}


@cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("regraft.artifact"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {
        "yaml": _yaml,
        "percent": percent,
        "points": points,
        "line": _line,
    }
    return environment


def template(name: str) -> Any:
    """One of this stage's templates, with the filters that show numbers."""
    return _environment().get_template(name)


def model_card(config: dict[str, Any], *, evidence: dict[str, Any], dataset: str) -> str:
    """The card of a bundle.

    Args:
        config: the bundle's config.json.
        evidence: the run's evidence.json, or nothing.
        dataset: name of the data, or nothing.
    """
    source, metrics, medium = config["source"], config["metrics"], MEDIA[_modality(config)]
    task = Task.from_dict(config["task"]) if "task" in config else CLASSIFICATION
    return template("README.md.j2").render(
        config=config,
        task=f"{medium.modality}-{_KINDS[task.kind]}",
        kind=task.kind,
        numeric=task.numeric,
        metric={"classification": "accuracy", "multilabel": "f1", "regression": "r_squared"}[task.kind],
        words=WORDS[task.kind],
        figures=in_words(task.kind, metrics["test"]) if "test" in metrics else "",
        one=medium.noun,
        example=_EXAMPLES[medium.modality],
        goes_in=_goes_in(config["input"], medium.modality, config.get("views", 1)),
        source=source,
        origin_name=source_name(source["uri"]),
        licence=_licence(source["licence"]),
        base_model=_hub_name(source["uri"]),
        test=as_shown(metrics)["test"] if "test" in metrics else None,
        metrics=metrics,
        evidence=evidence,
        verdict=verdict_in_words(evidence),
        against=control_in_words(evidence) if evidence.get("control") else "",
        over_scratch=_over_scratch(evidence),
        taps=taps_in_words(config["taps"]),
        dataset=dataset,
        versions=_versions(source["arch"]),
    )


def _modality(config: dict[str, Any]) -> Modality:
    return config["input"].get("modality", "image")


def _goes_in(spec: dict[str, Any], modality: Modality, views: int) -> str:
    """What an example is made into before the network sees it, one sentence."""
    if modality == "text":
        what = "tokens of the source's own tokenizer" if spec["kind"] == "tokenizer" else "words of its vocabulary"
        return f"Texts as {what}, at most {spec['length']} of them; longer texts are cut."
    if modality == "audio":
        seconds = spec["samples"] / spec["rate"]
        seen = ", shown as log-mel spectrograms" if spec["picture"] else ""
        part = f"the mean over {min(views, WINDOWS)} windows" if views > 1 else "the middle"
        heard = f"{seconds:.4g} seconds, {part} of longer ones{seen}"
        return f"Recordings at {spec['rate']} samples per second, mono, {heard}."
    channels, height, width = spec["size"]
    crop = "the middle is cropped" if spec["crop_mode"] == "center" else "both sides are squeezed"
    mean, std = (", ".join(map(_number, spec[name])) for name in ("mean", "std"))
    return (
        f"Pictures as {channels} × {height} × {width} (channels, height, width): {spec['interpolation']} resize, "
        f"{crop} (crop_pct {spec['crop_pct']}), scaled to 0..1, mean {mean}, std {std}."
    )


def _over_scratch(evidence: dict[str, Any]) -> list[float]:
    """The 95 % interval of the gain over training from scratch; empty where that was not run."""
    against = evidence.get("benefits", {}).get("asymptote", {}).get("against", {})
    scratch = [found for name, found in against.items() if name.startswith("scratch")]
    return min(scratch, key=lambda found: found["difference"])["ci95"] if scratch else []


def _yaml(text: str) -> str:
    """A text as a YAML scalar; JSON strings are YAML."""
    return json.dumps(text, ensure_ascii=False)


def _line(text: Any) -> str:
    """A text that stays on its line and starts no markup."""
    flat = " ".join(str(text).split())
    for mark in "\\`*_<>[]|":
        flat = flat.replace(mark, f"\\{mark}")
    return flat


def _number(value: float) -> str:
    return f"{value:.4g}"


def _licence(name: str) -> dict[str, str]:
    known = name.strip().lower().replace(" ", "-")
    if known in _LICENCES:
        return {"license": known}
    return {"license": "other", "license_name": name.strip()} if name.strip() else {"license": "unknown"}


def _hub_name(uri: str) -> str:
    """The source's name on the hub; empty for a file or a folder, which has none."""
    scheme, _, name = uri.partition(":")
    if scheme == "hf" and name.count("/") == 1:
        return name
    return f"{scheme}/{name}" if scheme in ("timm", "regraft") and "/" not in name else ""


def _versions(arch: str) -> dict[str, str]:
    """Of everything that the rebuilt network depends on."""
    packages = ["regraft", "torch", "safetensors", "pillow", *_BUILT_BY.get(arch.partition(":")[0], ())]
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"
