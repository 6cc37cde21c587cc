"""Does the data suit the source: false alarms under right settings, and wrong settings that are caught.

Every network at hand on sets of pictures; each usual mean and std that is not the network's own is declared in its
place, then the other order of colours. Networks with batch norms are judged by these. How a probe would judge is
measured on all of them, although only networks without batch norms are judged so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from common import DATA, scratch_folder, store

from regraft.data import read
from regraft.search import Means, check, traced_source
from regraft.search.preprocessing import alternatives, by_probe, has_batch_norm, probed
from regraft.source import Source, load_source

FOLDERS = ("mobilenetv2_100_imagenet", "mobilenetv2_100_inat_insect", "mobilenetv2_100_inat_bird")
CHECKPOINTS = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
SETS = ("ants_bees", "sign_digits", "cifar10_small", "mnist_small")


@dataclass
class Tally:
    """How many settings of each kind were tried, and warned about."""

    tried: Counter[str] = field(default_factory=Counter)
    warned: Counter[str] = field(default_factory=Counter)

    def add(self, what: str, doubted: bool) -> None:
        self.tried[what] += 1
        self.warned[what] += doubted

    def rows(self) -> list[list[object]]:
        return [[what, n, self.warned[what]] for what, n in self.tried.items()]


def sources() -> Iterator[Source]:
    yield load_source("regraft:cifar10-resnet20")
    for name, file in CHECKPOINTS.items():
        yield load_source(str(DATA / "weights" / file), arch=f"regraft.source.cifar_resnet:{name}")
    yield load_source(str(DATA / "weights" / "lenet_mnist_caffe"))
    for name in FOLDERS:
        yield load_source(str(DATA / "weights" / name))


def main() -> None:
    data = {name: read(DATA / "datasets" / name).per_class(40, 0) for name in SETS}
    by_norms, by_probes = Tally(), Tally()
    with scratch_folder() as root:
        for source in sources():
            traced = traced_source(source)
            for name, pictures in data.items():
                if has_batch_norm(traced):
                    for what, spec in alternatives(source.input):
                        fitness = check(pictures, replace(source, input=spec), traced, Means(root))
                        by_norms.add(what, bool(fitness.reading.doubt))
                right = probed(pictures, source, traced)
                assert right is not None
                for what in right:
                    by_probes.add(what, bool(by_probe(right, what).doubt))
                accuracies = ", ".join(f"{hits.mean():.2f}" for hits in right.values())
                print(Path(source.uri).name, name, "probes", accuracies, flush=True)
    sets = ", ".join(SETS)
    header = ["declared", "settings", "warned about"]
    store("fitness", header, by_norms.rows(), f"By batch norms: six networks, {sets}.")
    store("fitness_probe", header, by_probes.rows(), f"By a probe: seven networks, {sets}.")


if __name__ == "__main__":
    main()
