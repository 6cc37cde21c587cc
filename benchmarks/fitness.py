"""Does the data suit the source: false alarms under right settings, and wrong settings that are caught.

Every network with batch norms at hand, on three sets of pictures; each usual mean and std that is not the network's own
is declared in its place, then the other order of colours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from common import DATA, scratch_folder, store

from regraft.data import read
from regraft.search import Means, check, traced_source
from regraft.search.fitness import alternatives
from regraft.source import Source, load_source

FOLDERS = ("mobilenetv2_100_imagenet", "mobilenetv2_100_inat_insect", "mobilenetv2_100_inat_bird")
CHECKPOINTS = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
SETS = ("ants_bees", "sign_digits", "cifar10_small")


def sources() -> Iterator[Source]:
    yield load_source("regraft:cifar10-resnet20")
    for name, file in CHECKPOINTS.items():
        yield load_source(str(DATA / "weights" / file), arch=f"regraft.source.cifar_resnet:{name}")
    for name in FOLDERS:
        yield load_source(str(DATA / "weights" / name))


def main() -> None:
    data = {name: read(DATA / "datasets" / name).per_class(20, 0) for name in SETS}
    warned, tried = Counter[str](), Counter[str]()
    with scratch_folder() as root:
        for source in sources():
            traced = traced_source(source)
            for name, pictures in data.items():
                for what, spec in alternatives(source.input):
                    fitness = check(pictures, replace(source, input=spec), traced, Means(root))
                    found = any("declared preprocessing" in reason for reason in fitness.reasons)
                    warned[what] += found
                    tried[what] += 1
                    print(Path(source.uri).name, name, what, "warns" if found else "fits", flush=True)
    rows = [[what, tried[what], warned[what]] for what in tried]
    store("fitness", ["declared", "settings", "warned about"], rows, f"Six networks, {', '.join(SETS)}.")


if __name__ == "__main__":
    main()
