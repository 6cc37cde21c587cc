"""Listing, checking and cleaning."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from test_cache_format import META, make

from regraft.cache import FeatureCache, cache_limit, clean, default_root, list_caches, parse_bytes, verify
from regraft.errors import CacheError

# Renames for ever, as writers do that finish their shards.
BUSY = """
import os, sys
names = [f"{sys.argv[1]}/.rows-{i}.npy" for i in range(200)]
print("begun", flush=True)
while True:
    for name in names:
        os.rename(name + ".part", name)
        os.rename(name, name + ".part")
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three caches: a was used last, c first."""
    root = tmp_path / "root"
    for age, name in enumerate("abc"):
        make(root / name, 100, meta=replace(META, made={"source": name, "time": "2026-01-01"}))
        then = time.time() - 7200 * age
        os.utime(root / name / "cache.json", (then, then))
    return root


def test_the_list_starts_with_the_last_used(root: Path) -> None:
    (root / "notes").mkdir()
    infos = list_caches(root)
    assert [info.source for info in infos] == ["a", "b", "c"]
    assert infos[0].rows == 100
    assert infos[0].bytes > 100 * 5 * 4
    assert list_caches(root / "nowhere") == []


def test_sound_caches_verify(root: Path) -> None:
    report = verify(root)
    assert (report.caches, report.shards, report.damaged) == (3, 3, ())


def test_one_changed_byte_is_found_and_removed(root: Path) -> None:
    shard = next((root / "b").glob("rows-*.npy"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    (damage,) = verify(root, remove=True).damaged
    assert damage.path == shard.with_suffix(".json")
    assert "changed" in damage.reason
    assert verify(root).damaged == ()
    assert [info.rows for info in list_caches(root)] == [100, 0, 100]


def test_a_shard_without_rows_and_a_cache_without_sense_are_found(root: Path) -> None:
    next((root / "a").glob("rows-*.npy")).unlink()
    (root / "c" / "cache.json").write_text("?")
    assert [damage.path.parent.name for damage in verify(root).damaged] == ["a", "root"]
    verify(root, remove=True)
    assert [info.source for info in list_caches(root)] == ["a", "b"]


def test_cleaning_all_takes_damaged_caches_too(root: Path) -> None:
    (root / "c" / "cache.json").write_text("?")
    assert len(clean(root, all=True).removed) == 3 and list(root.iterdir()) == []


def test_a_cache_that_is_read_stays_in_use(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, marks = FeatureCache(root / "c"), root / "c" / "cache.json"
    os.utime(marks, (0, 0))
    cache.rows(["0"])
    assert marks.stat().st_mtime == 0  # not at every reading
    monkeypatch.setattr("regraft.cache.read._MARK_EVERY_S", 0.0)
    cache.rows(["0"])
    assert root / "c" not in clean(root, 0, unused_s=3600).removed


def test_cleaning_removes_those_unused_for_longest(root: Path) -> None:
    limit = sum(info.bytes for info in list_caches(root)[:2])
    report = clean(root, limit)
    assert [folder.name for folder in report.removed] == ["c"]
    assert report.kept_bytes <= limit
    assert clean(root, limit).removed == ()


def test_what_is_kept_or_in_use_stays(root: Path) -> None:
    assert [f.name for f in clean(root, 0, keep=[root / "c"], unused_s=3600).removed] == ["b"]
    assert clean(root).removed == ()
    assert len(clean(root, all=True).removed) == 2
    assert list(root.iterdir()) == []


def test_leftovers_of_dead_writers_are_swept(root: Path) -> None:
    old, orphan = root / "a" / ".rows-1.npy.1.part", root / "a" / "rows-2.npy"
    fresh = root / "a" / ".rows-3.npy.1.part"
    for path in (old, orphan, fresh):
        path.write_bytes(b"x" * 100)
    for path in (old, orphan):
        os.utime(path, (0, 0))
    assert clean(root).bytes == 200
    assert fresh.exists()


def test_another_process_may_write_meanwhile(root: Path) -> None:
    for i in range(200):
        (root / "a" / f".rows-{i}.npy.part").write_bytes(b"x")
    with subprocess.Popen([sys.executable, "-c", BUSY, str(root / "a")], stdout=subprocess.PIPE) as busy:
        try:
            assert busy.stdout is not None and busy.stdout.readline()
            until = time.monotonic() + 1
            while time.monotonic() < until:
                assert clean(root).removed == ()
        finally:
            busy.kill()


def test_two_may_clean_at_once(tmp_path: Path) -> None:
    for i in range(30):
        make(tmp_path / f"{i}", 1)
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: clean(tmp_path, all=True), range(4)))
    assert list_caches(tmp_path) == [] and any(report.removed for report in reports)


@pytest.mark.parametrize(("text", "size"), [("10", 10), ("2K", 2048), ("1.5 GiB", 3 * 2**29), ("1tb", 2**40)])
def test_sizes_have_units(text: str, size: int) -> None:
    assert parse_bytes(text) == size


def test_the_limit_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_limit() == 20 * 2**30
    monkeypatch.setenv("REGRAFT_CACHE_LIMIT", "none")
    assert cache_limit() is None
    monkeypatch.setenv("REGRAFT_CACHE_LIMIT", "a lot")
    with pytest.raises(CacheError, match="REGRAFT_CACHE_LIMIT=20G"):
        cache_limit()


def test_the_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("REGRAFT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "regraft"
