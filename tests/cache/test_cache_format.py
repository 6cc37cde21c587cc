"""Shards on disk: they count when they are whole, and anyone can read them."""

from __future__ import annotations

import errno
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regraft.cache import CacheKey, FeatureCache, Tap, format, write
from regraft.cache.format import Meta
from regraft.cache.write import Writer, create
from regraft.digest import digest_file
from regraft.errors import CacheError

META = Meta(CacheKey("t", "w", "a", Tap("layer3", 4), "float32", "float32"), (5,), {"source": "here"})


def make(folder: Path, n: int, start: int = 0, meta: Meta = META) -> np.ndarray:
    """A cache of n rows, of examples named by their numbers."""
    create(folder, meta)
    rows = np.random.default_rng(start).normal(size=(n, *meta.shape)).astype(meta.dtype)
    with Writer(folder, meta) as writer:
        writer.append(names(n, start), rows)
    return rows


def names(n: int, start: int = 0) -> list[str]:
    return [str(i) for i in range(start, start + n)]


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    rows = make(tmp_path / "c", 600)
    cache = FeatureCache(tmp_path / "c", META.key)
    wanted = np.random.default_rng(0).integers(0, 600, 300)
    np.testing.assert_array_equal(cache.rows([str(i) for i in wanted]), rows[wanted])
    assert len(cache) == 600
    assert "599" in cache
    assert "600" not in cache
    assert cache.rows([]).shape == (0, 5)


def test_anyone_can_open_a_shard(tmp_path: Path) -> None:
    rows = make(tmp_path / "c", 300)
    shards = sorted((tmp_path / "c").glob("rows-*.npy"), key=lambda path: -path.stat().st_size)
    sidecars = [json.loads(path.with_suffix(".json").read_text()) for path in shards]
    assert [sidecar["n"] for sidecar in sidecars] == [256, 44]
    np.testing.assert_array_equal(np.load(shards[0], mmap_mode="r"), rows[:256])
    assert all(digest_file(p) == s["sha256"] for p, s in zip(shards, sidecars, strict=True))


def test_large_rows_make_smaller_shards() -> None:
    assert format.shard_rows(replace(META, shape=(64, 112, 112))) == 10
    assert format.shard_rows(replace(META, shape=(512, 1024, 1024))) == 1


def test_a_shard_without_its_json_does_not_count(tmp_path: Path) -> None:
    make(tmp_path / "c", 10)
    make(tmp_path / "c", 10, start=10)
    next((tmp_path / "c").glob("rows-*.json")).unlink()
    assert len(FeatureCache(tmp_path / "c")) == 10


def test_a_shard_that_was_cut_short_does_not_count(tmp_path: Path) -> None:
    make(tmp_path / "c", 10)
    shard = next((tmp_path / "c").glob("rows-*.npy"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert len(FeatureCache(tmp_path / "c")) == 0


def test_an_error_keeps_the_rows_so_far(tmp_path: Path) -> None:
    create(tmp_path / "c", META)
    with pytest.raises(KeyboardInterrupt), Writer(tmp_path / "c", META) as writer:
        writer.append(names(3), np.ones((3, 5), np.float32))
        raise KeyboardInterrupt
    assert len(FeatureCache(tmp_path / "c")) == 3
    assert not format.parts(tmp_path / "c")


def test_two_writers_at_once_do_not_meet(tmp_path: Path) -> None:
    create(tmp_path / "c", META)
    rows = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32)
    with Writer(tmp_path / "c", META) as one, Writer(tmp_path / "c", META) as other:
        for start in range(0, 400, 50):
            some = slice(start, start + 50)
            one.append(names(50, start), rows[some])
            other.append(names(50, start), rows[some])
    np.testing.assert_array_equal(FeatureCache(tmp_path / "c").rows(names(400)), rows)


def test_threads_may_create_one_cache_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both, replace_file = threading.Barrier(2), Path.replace

    def together(part: Path, target: Path) -> Path:
        both.wait(10)
        return replace_file(part, target)

    monkeypatch.setattr(Path, "replace", together)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(format.write_meta, [tmp_path] * 2, [META] * 2))
    assert [path.name for path in tmp_path.iterdir()] == ["cache.json"]


def test_a_disk_that_fills_up_keeps_the_finished_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "c", 256)
    monkeypatch.setattr(write, "_write_all", full_disk)
    with pytest.raises(OSError, match="full"), Writer(tmp_path / "c", META) as writer:
        writer.append(names(3, 256), np.ones((3, 5), np.float32))
    assert len(FeatureCache(tmp_path / "c")) == 256
    assert not format.parts(tmp_path / "c")


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "full")


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    make(tmp_path / "c", 3)
    other = replace(META, key=replace(META.key, transform="other"))
    with pytest.raises(CacheError, match=r"other settings: transform \(t, here other\).*--cache"):
        FeatureCache(tmp_path / "c", other.key)
    with pytest.raises(CacheError, match="other settings: transform"):
        create(tmp_path / "c", other)


def test_a_missing_row_is_counted_and_named(tmp_path: Path) -> None:
    make(tmp_path / "c", 3)
    with pytest.raises(CacheError, match=r"2 of 3 examples have no row for layer3 on a 4x4 grid \(7, 8"):
        FeatureCache(tmp_path / "c").rows(["1", "7", "8"])


def test_half_precision_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    half = replace(META, key=replace(META.key, dtype="float16"))
    make(tmp_path / "c", 3, meta=half)
    assert FeatureCache(tmp_path / "c").dtype == np.float16
    with pytest.raises(CacheError, match="float32"), Writer(tmp_path / "c", half) as writer:
        writer.append(["9"], np.full((1, 5), 1e6, np.float32))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', '{"format": 9}'])
def test_a_damaged_or_newer_cache_says_so(tmp_path: Path, content: str) -> None:
    (tmp_path / "cache.json").write_text(content)
    with pytest.raises(CacheError, match="regraft"):
        FeatureCache(tmp_path)


def test_a_damaged_description_is_written_anew_and_its_rows_count(tmp_path: Path) -> None:
    rows = make(tmp_path / "c", 10)
    (tmp_path / "c" / "cache.json").write_text("{")
    with pytest.raises(CacheError, match="regraft cache verify --remove"):
        FeatureCache(tmp_path / "c")
    create(tmp_path / "c", META)
    np.testing.assert_array_equal(FeatureCache(tmp_path / "c", META.key).rows(names(10)), rows)


def test_rows_are_read_by_many_threads_at_once(tmp_path: Path) -> None:
    """Parsing NumPy's header as Python in several threads crashed under Python 3.11."""
    rows = make(tmp_path / "c", 30)
    cache = FeatureCache(tmp_path / "c", META.key)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: cache.rows(names(30)), range(400)):
            assert np.array_equal(found, rows)
