"""Rows of different lengths: what goes into the cache comes out, padded with NaN and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from regraft.cache import CacheKey, FeatureCache, Pool, RaggedFront, Tap, format, frozen_pass, pooled
from regraft.cache.format import Meta
from regraft.cache.ragged import stacked
from regraft.cache.write import Writer, create
from regraft.cut import Traced, split, trace_source
from regraft.data import decode, read, transform_for
from regraft.errors import CacheError
from regraft.source import Source, front
from regraft.testing import tiny_text_source, tiny_texts

META = Meta(CacheKey("t", "w", "a", Tap("blocks.0", 0), "float32", "float32"), (16, 3), {"source": "here"}, ragged=True)


@pytest.fixture(scope="module")
def source() -> Source:
    return tiny_text_source()


@pytest.fixture(scope="module")
def traced(source: Source) -> Traced:
    return trace_source(source)


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    examples = [random.normal(size=(n, 3)).astype(np.float32) for n in random.integers(1, 40, 600)]
    create(tmp_path / "c", META)
    with Writer(tmp_path / "c", META) as writer:
        for start in range(0, 600, 50):
            writer.append([str(i) for i in range(start, start + 50)], stacked(examples[start : start + 50]))
    cache, wanted = FeatureCache(tmp_path / "c", META.key), random.integers(0, 600, 70)
    rows = cache.rows([str(i) for i in wanted])
    np.testing.assert_array_equal(rows, stacked([examples[i] for i in wanted]))
    places = sum(len(example) for example in examples)
    stored = sum(np.load(path).shape[0] for path in (tmp_path / "c").glob("rows-*.npy"))
    assert stored == places  # no padding on disk
    assert cache.rows([]).shape == (0, 0, 3)


def test_a_shard_of_another_length_does_not_count(tmp_path: Path) -> None:
    create(tmp_path / "c", META)
    with Writer(tmp_path / "c", META) as writer:
        writer.append(["a", "b"], stacked([np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)]))
    (sidecar,) = (tmp_path / "c").glob("rows-*.json")
    content = json.loads(sidecar.read_text())
    assert content["lengths"] == [2, 4]
    sidecar.write_text(json.dumps(content | {"lengths": [2, 5]}))
    assert len(FeatureCache(tmp_path / "c")) == 0


def test_rows_of_other_features_are_refused(tmp_path: Path) -> None:
    create(tmp_path / "c", META)
    with pytest.raises(CacheError, match="rows of shape"), Writer(tmp_path / "c", META) as writer:
        writer.append(["a"], np.zeros((1, 5, 4), np.float32))


def test_old_folders_without_the_word_are_of_fixed_shape(tmp_path: Path) -> None:
    fixed = Meta(META.key, (5,), META.made)
    create(tmp_path / "c", fixed)
    assert "ragged" not in json.loads((tmp_path / "c" / "cache.json").read_text())
    assert not format.read_meta(tmp_path / "c").ragged


def test_a_cached_row_equals_the_live_output(tmp_path: Path, source: Source, traced: Traced) -> None:
    data, tap = read(tiny_texts(12)), Tap("blocks.0", 0)
    caches, report = frozen_pass(data, source, traced, [tap], root=tmp_path / "cache")
    assert report.computed == len(set(data.keys))
    prefix, _ = split(traced, "blocks.0")
    for i, row in enumerate(caches[tap].rows(data.keys[:20])):
        ((_, ids),) = decode(data, transform_for(source.input), [i])
        with torch.no_grad():
            (live,) = prefix(*front(source.input)(torch.from_numpy(ids)))
        count = (~np.isnan(row[:, 0])).sum()
        assert count == ids.shape[1]
        np.testing.assert_allclose(row[:count], live.numpy(), atol=1e-5)
        assert np.isnan(row[count:]).all()


def test_pooling_counts_only_what_counts() -> None:
    x = torch.randn(2, 5, 3)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    rows = Pool((16, 3), "ragged", 2)(x, mask)
    assert rows.shape == (2, pooled((16, 3), "ragged", 2).width)
    torch.testing.assert_close(rows[0], torch.cat([x[0, :3].mean(0), x[0, 0], x[0, 2]]))
    torch.testing.assert_close(rows[1], torch.cat([x[1].mean(0), x[1, 0], x[1, 4]]))
    coarse = pooled((16, 3), "ragged", 2).coarsen(rows.numpy(), 1)
    torch.testing.assert_close(torch.from_numpy(coarse), Pool((16, 3), "ragged", 1)(x, mask))


def test_what_was_padded_says_so() -> None:
    values, mask = RaggedFront()(torch.from_numpy(stacked([np.ones((1, 2)), np.ones((3, 2))])))
    assert mask.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert values[0].tolist() == [[1, 1], [0, 0], [0, 0]]
