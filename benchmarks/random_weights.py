"""Does the verdict keep quiet where there is nothing to find? Digits at 5 per class.

A source with random weights must come out as "no difference" in at least 19 of 20 seeds; one whose weights were
shuffled within each layer must never "help". Both are the embedded network, opened, changed, and fitted as any other.

    python benchmarks/random_weights.py [--seeds 20] [--kind random|shuffled]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from regraft.data import read
from regraft.evidence import Case, measure
from regraft.search import Means, look_at, probe_trial
from regraft.source import Source, load_source, make_source, with_random_weights
from regraft.tune import RECIPES

SECONDS = 14.0  # that quick evidence takes a fit to have taken: five draws of fresh weights, then scratch


def shuffled(source: Source, seed: int) -> Source:
    """The same values in every tensor, in another order."""
    model = with_random_weights(source, seed).model
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].view(tensor.shape)
        for name, tensor in source.model.state_dict().items()
    }
    model.load_state_dict(state)
    return make_source(f"shuffled, seed {seed}", source.arch, source.arch_args, model, source.input)


def judge(source: Source, seed: int, root: Path) -> dict:
    """Evidence for one source at one seed, for a probe: what 50 examples are fitted with."""
    data = read("digits").per_class(5, seed)
    means = Means(root=root, seed=seed)
    chosen = probe_trial(look_at(data, source, means), RECIPES["probe"], len(data.classes))
    correct = chosen.probabilities("test").argmax(1) == chosen.prospect.features.labels("test")
    return measure(Case(chosen, correct, SECONDS, means, data), "quick")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=20)
    arguments.add_argument("--kind", choices=("random", "shuffled"), default="random")
    chosen = arguments.parse_args()
    embedded, verdicts = load_source("regraft:cifar10-resnet20"), Counter()
    for seed in range(chosen.seeds):
        # Seeds of the controls are `seed` to `seed + 4`: the source must be another draw.
        random = replace(with_random_weights(embedded, 1000 + seed), uri=f"random, seed {1000 + seed}")
        source = random if chosen.kind == "random" else shuffled(embedded, 1000 + seed)
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as root:
            found = judge(source, seed, Path(root))
        verdicts[found["verdict"]] += 1
        line = {key: found[key] for key in ("verdict", "control", "difference", "ci95")}
        draws = next(c["runs"] for c in found["controls"] if c["name"] == "fresh weights")
        print(
            json.dumps({"seed": seed, **line, "draws": draws, "s": round(time.perf_counter() - began, 1)}), flush=True
        )
    print(json.dumps(verdicts))


if __name__ == "__main__":
    main()
