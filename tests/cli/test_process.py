"""What the process of a command sets for itself."""

from __future__ import annotations

import ctypes
import subprocess
import sys

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
