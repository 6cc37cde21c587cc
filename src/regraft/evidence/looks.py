"""Pictures of what a network has learned: its first filters, what excites its channels, and where it looks.

Written to looks/ in the run folder: filters.png, channel-N.jpg (a strip of pictures for each channel), and
where-N.jpg (a picture beside its heat map).

Letters: N examples, C channels, H and W pixels.

References:
    M. Zeiler, R. Fergus, Visualizing and Understanding Convolutional Networks, 2013, arXiv:1311.2901 (filters, the
    examples that excite a channel most, and occlusion).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from regraft.cache import pooled
from regraft.data import Dataset, Transform, load_pixels, plain
from regraft.evidence.folder import LOOKS
from regraft.probe import taps_wanted
from regraft.search import Trial
from regraft.spec import InputSpec

FILTERS, CHANNELS, EXCITING, WATCHED = 64, 6, 6, 4
FILTER_SIDE = 36  # at which the smallest filters are drawn, in whole factors
TILE = 96  # side of one picture in a strip
WINDOWS = 8  # occluding squares along a side


def write_looks(run: Path, chosen: Trial) -> None:
    """The pictures that cost nothing: filters, and what excites channels of an inner stage (validation split).

    Of texts and recordings there are none: neither their networks' filters nor their rows are pictures.
    """
    if chosen.prospect.features.data.modality != "image":
        return
    folder = run / LOOKS
    folder.mkdir(exist_ok=True)
    filters = first_filters(chosen.prospect.source.model)
    if filters is not None:
        filters.save(folder / "filters.png")
    for i, strip in enumerate(exciting(chosen)):
        strip.save(folder / f"channel-{i}.jpg", quality=80)


def write_where(run: Path, chosen: Trial) -> None:
    """Where the delivered model looks, for the first test picture of some classes; costs forward passes."""
    data, spec = chosen.prospect.features.data.split("test"), chosen.prospect.source.input
    if data.modality != "image" or not isinstance(spec, InputSpec):
        return
    first = list({label: i for i, label in reversed(list(enumerate(data.labels.tolist())))}.values())[:WATCHED]
    network, transform = chosen.delivered(), Transform(spec)
    (run / LOOKS).mkdir(exist_ok=True)
    for number, i in enumerate(sorted(first)):
        pixels = load_pixels(_only(data, i), transform)[0]
        beside_heat(pixels, occlusion(network, pixels)).save(run / LOOKS / f"where-{number}.jpg", quality=80)


def first_filters(model: nn.Module) -> Image.Image | None:
    """The filters of the first convolution that sees colours, each stretched to the full range; None without one.

    Example:
        >>> first_filters(nn.Sequential(nn.Conv2d(3, 8, 5))).size
        (312, 39)
    """
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3]
    if not convolutions or min(convolutions[0].kernel_size) < 2:
        return None
    weights = convolutions[0].weight.detach().numpy()[:FILTERS]
    low, high = (end((1, 2, 3), keepdims=True) for end in (weights.min, weights.max))
    squares = (255 * (weights - low) / np.maximum(high - low, 1e-12)).astype(np.uint8).transpose(0, 2, 3, 1)
    factor = max(1, FILTER_SIDE // squares.shape[1])
    tiles = [np.asarray(square).repeat(factor, 0).repeat(factor, 1) for square in squares]
    tiles = [np.pad(tile, ((2, 2), (2, 2), (0, 0)), constant_values=128) for tile in tiles]
    rows = [np.concatenate(tiles[i : i + 16], axis=1) for i in range(0, len(tiles), 16)]
    width = rows[0].shape[1]
    full = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=128) for row in rows]
    return Image.fromarray(np.concatenate(full))


def exciting(chosen: Trial) -> list[Image.Image]:
    """For the liveliest channels of an inner stage, the validation pictures that excite each one most."""
    features, traced = chosen.prospect.features, chosen.prospect.traced
    data = features.data.split("val")
    wanted = [tap for tap in taps_wanted(traced, len(features.labels("train"))) if tap.grid > 1]
    plans = {tap: pooled(traced.cut(tap.cut).shape, traced.cut(tap.cut).layout, tap.grid) for tap in wanted}
    inner = [tap for tap, plan in plans.items() if plan.kind == "grid" and plan.grid > 1]
    if not inner or not len(data):
        return []
    tap = inner[len(inner) // 2]
    rows = np.asarray(features(tap, "val"), dtype=np.float32)
    peaks = plans[tap].cells(rows).max(2)  # (N, C): the strongest place
    spread = peaks.std(0) / (np.abs(peaks).mean(0) + 1e-9)
    return [_strip(data, np.argsort(-peaks[:, c])[:EXCITING]) for c in np.argsort(-spread)[:CHANNELS]]


@torch.no_grad()
def occlusion(network: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """How much the chosen class loses when a grey square covers each place, (WINDOWS, WINDOWS).

    Args:
        network: from pixels 0..255 to class scores.
        pixels: uint8 (C, H, W).
    """
    whole = torch.from_numpy(pixels).float()
    covered = torch.stack([whole, *_covered(whole)])
    p = torch.cat([network(part).softmax(1) for part in covered.split(16)])
    return (p[0].max() - p[1:, p[0].argmax()]).reshape(WINDOWS, WINDOWS).numpy()


def _covered(picture: Tensor) -> list[Tensor]:
    height, width = picture.shape[1:]
    ys, xs = (np.linspace(0, side, WINDOWS + 1).round().astype(int) for side in (height, width))
    grown = max(1, height // WINDOWS // 2)  # squares overlap, so that what lies on an edge is covered too
    found = []
    for top, bottom in pairwise(ys):
        for left, right in pairwise(xs):
            copy = picture.clone()
            copy[:, max(0, top - grown) : bottom + grown, max(0, left - grown) : right + grown] = 128
            found.append(copy)
    return found


def beside_heat(pixels: np.ndarray, heat: np.ndarray) -> Image.Image:
    """A picture (C, H, W), and beside it the same picture bright where it matters."""
    picture = Image.fromarray(pixels.transpose(1, 2, 0).squeeze()).convert("RGB").resize((2 * TILE, 2 * TILE))
    scaled = np.clip(heat, 0, None) / max(1e-6, float(heat.max()))
    mask = Image.fromarray((255 * scaled).astype(np.uint8)).resize(picture.size, Image.Resampling.BICUBIC)
    dark = Image.blend(Image.new("RGB", picture.size), picture, 0.25)
    both = Image.new("RGB", (4 * TILE, 2 * TILE))
    both.paste(picture, (0, 0))
    both.paste(Image.composite(picture, dark, mask), (2 * TILE, 0))
    return both


def _strip(data: Dataset, places: np.ndarray) -> Image.Image:
    strip = Image.new("RGB", (TILE * len(places), TILE), (128, 128, 128))
    for i, place in enumerate(places.tolist()):
        strip.paste(plain(data.open(place)).convert("RGB").resize((TILE, TILE)), (TILE * i, 0))
    return strip


def _only(data: Dataset, i: int) -> Dataset:
    return replace(data, examples=(data.examples[i],))
