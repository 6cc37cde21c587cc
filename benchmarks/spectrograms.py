"""Which log-mel pictures a network for photos reads best: probes on spoken digits, without its test split.

36 recordings per class, of training and validation; ridge on the means of the last layer, and on two middle blocks on a
grid of 4 x 4. At 5 per class: mean of 10 draws, scored on the rest; at 27 per class: cross-validation in 4 folds.

Shape letters: N recordings, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from common import DATA, store
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit, cross_val_score
from torch import nn

from regraft.cut import between, trace
from regraft.data import Dataset, read
from regraft.data.audio import AudioTransform, Sound
from regraft.source import Source, example_inputs, front, load_source
from regraft.source.spectrogram import for_sound
from regraft.spec import AudioSpec, InputSpec

NETWORK, BLOCKS = "mobilenetv2_100_imagenet", ("blocks.3", "blocks.4")
PER_CLASS, BATCH = 36, 60


def variants(spec: AudioSpec, source: Source) -> Iterator[tuple[str, AudioSpec, bool]]:
    """(name, input, whether recordings begin at the left edge): the chosen one, and one change at a time."""
    assert spec.picture and spec.mel and isinstance(source.input, InputSpec)
    own = replace(spec.picture, mean=source.input.mean, std=source.input.std)
    yield "chosen", spec, False
    yield "at the left edge", spec, True
    yield "the network's own mean and std", replace(spec, picture=own), False
    for db in (15, 20, 40, 60, 80):
        yield f"{db} dB", replace(spec, mel=replace(spec.mel, top_db=db)), False
    for mels in (24, 64, 128):
        yield f"{mels} mel filters", replace(spec, mel=replace(spec.mel, n_mels=mels)), False
    for ms in (16, 50, 64):
        size = spec.rate * ms // 1000
        yield f"windows of {ms} ms", replace(spec, mel=replace(spec.mel, win_length=size)), False
    usual = replace(spec.mel, n_mels=64, top_db=80, hop_length=spec.rate // 100)
    yield "64 filters, 80 dB, 10 ms apart, left edge", replace(spec, mel=usual), True
    yield "the same, the network's own mean and std", replace(spec, picture=own, mel=usual), True


def with_own_statistics(spec: AudioSpec, rows: np.ndarray) -> AudioSpec:
    """The mean and std that `for_sound` would have measured on these pictures."""
    assert spec.picture
    mean, std = round(float(rows.mean()) / 255, 2), round(float(rows.std()) / 255, 2)
    return replace(spec, picture=replace(spec.picture, mean=(mean,) * 3, std=(std,) * 3))


def prepared(sounds: list[Sound], spec: AudioSpec, left: bool) -> np.ndarray:
    if left:
        sounds = [Sound(np.pad(s.samples, (0, max(0, spec.samples - len(s.samples)))), s.rate) for s in sounds]
    return np.stack([AudioTransform(spec)(sound) for sound in sounds])


@torch.inference_mode()
def features(network: nn.Module, spec: AudioSpec, rows: np.ndarray) -> list[np.ndarray]:
    """(N, D) of the last layer, and of the middle blocks joined."""
    enter, last, middle = front(spec), [], []
    for batch in torch.from_numpy(rows).split(BATCH):
        *blocks, end = network(*enter(batch))
        last.append(end)
        middle.append(torch.cat([nn.functional.adaptive_avg_pool2d(b, 4).flatten(1) for b in blocks], 1))
    return [torch.cat(parts).double().numpy() for parts in (last, middle)]


def accuracies(X: np.ndarray, y: np.ndarray) -> list[str]:
    """At 5 and at 27 per class, in percent."""
    X = (X - X.mean(0)) / (X.std(0) + 1e-6)
    U, S, _ = np.linalg.svd(X @ X.T / X.shape[1], hermitian=True)  # the same ridge in N dimensions
    few = StratifiedShuffleSplit(10, train_size=5 * len(set(y)), random_state=0)
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    ridge = RidgeClassifierCV(alphas=np.logspace(-4, 2, 13))
    return [f"{100 * cross_val_score(ridge, U * np.sqrt(S), y, cv=cv).mean():.1f}" for cv in (few, folds)]


def chosen(data: Dataset) -> Dataset:
    """Some of the training and validation recordings."""
    learnt = replace(data, examples=tuple(replace(e, split="train") for e in data.examples if e.split != "test"))
    return learnt.per_class(PER_CLASS, seed=0)


def main() -> None:
    data = chosen(read(DATA / "datasets" / "spoken_digits"))
    source = load_source(str(DATA / "weights" / NETWORK))
    fitted = for_sound(source, data)
    assert isinstance(fitted.input, AudioSpec)
    traced = trace(fitted.model, example_inputs(fitted.input))
    network = between(traced, "input", [*BLOCKS, traced.feature])
    sounds = [data.open(i) for i in range(len(data))]
    rows = []
    for name, spec, left in variants(fitted.input, source):
        pictures = prepared(sounds, spec, left)
        measured = spec if "own mean" in name else with_own_statistics(spec, pictures)
        last, middle = features(network, measured, pictures)
        rows.append([name, *accuracies(last, data.labels), *accuracies(middle, data.labels)])
        print(*rows[-1], flush=True)
    header = ["picture", "last, 5 per class", "last, 27", "middle, 5 per class", "middle, 27"]
    store("spectrograms", header, rows, f"{NETWORK}, {len(data)} recordings of training and validation.")


if __name__ == "__main__":
    main()
