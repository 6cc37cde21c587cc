"""Which engine runs frozen layers fastest on this machine's CPU: time per picture, and to convert.

    python benchmarks/runtimes.py [--repeats 3] [--models resnet18 …] [--without ENGINE …]

Random weights; uint8 pictures of 224x224; every engine runs the same graph, normalisation included, in
float32 unless it says otherwise. Engines that are not installed are left out (ONNX Runtime needs
onnxruntime, onnx, onnxscript). The best of the repeats counts; engines take turns, so that other work on the
machine hurts all of them alike.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from torch import nn

from regraft.cache import Tap, TapModel
from regraft.cache.openvino_cpu import OpenVINORuntime, openvino
from regraft.cache.runtime import TorchRuntime
from regraft.cut import trace
from regraft.spec import InputSpec

MODELS = ("resnet18", "mobilenetv2_100", "vit_tiny_patch16_224")
SIZE = (3, 224, 224)
BATCH = 64

Run = Callable[[np.ndarray], list[np.ndarray]]


def eager(model: nn.Module) -> Run:
    """PyTorch as everybody runs it."""

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return [out.numpy() for out in model(torch.from_numpy(pixels))]

    return run


def compiled(model: nn.Module) -> Run:
    """PyTorch channels-last, through torch.compile."""
    return TorchRuntime(model, compiled=True).run


def onnx_runtime(model: nn.Module) -> Run:
    """ONNX Runtime, on a graph that torch.onnx exported."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    example = torch.zeros((2, *SIZE), dtype=torch.uint8)
    batch = {0: torch.export.Dim("batch", min=1, max=4096)}
    exported = torch.onnx.export(model, (example,), dynamo=True, dynamic_shapes=(batch,), verbose=False)
    assert exported is not None
    session = onnxruntime.InferenceSession(exported.model_proto.SerializeToString())
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})


def openvino_sync(model: nn.Module) -> Run:
    """OpenVINO, one request of a whole batch at a time, converted as its guide says."""
    ov = openvino()
    traced = torch.jit.trace(model, torch.zeros((BATCH, *SIZE), dtype=torch.uint8), check_trace=False)
    converted = ov.convert_model(traced, input=[(ov.PartialShape([BATCH, *SIZE]), ov.Type.u8)])
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    runs = ov.Core().compile_model(converted, "CPU", settings)
    return lambda pixels: list(runs(pixels).values())


ENGINES: dict[str, Callable[[nn.Module], Run]] = {
    "PyTorch eager": eager,
    "PyTorch channels-last": lambda model: TorchRuntime(model).run,
    "PyTorch compiled": compiled,
    "ONNX Runtime": onnx_runtime,
    "OpenVINO, one request": openvino_sync,
    "OpenVINO, streams (regraft)": lambda model: OpenVINORuntime(model, SIZE).run,
    "OpenVINO, streams, bf16": lambda model: OpenVINORuntime(model, SIZE, precision="bf16").run,
}
NEEDS = {"ONNX Runtime": "onnxruntime"}


def measure(
    name: str, engines: dict[str, Callable[[nn.Module], Run]], pixels: np.ndarray, repeats: int
) -> dict[str, tuple[float, float, float]]:
    """For each engine: ms per picture, seconds to convert, difference to eager in standard deviations."""
    import timm

    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    traced = trace(network, torch.zeros(2, *SIZE))
    model = TapModel(traced, [Tap("output")], InputSpec((3, 224, 224))).eval()
    runs, converting = {}, {}
    for engine, build in engines.items():
        started = time.perf_counter()
        runs[engine] = build(copy.deepcopy(model))
        runs[engine](pixels)  # compiles, where an engine does that late
        converting[engine] = time.perf_counter() - started
        print(f"{name}: {engine} ready after {converting[engine]:.1f} s", file=sys.stderr)
    reference = runs["PyTorch eager"](pixels)[0]
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for engine, run in runs.items():
            started = time.perf_counter()
            run(pixels)
            best[engine] = min(best[engine], time.perf_counter() - started)
    differs = {e: float(abs(run(pixels)[0] - reference).max() / reference.std()) for e, run in runs.items()}
    return {e: (best[e] / len(pixels) * 1e3, converting[e], differs[e]) for e in runs}


def options() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--without", nargs="+", choices=list(ENGINES), default=[])
    return parser.parse_args()


def main() -> None:
    """Measures and prints a table in Markdown."""
    given = options()
    warnings.simplefilter("ignore")
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, *SIZE), dtype=np.uint8)
    left_out = {e for e, package in NEEDS.items() if find_spec(package) is None} | set(given.without)
    engines = {engine: build for engine, build in ENGINES.items() if engine not in left_out}
    columns = {name: measure(name, engines, pixels, given.repeats) for name in given.models}
    print(f"\n{torch.get_num_threads()} cores, batch {BATCH}, best of {given.repeats}:\n")
    print("| ms per picture (seconds to convert; difference) | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for engine in engines:
        cells = (column[engine] for column in columns.values())
        print(f"| {engine} | " + " | ".join(f"{ms:.1f} ({s:.1f} s; {d:.0e})" for ms, s, d in cells) + " |")


if __name__ == "__main__":
    main()
