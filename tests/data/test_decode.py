"""Decoding: in order, complete, flat in memory, and honest about what fails."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.data import Dataset, Example, Transform, decode, load_pixels, read
from regraft.digest import digest_bytes
from regraft.errors import DataError
from regraft.spec import InputSpec

SMALL = Transform(InputSpec(size=(3, 16, 16)))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("workers", [1, 4])
def test_batches_equal_one_by_one(photos: Path, batch_size: int, workers: int):
    data = read(photos)
    batches = list(decode(data, SMALL, batch_size=batch_size, workers=workers))
    indices = np.concatenate([i for i, _ in batches])
    assert indices.dtype == np.int64 and indices.tolist() == list(range(60))
    expected = np.stack([SMALL(data.open(i)) for i in range(60)])
    assert np.array_equal(np.concatenate([p for _, p in batches]), expected)
    assert np.array_equal(load_pixels(data, SMALL), expected)


def test_chosen_indices_keep_their_order(photos: Path):
    data = read(photos)
    wanted = [5, 3, 59, 3]
    ((indices, pixels),) = decode(data, SMALL, wanted)
    assert indices.tolist() == wanted
    assert np.array_equal(pixels[1], pixels[3])
    assert list(decode(data, SMALL, [])) == []


def test_views_reach_the_pixels(photos: Path):
    data = read(photos)
    view = Transform(SMALL.spec, view=2)
    assert np.array_equal(load_pixels(data, view)[4], view(data.open(4), data.keys[4]))


def _spoil(data: Dataset, root: Path) -> None:
    """Damage that only decoding can find, and changes after reading."""
    (root / data.examples[1].name).unlink()
    (root / data.examples[3].name).write_bytes((root / data.examples[5].name).read_bytes())


def test_failures_are_collected_and_the_rest_is_delivered(photos: Path):
    data = read(photos)
    _spoil(data, photos)
    seen = []
    with pytest.raises(DataError, match="2 of 60 pictures") as error:
        for indices, pixels in decode(data, SMALL, batch_size=2):
            assert len(indices) == len(pixels)
            seen += indices.tolist()
    assert seen == [i for i in range(60) if i not in (1, 3)]
    assert "cat/01.jpg: missing" in str(error.value) and "cat/03.jpg: changed" in str(error.value)
    assert str(error.value).endswith("decode(..., on_bad=print)")


def test_on_bad_hears_of_failures(photos: Path):
    data = read(photos)
    _spoil(data, photos)
    heard = []
    n = sum(len(indices) for indices, _ in decode(data, SMALL, on_bad=heard.append))
    assert n == 58
    assert [(p.name, p.kind) for p in heard] == [("cat/01.jpg", "missing"), ("cat/03.jpg", "changed")]


def test_damage_inside_a_file_is_found_while_decoding(photos: Path, paint):
    path = photos / "dog" / "00.png"
    paint(3, (64, 64)).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :][:200] = b""
    content[200:260] = bytes(60)  # the end is in place, the middle is not
    path.write_bytes(content)
    data = read(photos)
    heard = []
    list(decode(data, SMALL, on_bad=heard.append))
    assert [(p.name, p.kind) for p in heard] == [("dog/00.png", "unreadable")]
    with pytest.raises(DataError, match=r"dog/00\.png"):
        data.open(data.keys.index(digest_bytes(bytes(content))))


@dataclass(frozen=True)
class _Counted:
    """A picture that counts how often it is opened."""

    reads: list[int]

    def content(self) -> bytes:
        self.reads.append(1)
        return b"always the same"

    def opened(self, content: bytes) -> Image.Image:
        return Image.new("RGB", (64, 64))


def _endless(n: int) -> tuple[Dataset, list[int]]:
    opened: list[int] = []
    example = Example(digest_bytes(b"always the same"), 0, "train", "x", _Counted(opened))
    return Dataset("many", ("a", "b"), (example,) * n), opened


def test_reading_ahead_is_bounded_and_each_picture_is_read_once():
    data, opened = _endless(2000)
    batches = decode(data, SMALL, batch_size=10)
    next(batches)
    assert len(opened) <= 40
    batches.close()
    assert len(opened) <= 40
    opened.clear()
    for _ in decode(data, SMALL):
        pass
    assert len(opened) == 2000


def test_memory_does_not_grow_with_the_number_of_pictures():
    def peak(n: int) -> int:
        data, opened = _endless(n)
        tracemalloc.start()
        for _ in decode(data, SMALL, batch_size=16):
            opened.clear()
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(64)  # whatever is allocated once
    # The list of indices is all that grows; kept, the pictures would be 6 MB. How many are held at a time is luck.
    assert peak(2000) < 2 * peak(200) + 2000 * 8
