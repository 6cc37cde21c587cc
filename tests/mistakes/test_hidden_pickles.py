"""Attack: a pickle that runs a command lies where nobody looks for one.

Bare files are in tests/source/test_checkpoints.py; here it is inside of what seems safe.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
import torch

from readers import MARK, READERS, TRAP, Sample
from regraft.errors import SourceError


def trap() -> bytes:
    stream = io.BytesIO()
    torch.save({"state_dict": TRAP}, stream)
    return stream.getvalue()


def folder(name: str) -> Sample:
    """A folder whose weights are a pickle."""
    sample = READERS[name]()
    files = {n: content for n, content in sample.files.items() if n != "model.safetensors"}
    return Sample(files | {"pytorch_model.bin": trap()})


def shard() -> Sample:
    index = {"weight_map": {"stem.conv.weight": "a.bin"}}
    return Sample({"net.index.json": json.dumps(index).encode(), "a.bin": trap()}, "net.index.json", "x:y")


def renamed() -> Sample:
    return Sample({"net.safetensors": trap()}, "net.safetensors", "x:y")


def archive() -> Sample:
    stream, inside = io.BytesIO(), folder("regraft folder").files
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in inside.items():
            file.writestr(f"net/{name}", content)
    return Sample({"net.zip": stream.getvalue()}, "net.zip")


PLACES = {
    "a folder of timm": lambda: folder("timm folder"),
    "a folder of transformers": lambda: folder("transformers folder"),
    "a folder of regraft": lambda: folder("regraft folder"),
    "one of several files": shard,
    "a file called safetensors": renamed,
    "an archive": archive,
}


@pytest.mark.parametrize("place", PLACES)
def test_it_does_not_run(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    sample = PLACES[place]()
    (tmp_path / "files").mkdir()
    with pytest.raises(SourceError):
        sample.open(sample.files, tmp_path / "files")
    assert not list(tmp_path.rglob(MARK))


def test_the_trap_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.load(io.BytesIO(trap()), weights_only=False)
    assert (tmp_path / MARK).exists()
