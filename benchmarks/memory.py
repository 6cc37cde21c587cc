"""Peak memory of `regraft fit --recipe probe` on ten times as many photos; each run is a fresh process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import DATA, REGRAFT, scratch_folder, store, timed
from PIL import Image

SOURCE = DATA / "weights" / "mobilenetv2_100_imagenet"
SIZES = (300, 3000)


def photos(root: Path, n: int) -> None:
    """Noise over a gradient, as JPEG: every file has other content, and decodes like a photo."""
    ramp = np.linspace(0, 255, 256)[None, :, None]
    for i in range(n):
        folder = root / ("left", "right")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(i)
        pixels = (0.7 * ramp[:, :: 1 if i % 2 else -1] + 70 * rng.random((256, 256, 3))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=85)


def main() -> None:
    rows = []
    for n in SIZES:
        with scratch_folder() as work:
            photos(work / "data", n)
            flags = ["--recipe", "probe", "--evidence", "off", "--json", "--out", str(work / "run")]
            words = [*REGRAFT, "fit", str(work / "data"), "--source", str(SOURCE), *flags]
            found = timed(words, cache=work / "cache")
            rows.append([n, f"{found.result['peak_rss_mb']:.0f}", f"{found.seconds:.0f}"])
    growth = float(rows[1][1]) / float(rows[0][1]) - 1
    store("memory", ["photos", "peak MiB", "seconds"], rows, f"Growth: {100 * growth:.0f} %.")


if __name__ == "__main__":
    main()
