"""Shared by the benchmarks: run a command in a process of its own, and store a table beside what made it."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("REGRAFT_DATA", HERE.parents[1] / "shared" / "data"))
REGRAFT = [sys.executable, "-m", "regraft"]


@dataclass(frozen=True)
class Finished:
    """A command that ended: its JSON result, wall seconds, and the children's peak memory so far in MiB."""

    result: Any
    seconds: float
    peak_mb: float


def timed(command: Sequence[str], *, cache: Path | None = None) -> Finished:
    """Run a command that prints JSON on standard output; fails loudly with the command's own words."""
    environment = {**os.environ, **({"REGRAFT_CACHE": str(cache)} if cache else {})}
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return Finished(json.loads(done.stdout), seconds, peak)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="regraft-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def machine() -> str:
    """What the figures were taken on, and when."""
    return f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"


def store(name: str, header: Sequence[str], rows: Sequence[Sequence[Any]], note: str) -> None:
    """Print a table and keep it as benchmarks/results/NAME.md."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    script = Path(sys.argv[0]).resolve().relative_to(HERE).as_posix()
    text = f"# {name}\n\n`python benchmarks/{script}`; {machine()}. {note}\n\n" + "\n".join(lines) + "\n"
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
