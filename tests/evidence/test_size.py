"""A page that is sent by mail stays small, however many pictures were tested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from regraft.job import Job
from regraft.testing import tiny_source
from regraft.transfer import transfer

TESTED, CLASSES, SIDE = 1000, 10, 200


def _noise(folder: Path, n: int, random: np.random.Generator) -> None:
    """Pictures that no compression makes small, with labels that nobody can learn: many confident mistakes."""
    for i in range(n):
        place = folder / f"class {i % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"a rather long name of a picture {i}.jpg", quality=60)


def test_a_thousand_pictures_of_noise_make_no_more_than_three_megabytes(tmp_path: Path):
    random = np.random.default_rng(0)
    for split, n in (("train", 60), ("val", 40), ("test", TESTED)):
        _noise(tmp_path / "noise" / split, n, random)
    torch.save(tiny_source().model.state_dict(), tmp_path / "tiny.pt")
    job = Job(
        data=str(tmp_path / "noise"),
        source=(str(tmp_path / "tiny.pt"),),
        arch=("regraft.testing.sources:tiny_net",),
        recipe="probe",
        runtime="torch",
        evidence="off",
        cache=tmp_path / "cache",
        out=tmp_path / "run",
    )
    run = transfer(job).folder
    page = (run / "report.html").read_text()
    assert "of 1,000 test pictures" in page
    assert page.count("data:image/jpeg") > 24  # mistakes, and what excites channels
    assert len(page.encode()) <= 3_000_000
    assert (run / "report.md").stat().st_size <= 100_000
