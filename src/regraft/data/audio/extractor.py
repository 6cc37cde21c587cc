"""transformers' own feature extractors, built from their JSON: what the network was trained on, to the last digit.

Wolf et al.: Transformers: State-of-the-Art Natural Language Processing, 2020, arXiv 1910.03771.

Shape letters: T samples.
"""

from __future__ import annotations

import json
import warnings
from functools import lru_cache
from typing import Any

import numpy as np

from regraft.errors import MissingExtra, SourceError

# Each gives rows of one shape, whatever the recording: a stranger's JSON names no other class.
EXTRACTORS = ("ASTFeatureExtractor", "WhisperFeatureExtractor")
_SHORTEST = 0.025  # seconds: one window of the Fourier transform


def extract(config: str, samples: np.ndarray, rate: int) -> np.ndarray:
    """What a feature extractor makes of one recording, float32.

    Args:
        config: content of its `preprocessor_config.json`.
        samples: float32 (T,).
        rate: samples per second, the one that the extractor expects.

    Raises:
        SourceError: the config names no extractor that is known here.
        MissingExtra: transformers is not installed.
    """
    extractor = _extractor(config)
    samples = np.pad(samples, (0, max(0, round(_SHORTEST * rate) - len(samples))))
    found = extractor(samples, sampling_rate=rate, return_tensors="np")
    return np.asarray(found[extractor.model_input_names[0]][0], np.float32)


@lru_cache(maxsize=8)
def _extractor(config: str) -> Any:
    settings = json.loads(config)
    kind = settings.get("feature_extractor_type")
    if kind not in EXTRACTORS:
        raise SourceError(
            f"recordings are not prepared by {kind!r}, expected one of {', '.join(EXTRACTORS)}. "
            "For example: load_source('hf:openai/whisper-tiny')"
        )
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "hf", f"prepare recordings with {kind}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # AST's own filters are narrower than its bins: it was trained with them
        return getattr(transformers, kind).from_dict(settings)
