"""One source looked at on one dataset: its cuts, its cached features, and what each depth holds."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from regraft.cut import Traced, trace
from regraft.data import Dataset
from regraft.probe import DepthProfile, depth_profile, taps_wanted
from regraft.search.features import Features, Means
from regraft.source import Source, with_random_weights


@dataclass(frozen=True)
class Prospect:
    """A source that could be reused.

    Args:
        source: the network.
        traced: its graph and legal cuts.
        features: the dataset's rows at its taps.
        profile: heads fitted at every stage.
    """

    source: Source
    traced: Traced
    features: Features
    profile: DepthProfile


def traced_source(source: Source) -> Traced:
    """The graph of a source, exported on an input of the size it expects."""
    return trace(source.model, torch.zeros(2, *source.input.size), name=source.uri)


def look_at(data: Dataset, source: Source, means: Means) -> Prospect:
    """One frozen pass over a dataset, then heads on every stage.

    Args:
        data: labelled examples with train and val splits.
        source: the network.
        means: cache folder, runtime, device, seed, listener.
    """
    traced = traced_source(source)
    features = Features(data, source, traced, means)
    features.fill(taps_wanted(traced, len(features.labels("train"))))
    profile = depth_profile(
        features,
        features.labels("train"),
        features.labels("val"),
        traced,
        len(data.classes),
        seed=means.seed,
    )
    return Prospect(source, traced, features, profile)


def randomised(prospect: Prospect, means: Means) -> Prospect:
    """The same architecture with fresh weights on the same data; its profile is not taken again."""
    source = with_random_weights(prospect.source, means.seed)
    traced = traced_source(source)
    features = Features(prospect.features.data, source, traced, means)
    return Prospect(source, traced, features, prospect.profile)
