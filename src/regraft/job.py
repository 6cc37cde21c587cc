"""What a person asked for, and what it comes to: data read, sources opened, folders chosen."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch

from regraft.cache import default_root, make_root
from regraft.data import Dataset, Kind, read
from regraft.data.locate import printable
from regraft.engine import EngineName
from regraft.errors import RecipeError, RunError, SourceError, closest
from regraft.run import Engine, Here, Listener
from regraft.search import Means
from regraft.source import Source, load_source
from regraft.source.spectrogram import for_sound
from regraft.spec import ChannelOrder, InputOverride, InputSpec
from regraft.tune import RECIPES, Recipe
from regraft.values import RULE, Rule, number, numbers, refuse_impossible, whole

EMBEDDED = "regraft:cifar10-resnet20"
LARGEST_SEED = 2**32 - 1  # that NumPy and scikit-learn take
Device = Literal["auto", "cpu", "cuda"]
_NOT_THE_RUN = ("out", "resume", "cache", "engine")  # where it is written, and where it is carried out
_ENGINE = {"help": "Where pieces of work run that do not need each other; ray is a cluster, or all cores here."}
SEED = whole(0, most=LARGEST_SEED, such_as="0")


def _is_size(value: Sequence[float]) -> bool:
    whole_numbers = all(math.isfinite(v) and v == int(v) and v > 0 for v in value)
    return whole_numbers and (len(value) in (1, 2) or (len(value) == 3 and value[0] in (1, 3)))


@dataclass(frozen=True)
class Inputs:
    """What pictures are to be like for a source that does not say so itself, or where it shall be otherwise.

    Args:
        input_size: (C, H, W), (H, W), or (side,) of a square.
        mean: per channel, for pixels scaled to 0..1.
        std: likewise.
        channel_order: in which the source wants colours; None leaves it to the source.
    """

    input_size: tuple[float, ...] | None = field(
        default=None,
        metadata={
            "help": "Size of pictures: SIDE, H,W or C,H,W.  [default: the source's own]",
            "kind": "numbers",
            RULE: Rule("SIDE, H,W or C,H,W with 1 or 3 channels and whole sides above 0", "224", _is_size),
        },
    )
    mean: tuple[float, ...] | None = field(
        default=None,
        metadata={
            "help": "Mean per channel, for pixels scaled to 0..1.  [default: the source's own]",
            "kind": "numbers",
            RULE: numbers("one number for each channel", "0.485,0.456,0.406", lambda v: True),
        },
    )
    std: tuple[float, ...] | None = field(
        default=None,
        metadata={
            "help": "Likewise.",
            "kind": "numbers",
            RULE: numbers("one number above 0 for each channel", "0.229,0.224,0.225", lambda v: v > 0),
        },
    )
    channel_order: ChannelOrder | None = field(
        default=None, metadata={"help": "BGR for networks that want blue first, as Caffe's do."}
    )

    def __post_init__(self) -> None:
        refuse_impossible(self)


@dataclass(frozen=True)
class Opening(Inputs):
    """How one source that does not say everything itself is opened.

    Args:
        arch: the architecture that bare weights belong to.
    """

    arch: str | None = field(default=None, metadata={"help": "Architecture that bare weights belong to."})

    def arch_of(self, uri: str) -> str | None:
        """The architecture, whatever the source is called."""
        return self.arch


@dataclass(frozen=True)
class Setting(Inputs):
    """What is looked at, and what the work is done with; the flags that several commands share.

    Args:
        data: a folder, a file, "hub:OWNER/NAME", or "digits".
        source: URIs of pretrained networks.
        arch: the architecture that bare weights belong to; of one among several sources "URI=ARCH".
        per_class: training examples of each class; None keeps all.
        train_size: training examples in all; None keeps all.
        task: what is predicted; None goes by the labels.
        seed: of all that is drawn.
        skip_bad: leave out unreadable examples.
        modality: what the examples are; None finds out.
        device: "auto", "cpu" or "cuda".
        runtime: of frozen layers.
        cache: folder of the feature cache; None is the user's.
        no_cache: keep no features beyond this run.
    """

    data: str = ""
    source: tuple[str, ...] = field(
        default=(),
        metadata={"help": f"Pretrained network; may be given several times.  [default: {EMBEDDED}]"},
    )
    arch: tuple[str, ...] = field(
        default=(),
        metadata={"help": "Architecture that bare weights belong to; with several sources SOURCE=ARCH, once for each."},
    )
    per_class: int | None = field(
        default=None,
        metadata={"help": "Keep this many training examples of each class.", RULE: whole(1, such_as="10")},
    )
    train_size: int | None = field(
        default=None, metadata={"help": "Keep this many training examples in all.", RULE: whole(2, such_as="100")}
    )
    task: Kind | None = field(
        default=None, metadata={"help": "One class, any number of labels, or numbers.  [default: by the labels]"}
    )
    seed: int = field(default=0, metadata={"help": "Of all that is drawn.", RULE: SEED})
    skip_bad: bool = field(default=False, metadata={"help": "Leave out examples that cannot be read."})
    modality: Literal["image", "text", "audio"] | None = field(
        default=None, metadata={"help": "What the examples are, where a folder or table holds several kinds."}
    )
    device: Device = field(default="auto", metadata={"help": "Where PyTorch works."})
    runtime: Literal["auto", "torch", "openvino"] = field(default="auto", metadata={"help": "What runs frozen layers."})
    cache: Path | None = field(
        default=None, metadata={"help": "Folder of the feature cache.  [default: the user's cache folder]"}
    )
    no_cache: bool = field(default=False, metadata={"help": "Keep no features beyond this run."})

    def __post_init__(self) -> None:
        for name in ("source", "arch"):
            if isinstance(one := getattr(self, name), str):  # of which Python would make letters
                object.__setattr__(self, name, (one,))
        if isinstance(self.data, Path):
            object.__setattr__(self, "data", str(self.data))
        super().__post_init__()
        device(self.device)

    @property
    def sources(self) -> tuple[str, ...]:
        """The URIs, or the embedded source where none is given."""
        return self.source or (EMBEDDED,)

    def arch_of(self, uri: str) -> str | None:
        """The architecture of one of the sources: its own, else the one that is said for all.

        Raises:
            SourceError: one is said for a source that is not there, or two for the same.
        """
        said: dict[str, str] = {}
        for text in self.arch:  # an address may hold an = of its own
            name = next((source for source in self.sources if text.startswith(f"{source}=")), "")
            said[name] = text[len(name) + 1 :] if name else text
        if len(said) < len(self.arch) or "=" in said.get("", ""):
            raise SourceError(
                f"--arch {' --arch '.join(self.arch)}: each must be for another of the sources "
                f"({', '.join(self.sources)}). For example: --arch {self.sources[0]}=timm:resnet18"
            )
        return said.get(uri) or said.get("")


def _time_limit(help_text: str) -> Any:
    rule = number("a time above 0, in Python in seconds", "10m", lambda v: v > 0)
    return field(default=None, metadata={"help": help_text, "kind": "duration", RULE: rule})


@dataclass(frozen=True)
class Ranking(Setting):
    """What `rank` is to do.

    Args:
        time_limit: seconds, of which what is left after the probes is for a race of the first two where they are tied;
            None lets nobody race.
        engine: where sources are looked at.
    """

    time_limit: float | None = _time_limit("Let the first two race where probes leave them tied: 90s, 10m, 2h in all.")
    engine: EngineName = field(default="local", metadata=_ENGINE)


@dataclass(frozen=True)
class Fitting(Setting):
    """What is to be trained and in what time; `plan` shows it, and `fit` carries it out.

    Args:
        recipe: "auto", a named recipe, a .toml file, or a recipe itself.
        cut: train above this cut, whatever the recipe says.
        set: "name=value" pairs that overrule the recipe.
        time_limit: seconds for the whole run, quick controls included.
        evidence: "quick" compares with controls within the time of the fit, "off" with trivial ones only; "full"
            repeats everything under several seeds and numbers of labels.
    """

    recipe: str | Recipe = field(
        default="auto",
        metadata={"help": f"auto, {', '.join(RECIPES)}, or a .toml file."},
    )
    cut: str | None = field(default=None, metadata={"help": "Train above this cut, whatever the recipe says."})
    set: tuple[str, ...] = field(
        default=(), metadata={"help": "Overrule one field of the recipe, as name=value; may be given several times."}
    )
    time_limit: float | None = _time_limit("For the whole run, quick controls included: 90s, 10m, 2h.")
    evidence: Literal["off", "quick", "full"] = field(
        default="quick",
        metadata={"help": "Controls to compare with: quick takes as long as the fit; full some 20 times as long."},
    )

    def __post_init__(self) -> None:
        if isinstance(self.recipe, Path):
            object.__setattr__(self, "recipe", str(self.recipe))
        super().__post_init__()

    @property
    def chosen_recipe(self) -> Recipe | None:
        """The recipe with its values overruled where asked; None leaves the choice to validation.

        Raises:
            RecipeError: no such recipe, or no such file.
        """
        if isinstance(self.recipe, Recipe):
            return self._overruled(self.recipe)
        if self.recipe == "auto":
            return self._overruled(RECIPES["finetune"]) if self.cut or self.set else None
        if self.recipe.endswith(".toml"):
            return self._overruled(Recipe.from_file(self.recipe))
        if self.recipe not in RECIPES:
            known = ("auto", *RECIPES)
            raise RecipeError(
                f"unknown recipe {self.recipe!r}.{closest(self.recipe, known)} Known: {', '.join(known)}, or a file of "
                "your own: --recipe FILE.toml"
            )
        return self._overruled(RECIPES[self.recipe])

    @property
    def recipe_name(self) -> str:
        """What was asked for: "auto" searches; where --set or --cut settle the rest, the recipe that they overrule."""
        recipe = self.chosen_recipe
        if isinstance(self.recipe, Recipe):
            return self.recipe.name
        return recipe.name if recipe is not None and self.recipe == "auto" else self.recipe

    def _overruled(self, recipe: Recipe) -> Recipe:
        recipe = recipe.overruled(self.set)
        return recipe.with_(cut=self.cut) if self.cut else recipe


@dataclass(frozen=True)
class Job(Fitting):
    """What `fit` is to do.

    Args:
        out: the run folder; None makes a new one below runs/.
        resume: continue an interrupted run.
        engine: where several sources are looked at, and where full evidence is gathered.
    """

    out: Path | None = field(default=None, metadata={"help": "Run folder.  [default: a new one in runs/]"})
    resume: bool = field(default=False, metadata={"help": "Continue an interrupted run."})
    engine: EngineName = field(default="local", metadata=_ENGINE)

    @property
    def has_pieces(self) -> bool:
        """Whether there is work for an engine: sources to look at, or trainings to compare with."""
        return len(self.sources) > 1 or self.evidence == "full"

    def config(self) -> dict[str, Any]:
        """What identifies the run, as plain values: all but where it is written and where it is carried out.

        With the recipe that was meant, since a file may hold another one tomorrow.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NOT_THE_RUN}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        recipe = self.chosen_recipe
        settled = {
            "data": printable(self.data),
            "source": list(self.sources),
            "recipe": self.recipe if isinstance(self.recipe, str) else self.recipe.name,
            "resolved_recipe": recipe and recipe.to_dict(),
        }
        return plain | settled


def examples(setting: Setting) -> Dataset:
    """The examples, with as many of each class for training as were asked for.

    Raises:
        DataError: they cannot be found, read, or used.
    """
    data = read(setting.data, skip_bad=setting.skip_bad, modality=setting.modality, task=setting.task)
    chosen = data.per_class(setting.per_class, setting.seed)
    return chosen.train_size(setting.train_size, setting.seed).rescaled()


def sources(setting: Setting, data: Dataset) -> list[Source]:
    """Every source, opened for some examples.

    Raises:
        SourceError: one cannot be found, read, or matched to its architecture.
    """
    return [open_source(uri, setting, data) for uri in setting.sources]


def readable(setting: Setting, data: Dataset) -> Source:
    """The last source, after all have been opened and let go: each can be read, or nothing is begun.

    Raises:
        SourceError: one cannot be found, read, or matched to its architecture.
    """
    *others, last = setting.sources
    for uri in others:
        open_source(uri, setting, data)
    return open_source(last, setting, data)


def open_source(uri: str, opening: Opening | Setting, data: Dataset | None = None) -> Source:
    """One source; with recordings at hand, one that sees or hears them.

    Raises:
        SourceError: it cannot be found, read, or matched to its architecture.
    """
    source = load_source(uri, arch=opening.arch_of(uri), input=input_spec(opening))
    if data is None or data.modality != "audio" or source.input.modality == "text":
        return source
    return for_sound(source, data)


def input_spec(setting: Inputs) -> InputSpec | InputOverride | None:
    """The input that the flags describe; None leaves it to the source.

    Size with channels, mean and std together describe it anew; fewer of them change what the source says itself.
    """
    size = None if setting.input_size is None else tuple(int(length) for length in setting.input_size)
    override = InputOverride(size, setting.mean, setting.std, setting.channel_order)
    if override == InputOverride():
        return None
    anew = size is not None and len(size) == 3 and setting.mean is not None and setting.std is not None
    return override.over(None) if anew else override


def device(name: str) -> str:
    """The device that PyTorch works on.

    Raises:
        RunError: CUDA was asked for and is not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise RunError("--device cuda: PyTorch finds no CUDA device here. Use --device cpu.")
    return name if name != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def means(setting: Setting, listener: Listener, engine: Engine | None = None) -> Iterator[Means]:
    """What the work is done with; a cache that is not to be kept is gone afterwards."""
    chosen = device(setting.device)

    def made(root: Path) -> Means:
        return Means(root, setting.runtime, chosen, setting.seed, setting.skip_bad, listener, engine or Here())

    if setting.no_cache:
        with tempfile.TemporaryDirectory(prefix="regraft-") as root:
            yield made(Path(root))
    else:
        yield made(make_root(setting.cache or default_root()))


def run_path(job: Job, data: Dataset) -> Path:
    """The run folder that was asked for, or the first free one in runs/."""
    if job.out is not None:
        return job.out
    if job.resume:
        raise RunError("--resume needs the folder of the run that it continues: --out runs/NAME --resume")
    numbers = range(1, 10_000)
    return next(path for n in numbers if not (path := Path("runs") / f"{data.name}-{n}").exists())
