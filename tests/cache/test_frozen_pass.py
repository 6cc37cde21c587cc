"""The frozen pass: rows equal the live network's, are computed once, and survive kills and full disks."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from regraft.cache import FeatureCache, Tap, TapModel, estimate_bytes, frozen_pass, list_caches, write
from regraft.cache.runtime import TOLERANCE
from regraft.cut import Traced, trace
from regraft.data import Dataset, Problem, Transform, load_pixels, read
from regraft.errors import CacheError, DataError
from regraft.testing import tiny_images, tiny_source

SOURCE = tiny_source()
TAPS = (Tap("input", 2), Tap("stem", 4), Tap("block2"), Tap("block3", 4), Tap("mean"))


@pytest.fixture(scope="module")
def traced() -> Traced:
    return trace(SOURCE.model, torch.zeros(2, 3, 32, 32))


def dataset(per_class: int = 30, seed: int = 0) -> Dataset:
    return read(tiny_images(per_class, seed=seed))


def live(data: Dataset, traced: Traced, tap: Tap) -> np.ndarray:
    """What the network says now, in PyTorch."""
    model = TapModel(traced, [tap], SOURCE.input).eval()
    with torch.no_grad():
        return model(torch.from_numpy(load_pixels(data, Transform(SOURCE.input))))[0].numpy()


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_a_cached_row_equals_the_live_output(tmp_path: Path, traced: Traced, runtime: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    data = dataset()
    caches, report = frozen_pass(data, SOURCE, traced, TAPS, root=tmp_path, runtime=runtime, batch_size=32)
    assert (report.runtime, report.fallback_reason, report.computed, report.hits) == (runtime, "", 90, 0)
    for tap in TAPS:
        expected = live(data, traced, tap)
        np.testing.assert_allclose(
            caches[tap].rows(data.keys), expected, rtol=0, atol=TOLERANCE * float(expected.std())
        )


def test_the_prefix_is_the_models_own_layers(tmp_path: Path, traced: Traced) -> None:
    data = dataset(4)
    caches, _ = frozen_pass(data, SOURCE, traced, [Tap("stem")], root=tmp_path)
    x = torch.from_numpy(load_pixels(data, Transform(SOURCE.input))) / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (SOURCE.input.mean, SOURCE.input.std))
    with torch.no_grad():
        stem = SOURCE.model.stem((x - mean) / std)
    np.testing.assert_allclose(caches[Tap("stem")].rows(data.keys), stem.numpy(), atol=1e-5)


def test_a_second_pass_computes_nothing(tmp_path: Path, traced: Traced) -> None:
    data = dataset()
    frozen_pass(data, SOURCE, traced, TAPS, root=tmp_path)
    _, report = frozen_pass(data, SOURCE, traced, TAPS, root=tmp_path)
    assert (report.computed, report.hits, report.bytes, report.runtime) == (0, 90, 0, "none")


def test_two_halves_equal_one_whole(tmp_path: Path, traced: Traced) -> None:
    data = dataset()
    half = replace(data, examples=data.examples[::2])
    whole, _ = frozen_pass(data, SOURCE, traced, TAPS, root=tmp_path / "whole")
    frozen_pass(half, SOURCE, traced, TAPS, root=tmp_path / "halves")
    halves, report = frozen_pass(data, SOURCE, traced, TAPS, root=tmp_path / "halves")
    assert (report.computed, report.hits) == (45, 45)
    for tap in TAPS:
        # Another place in a batch may change the order of a sum.
        np.testing.assert_allclose(halves[tap].rows(data.keys), whole[tap].rows(data.keys), atol=1e-5)


def test_names_order_labels_and_splits_are_not_in_the_key(tmp_path: Path, traced: Traced) -> None:
    data = dataset()
    frozen_pass(data, SOURCE, traced, TAPS, root=tmp_path)
    moved = tuple(
        replace(e, name=f"elsewhere/{i}", label=0, split="val") for i, e in enumerate(reversed(data.examples))
    )
    _, report = frozen_pass(replace(data, examples=moved), SOURCE, traced, TAPS, root=tmp_path)
    assert (report.computed, report.hits) == (0, 90)


def test_a_new_tap_computes_only_what_it_lacks(tmp_path: Path, traced: Traced) -> None:
    data = dataset()
    frozen_pass(data, SOURCE, traced, TAPS[:2], root=tmp_path)
    _, report = frozen_pass(data, SOURCE, traced, TAPS[1:3], root=tmp_path)
    assert report.computed == 90
    assert report.bytes == estimate_bytes(traced, [TAPS[2]], 90)


def test_taps_that_lack_different_rows_are_filled_in_one_pass(tmp_path: Path, traced: Traced) -> None:
    data = dataset()
    for tap, part in ((TAPS[1], slice(0, 40)), (TAPS[3], slice(20, 60))):
        frozen_pass(replace(data, examples=data.examples[part]), SOURCE, traced, [tap], root=tmp_path)
    caches, report = frozen_pass(data, SOURCE, traced, [TAPS[1], TAPS[3]], root=tmp_path)
    assert (report.computed, report.hits) == (70, 20)
    assert [info.rows for info in list_caches(tmp_path)] == [90, 90]
    for tap, cache in caches.items():
        np.testing.assert_allclose(cache.rows(data.keys), live(data, traced, tap), atol=1e-5)


def test_the_same_picture_twice_is_computed_once(tmp_path: Path, traced: Traced) -> None:
    data = dataset()
    twice = replace(data, examples=data.examples + data.examples[:10])
    caches, report = frozen_pass(twice, SOURCE, traced, TAPS[:1], root=tmp_path)
    assert report.computed == 90
    assert caches[TAPS[0]].rows(twice.keys).shape[0] == 100


def test_a_view_has_rows_of_its_own(tmp_path: Path, traced: Traced) -> None:
    data = dataset()
    plain, _ = frozen_pass(data, SOURCE, traced, TAPS[1:2], root=tmp_path)
    view, report = frozen_pass(
        data, SOURCE, traced, TAPS[1:2], root=tmp_path, transform=Transform(SOURCE.input, view=1)
    )
    assert report.computed == 90
    assert not np.allclose(plain[TAPS[1]].rows(data.keys), view[TAPS[1]].rows(data.keys), atol=1e-2)


def test_half_precision_takes_half_the_room(tmp_path: Path, traced: Traced) -> None:
    data = dataset()
    caches, report = frozen_pass(data, SOURCE, traced, TAPS[1:2], root=tmp_path, dtype="float16")
    assert report.bytes == estimate_bytes(traced, TAPS[1:2], 90) // 2
    np.testing.assert_allclose(caches[TAPS[1]].rows(data.keys), live(data, traced, TAPS[1]), rtol=1e-3, atol=1e-3)


def test_the_model_stays_as_it_was(tmp_path: Path, traced: Traced) -> None:
    before = {name: (t.clone(), t.stride()) for name, t in SOURCE.model.state_dict().items()}
    frozen_pass(dataset(), SOURCE, traced, TAPS, root=tmp_path, runtime="torch")
    after = SOURCE.model.state_dict()
    assert all(torch.equal(after[n], t) and after[n].stride() == stride for n, (t, stride) in before.items())


def test_progress_counts_what_is_computed(tmp_path: Path, traced: Traced) -> None:
    calls: list[tuple[int, int]] = []
    frozen_pass(
        dataset(),
        SOURCE,
        traced,
        TAPS[:1],
        root=tmp_path,
        batch_size=40,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(40, 90), (80, 90), (90, 90)]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of six pictures, one of which breaks after it was read."""
    for i, pixels in enumerate(tiny_images(6, classes=2)[0]):
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "pictures"


def test_bad_pictures_lose_nothing_else(tmp_path: Path, pictures: Path, traced: Traced) -> None:
    data = read(pictures)
    (pictures / "a" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a/0\.png"):
        frozen_pass(data, SOURCE, traced, TAPS[:2], root=tmp_path / "cache")
    heard: list[Problem] = []
    _, report = frozen_pass(data, SOURCE, traced, TAPS[:2], root=tmp_path / "cache", on_bad=heard.append)
    assert (report.computed, report.hits) == (0, 11)
    assert heard == list(report.problems)
    assert len(heard) == 1


Usage = namedtuple("Usage", "total used free")


def test_a_disk_too_small_is_refused_before_the_work(
    tmp_path: Path, traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(10**6, 0, 10**6))
    with pytest.raises(CacheError, match=r"[\d,]+ bytes, 1,000,000 are free.*cache clean.*--cache DIR"):
        frozen_pass(dataset(), SOURCE, traced, TAPS, root=tmp_path)


def test_a_disk_that_fills_up_keeps_what_is_finished(
    tmp_path: Path, traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, original, room = dataset(100), write._write_all, [600_000]

    def nearly_full(file: object, content: bytes) -> None:
        room[0] -= len(content)
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(file, content)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(write, "_write_all", nearly_full)
        with pytest.raises(CacheError, match=r"too full.*finished are kept"):
            frozen_pass(data, SOURCE, traced, [Tap("stem", 16)], root=tmp_path)
    assert not list(tmp_path.rglob("*.part"))
    caches, report = frozen_pass(data, SOURCE, traced, [Tap("stem", 16)], root=tmp_path)
    assert (report.computed, report.hits) == (300, 0)
    assert len(caches[Tap("stem", 16)]) == 300


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from regraft.cache import Tap, frozen_pass
from regraft.cut import trace
from regraft.data import read
from regraft.testing import tiny_images, tiny_source

source = tiny_source()
traced = trace(source.model, torch.zeros(2, 3, 32, 32))
frozen_pass(read(tiny_images(200)), source, traced, [Tap("stem", 4), Tap("block3", 4)],
root=Path(sys.argv[1]),
    progress=lambda done, total: done >= 560 and os.kill(os.getpid(), signal.SIGKILL))
"""


def test_kill_and_resume_equals_uninterrupted(tmp_path: Path, traced: Traced) -> None:
    taps = [Tap("stem", 4), Tap("block3", 4)]
    died = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120
    )
    assert died.returncode == -signal.SIGKILL
    data = dataset(200)
    caches, report = frozen_pass(data, SOURCE, traced, taps, root=tmp_path)
    assert (report.computed, report.hits) == (88, 512)
    for tap in taps:
        np.testing.assert_allclose(caches[tap].rows(data.keys), live(data, traced, tap), atol=1e-5)


def test_two_passes_at_once_both_end_whole(tmp_path: Path, traced: Traced) -> None:
    data = dataset()
    with ThreadPoolExecutor(2) as pool:
        works = [
            pool.submit(frozen_pass, data, SOURCE, traced, TAPS[1:], root=tmp_path, batch_size=16) for _ in range(2)
        ]
        results = [work.result()[0] for work in works]
    for tap in TAPS[1:]:
        ours, theirs = (caches[tap].rows(data.keys) for caches in results)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        assert len(FeatureCache(results[0][tap].folder)) == 90


def test_old_caches_give_way_and_those_of_the_pass_stay(
    tmp_path: Path, traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(5)
    old, _ = frozen_pass(data, SOURCE, traced, TAPS[:1], root=tmp_path)
    os.utime(old[TAPS[0]].folder / "cache.json", (0, 0))
    monkeypatch.setenv("REGRAFT_CACHE_LIMIT", "1K")
    frozen_pass(data, SOURCE, traced, TAPS[1:2], root=tmp_path)
    assert [info.key.tap for info in list_caches(tmp_path)] == [TAPS[1]]


def test_unknown_settings_are_refused(tmp_path: Path, traced: Traced) -> None:
    with pytest.raises(CacheError, match="dtype='float32'"):
        frozen_pass(dataset(2), SOURCE, traced, TAPS, root=tmp_path, dtype="int8")
    with pytest.raises(CacheError, match="runtime='auto'"):
        frozen_pass(dataset(2), SOURCE, traced, TAPS, root=tmp_path, runtime="tensorrt")
