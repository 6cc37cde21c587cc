"""A folder of small pictures, and the command line called in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from regraft.cli import main
from regraft.testing import tiny_images

CLASSES = ("disc", "square", "cross")
TINY = "regraft.testing.sources:tiny_net"


@dataclass(frozen=True)
class Answer:
    """What a command left: exit status and both streams."""

    status: int
    out: str
    err: str


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """60 pictures of three classes as class folders."""
    root = tmp_path / "shapes"
    X, y = tiny_images(20)
    for i, (pixels, label) in enumerate(zip(X, y, strict=True)):
        folder = root / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The tiny network's weights as a bare checkpoint."""
    import torch

    from regraft.testing import tiny_source

    path = tmp_path / "tiny.pt"
    torch.save({"state_dict": tiny_source().model.state_dict()}, path)
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Call `regraft` as a person would."""

    def call(*words: object) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        streams = capsys.readouterr()
        return Answer(int(ended.value.code or 0), streams.out, streams.err)

    return call
