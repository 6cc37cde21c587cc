"""Plan: a recipe made fact for one network; a table that names each of its tensors exactly once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table
from torch import nn

from regraft.data import CLASSIFICATION, Task
from regraft.errors import RecipeError
from regraft.tune.recipe import Recipe
from regraft.tune.rows import n_batches

if TYPE_CHECKING:
    from regraft.cache import Tap

BODY = "body."  # names of a network's tensors: body.<name in the source>, head.<name>
HEAD = "head."

State = Literal["frozen", "trained", "fitted", "dropped"]


@dataclass(frozen=True)
class PlanRow:
    """Tensors that are treated alike.

    Args:
        group: for people ("layer3", "head").
        names: of parameters and buffers, as in the network's state dict.
        n_params: numbers in the parameters among them.
        state: "frozen" never changes; "trained" by gradient (or, for batch-norm statistics, by the batches);
            "fitted" in closed form, or measured, before training; "dropped" is not part of the delivered model.
        lr: top rate; 0 where nothing is trained by gradient.
        weight_decay: see Recipe.
        batch_norm: "frozen", "train", "reestimate", or "" where there is none.
        start: "source" (its values), "fresh", or "probe" (in closed form).
        pull: strength of the pull back to the source's values (L2-SP).
    """

    group: str
    names: tuple[str, ...]
    n_params: int
    state: State
    lr: float = 0.0
    weight_decay: float = 0.0
    batch_norm: str = ""
    start: Literal["source", "fresh", "probe"] = "source"
    pull: float = 0.0


def _untrained(row: PlanRow) -> PlanRow:
    return replace(row, state="fitted" if row.start == "probe" else "frozen", lr=0.0) if row.state == "trained" else row


@dataclass(frozen=True)
class Plan:
    """A recipe resolved against one source, cut and label set.

    Args:
        recipe: the intent.
        source: URI.
        cut: what lies above it is trained.
        taps: the activations that the head reads.
        rows: the table; every parameter and buffer of the source and the head is in exactly one row.
        n_classes: outputs of the head: classes, labels, or numbers.
        n_train: training rows.
        n_epochs: passes over them.
        updates: optimizer steps in all.
        bytes: of the cached activations at the cut, in all views; 0 at the input, where nothing is cached.
        seconds: of all updates, estimated from a timed forward pass; 0 where nothing is trained by gradient.
        task: what the outputs are.
        steps: of gradual unfreezing, the cut and the updates of each; empty where all is trained at once.
    """

    recipe: Recipe
    source: str
    cut: str
    taps: tuple[Tap, ...]
    rows: tuple[PlanRow, ...]
    n_classes: int
    n_train: int
    n_epochs: int
    updates: int
    bytes: int = 0
    seconds: float = 0.0
    task: Task = CLASSIFICATION
    steps: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        names = [name for row in self.rows for name in row.names]
        if len(names) != len(set(names)):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise RecipeError(f"a plan names each tensor once, but {twice[:5]} are in several rows.")

    def untrained(self) -> Plan:
        """The same with nothing trained by gradient, as it is delivered where no epoch was better than the start."""
        return replace(self, rows=tuple(map(_untrained, self.rows)))

    def n_params(self, state: str) -> int:
        """How many numbers are "frozen", "trained", "fitted" or "dropped"."""
        return sum(row.n_params for row in self.rows if row.state == state)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they go into plan.json."""
        return asdict(self)

    def table(self) -> Table:
        """The plan as people read it, for `rich.print`."""
        caption = (
            f"trained above {self.where}, head reads {', '.join(map(tap_name, self.taps)) or 'the output'}; "
            f"{self.n_epochs} epochs, {self.updates} updates, about {in_time(self.seconds)}, {self._cached}"
        )
        table = Table(title=f"{self.recipe.name} · {self.source}", caption=caption)
        for column in ("layers", "parameters", "start", "state", "rate", "decay", "batch norm"):
            justify = "right" if column in ("parameters", "rate", "decay") else "left"
            table.add_column(column, justify=justify, no_wrap=column == "layers")
        for row in self.rows:
            start = "" if row.state == "dropped" else row.start
            rate = f"{row.lr:.2g}" if row.lr else ""
            table.add_row(row.group, f"{row.n_params:,}", start, row.state, rate, _decay(row), row.batch_norm)
        return table

    @property
    def where(self) -> str:
        """The cut above which it trains; of gradual unfreezing those of all steps.

        Example:
            >>> from regraft.tune import RECIPES
            >>> Plan(RECIPES["gradual"], "", "input", (), (), 2, 9, 2, 30, steps=(("layer3", 20), ("input", 10))).where
            "'layer3' (20 updates), then 'input' (10 updates)"
        """
        return ", then ".join(f"{cut!r} ({updates} updates)" for cut, updates in self.steps) or repr(self.cut)

    @property
    def _cached(self) -> str:
        if not self.bytes:
            return "nothing more to cache"  # at the input; at the output the probes' features are there already
        views = f" in {self.recipe.views} views" if self.recipe.views > 1 else ""
        return f"{self.bytes / 1e6:.1f} MB cached{views}"

    @property
    def trained(self) -> frozenset[str]:
        """Names of the tensors that change: by gradient, or with the batches."""
        return frozenset(name for row in self.rows if row.state == "trained" for name in row.names)

    @property
    def pulls(self) -> dict[str, float]:
        """Strength of the pull to the source's values, of the parameters that have one."""
        return {name: row.pull for row in self.rows if row.pull and row.state == "trained" for name in row.names}


def tap_name(tap: Tap) -> str:
    """A tap as recipes write it: "layer2.2@4", without the grid where the whole activation is read."""
    return f"{tap.cut}@{tap.grid}" if tap.grid else tap.cut


def epochs_and_updates(recipe: Recipe, n_train: int) -> tuple[int, int]:
    """Passes over the rows and optimizer steps: as many epochs as asked, and as `min_updates` needs."""
    steps = n_batches(n_train, recipe.batch_size)
    epochs = max(recipe.epochs, math.ceil(recipe.min_updates / steps)) if recipe.epochs else 0
    return epochs, epochs * steps


def trained_rows(
    group: str,
    parameters: Iterable[tuple[str, nn.Parameter]],
    recipe: Recipe,
    lr: float,
    start: Literal["source", "fresh", "probe"] = "fresh",
) -> list[PlanRow]:
    """Rows for parameters that train at one rate: matrices and filters with weight decay.

    What keeps the source's values is pulled back to them instead, where the recipe says so.
    """
    named = list(parameters)
    pull = recipe.l2_sp if start == "source" else 0.0
    rows = []
    for kind, decay in (("weights", recipe.weight_decay), ("norms, biases", 0.0)):
        members = [(name, p) for name, p in named if (p.ndim > 1) == (kind == "weights")]
        if members:
            count, names = sum(p.numel() for _, p in members), tuple(n for n, _ in members)
            decay = 0.0 if pull else decay
            rows.append(PlanRow(f"{group} · {kind}", names, count, "trained", lr, decay, start=start, pull=pull))
    return rows


def plan_whole(recipe: Recipe, network: nn.Module, *, source: str, n_classes: int, n_train: int) -> Plan:
    """The plan that trains every parameter of a plain network (pretraining).

    Raises:
        RecipeError: the recipe says something about a source's layers.
    """
    spoken = [n for n in ("train", "freeze", "restore", "drop_above", "replace", "rates") if getattr(recipe, n)]
    if spoken or recipe.l2_sp or recipe.batch_norm == "reestimate":
        raise RecipeError(
            f"a plain network is trained whole, so recipe {recipe.name!r} may say nothing about layers of a source "
            f"({', '.join(spoken) or 'l2_sp, reestimate'}). Make a plan for a source: resolve(recipe, source, ...)."
        )
    buffers = tuple(sorted(set(network.state_dict()) - {name for name, _ in network.named_parameters()}))
    rows = trained_rows("all", network.named_parameters(), recipe, recipe.lr)
    if buffers:
        rows.append(PlanRow("all · statistics", buffers, 0, "trained", batch_norm=recipe.batch_norm, start="fresh"))
    epochs, updates = epochs_and_updates(recipe, n_train)
    return Plan(recipe, source, "input", (), tuple(rows), n_classes, n_train, epochs, updates)


def _decay(row: PlanRow) -> str:
    if row.pull:
        return f"{row.pull:g} to the source"
    return f"{row.weight_decay:g}" if row.lr else ""


def in_time(seconds: float) -> str:
    """Seconds as people read an estimate of them: "45 s", "3 min"."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
