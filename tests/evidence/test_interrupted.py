"""Who stops the controls keeps the model; the same command goes on with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import regraft.evidence.controls as controls
from regraft.artifact import load
from regraft.job import Job
from regraft.testing import tiny_source
from regraft.transfer import transfer
from regraft.tune import RECIPES


def test_stopped_controls_leave_a_model_and_go_on(shapes, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(controls, "LEAST_SHARE", 0.0)  # on a busy machine scratch would be left out
    torch.save(tiny_source().model.state_dict(), tmp_path / "tiny.pt")
    job = Job(
        data=str(tmp_path / "shapes"),
        source=(str(tmp_path / "tiny.pt"),),
        arch=("regraft.testing.sources:tiny_net",),
        recipe="probe",
        runtime="torch",
        cache=tmp_path / "cache",
        out=tmp_path / "run",
    )

    def stop(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(controls, "from_scratch", stop)
        with pytest.raises(KeyboardInterrupt):
            transfer(job)
    before = json.loads((tmp_path / "run/metrics.json").read_text())
    assert load(tmp_path / "run/model", trust_code=True).classes == shapes.classes
    assert "Not yet compared" in (tmp_path / "run/report.html").read_text()
    assert not (tmp_path / "run/evidence.json").exists()
    draws = len(list((tmp_path / "run/controls").iterdir()))
    assert draws >= 1

    monkeypatch.setitem(RECIPES._entries, "scratch", RECIPES["scratch"].with_(epochs=1, min_updates=4))
    done = transfer(replace(job, resume=True))
    assert done.metrics["test"] == before["test"]
    assert [c["name"] for c in done.evidence["controls"] if c["matched"]] == ["fresh weights", "scratch"]
    assert not (tmp_path / "run/controls").exists()
    assert "points against" in (tmp_path / "run/model/README.md").read_text()
