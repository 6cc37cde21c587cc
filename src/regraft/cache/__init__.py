"""Features of frozen layers, computed once and kept on disk.

In: a dataset, a source, its traced graph and the taps that are wanted. Out: for each tap a `FeatureCache`,
whose rows are found by an example's content and are memory-mapped.
Laws: a cached row equals the live prefix output within `runtime.TOLERANCE` of a standard deviation; two
halves equal one whole; changing any one part of the key changes its digest, and nothing else does.
"""

from regraft.cache.frozen import PassReport, cache_key, estimate_bytes, frozen_pass, make_root
from regraft.cache.key import CacheKey, Tap
from regraft.cache.manage import (
    CacheInfo,
    CleanReport,
    Damage,
    VerifyReport,
    cache_limit,
    clean,
    default_root,
    list_caches,
    parse_bytes,
    verify,
)
from regraft.cache.memo import recall, remember
from regraft.cache.pool import Pool, Pooled, coarsen, pooled
from regraft.cache.ragged import RaggedFront, counting
from regraft.cache.read import FeatureCache
from regraft.cache.taps import RAGGED, TapModel, is_ragged, make_pool, mask_of, row_shape

__all__ = [
    "RAGGED",
    "CacheInfo",
    "CacheKey",
    "CleanReport",
    "Damage",
    "FeatureCache",
    "PassReport",
    "Pool",
    "Pooled",
    "RaggedFront",
    "Tap",
    "TapModel",
    "VerifyReport",
    "cache_key",
    "cache_limit",
    "clean",
    "coarsen",
    "counting",
    "default_root",
    "estimate_bytes",
    "frozen_pass",
    "is_ragged",
    "list_caches",
    "make_pool",
    "make_root",
    "mask_of",
    "parse_bytes",
    "pooled",
    "recall",
    "remember",
    "row_shape",
    "verify",
]
