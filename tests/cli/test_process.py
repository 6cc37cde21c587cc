"""What the process of a command sets for itself."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = """
import resource
import numpy as np
from regraft.cli.process import prepare

if {prepared}:
    prepare()
np.ones(2_000_000)  # 16 MB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(2_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc's alone")
def test_memory_that_is_freed_serves_again() -> None:
    def faults(*, prepared: bool) -> int:
        return int(subprocess.check_output([sys.executable, "-c", FAULTS.format(prepared=prepared)]))

    assert faults(prepared=True) * 10 < faults(prepared=False)


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another signal there")
def test_ctrl_c_is_no_defect_and_says_how_to_go_on(tmp_path: Path) -> None:
    fit = [sys.executable, "-m", "regraft", "fit", "digits", "--per-class", "5", "--recipe", "finetune", "--no-cache"]
    with subprocess.Popen(fit, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        assert "Run folder: runs/digits-1" in run.stderr.readline()
        run.send_signal(signal.SIGINT)
        told = run.stderr.read()
    assert run.returncode == 130 and "Traceback" not in told
    assert told.rstrip().endswith("The same command with --out RUN_FOLDER --resume goes on.")
