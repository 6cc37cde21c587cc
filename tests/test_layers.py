"""Imports go one way, in the order of the flow."""

from __future__ import annotations

import ast
from pathlib import Path

import regraft

SRC = Path(regraft.__file__).parent
ORDER = [
    "started", "errors", "offline", "spec", "digest", "registry", "values", "run", "data", "source", "cut", "cache",
    "head", "probe", "tune", "search", "evidence", "artifact", "pretrain", "engine", "job", "transfer", "estimator",
    "cli", "testing",
]  # fmt: skip
# An optional package and the one file of a stage that may import it.
ADAPTERS = {
    "timm": ("source/timm_hub.py",),
    "torchvision": ("source/torchvision_hub.py",),
    "transformers": ("source/transformers/hub.py", "data/audio/extractor.py", "tune/lora.py"),
    "soundfile": ("data/audio/sound.py",),
    "soxr": ("data/audio/transform.py",),
    "huggingface_hub": ("data/hub.py", "source/transformers/hub.py"),
    "onnx": ("source/onnx/file.py", "artifact/export.py"),
    "onnxscript": ("artifact/export.py",),
    "starlette": ("artifact/serve.py",),
    "uvicorn": ("artifact/serve.py",),
    "python_multipart": ("artifact/serve.py",),
    "h5py": ("source/hdf5.py",),
    "keras": ("source/hdf5.py",),
    "google": ("source/messages.py",),
    "tflite": ("source/tflite.py",),
    "peft": ("tune/lora.py",),
    "optuna": ("search/study.py",),
    "openvino": ("cache/openvino_cpu.py",),
    "ray": ("engine/ray.py",),
}


def _imports(path: Path) -> list[tuple[int, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def _stage(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def test_a_stage_imports_only_earlier_ones():
    bad = []
    for path in sorted(SRC.rglob("*.py")):
        if (stage := _stage(path)).startswith("__"):
            continue
        for line, module in _imports(path):
            parts = module.split(".")
            ours = parts[0] == "regraft" and len(parts) > 1 and parts[1] in ORDER
            if ours and ORDER.index(parts[1]) > ORDER.index(stage):
                bad.append(f"{path.relative_to(SRC)}:{line} imports {module}")
    assert not bad, "\n".join(bad)


def test_optional_packages_stay_in_their_adapter():
    bad = [
        f"{path.relative_to(SRC)}:{line} imports {module}"
        for path in sorted(SRC.rglob("*.py"))
        for line, module in _imports(path)
        if (package := module.split(".")[0]) in ADAPTERS
        and path.relative_to(SRC).as_posix() not in ADAPTERS[package]
        and _stage(path) != "testing"
    ]
    assert not bad, "\n".join(bad)
