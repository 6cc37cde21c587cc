"""Gradual unfreezing: train the top first, then ever more below it, each step from the cache at its own cut.

A step is a plan like any other and runs through the one loop; it starts with the weights that the last one kept. So
what is frozen in a step is not computed in it: when the cut moves down, the next cache takes over.

References: Howard and Ruder, 2018, arXiv:1801.06146.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from regraft.cut import Cut, Traced
from regraft.data import CLASSIFICATION, Task
from regraft.errors import RecipeError
from regraft.probe import ProbeResult
from regraft.source import Source
from regraft.tune.averaging import taken
from regraft.tune.edit import edited
from regraft.tune.history import History, HistoryRow
from regraft.tune.loop import Event, train
from regraft.tune.network import Network
from regraft.tune.plan import Plan
from regraft.tune.recipe import Recipe
from regraft.tune.resolve import planned, refuse_idle, resolve
from regraft.tune.rows import Rows
from regraft.tune.scope import ceiling, choose_taps, places_below, scope_of

MOST_STEPS = 5  # of "auto"


def steps(
    recipe: Recipe,
    source: Source,
    traced: Traced,
    n_classes: int,
    *,
    probe: ProbeResult | None = None,
    n_train: int,
    n_val: int = 0,
    task: Task = CLASSIFICATION,
    length: int | None = None,
) -> tuple[Plan, ...]:
    """The plans of a recipe in the order in which they run: one, or one for each cut that is unfrozen in turn.

    Args:
        recipe: the intent. `unfreeze` is the number of steps; its epochs are shared out evenly, one for each step at
            least. Steps go down stage by stage, or evenly to `cut`, from the highest cut below all that the head reads
            and all that starts anew.
        source: as for `resolve`.
        traced: likewise.
        n_classes: likewise.
        probe: likewise.
        n_train: likewise.
        n_val: likewise.
        task: likewise.
        length: likewise.

    Raises:
        RecipeError: as `resolve`; also where there are fewer stages with parameters than steps.
        CutError: likewise.

    Example:
        >>> import torch
        >>> from regraft.cut import trace
        >>> from regraft.testing import tiny_source
        >>> source = tiny_source()
        >>> traced = trace(source.model, torch.zeros(2, *source.input.size))
        >>> plans = steps(Recipe("mine", head="fresh", unfreeze=3, epochs=7), source, traced, 2, n_train=60)
        >>> [(plan.cut, plan.n_epochs) for plan in plans]
        [('block2', 3), ('stem', 2), ('input', 2)]
    """
    if not recipe.unfreeze:
        plan = resolve(
            recipe, source, traced, n_classes, probe=probe, n_train=n_train, n_val=n_val, task=task, length=length
        )
        return (plan,)
    cuts = _cuts(recipe, traced, probe)
    epochs, rest = divmod(max(recipe.epochs, len(cuts)), len(cuts))
    updates = math.ceil(recipe.min_updates / len(cuts))
    parts = [
        recipe.with_(cut=c, unfreeze=0, epochs=epochs + (i < rest), min_updates=updates, interpolate=0.0)
        for i, c in enumerate(cuts)
    ]
    parts[-1] = parts[-1].with_(interpolate=recipe.interpolate)  # once, at the end
    scopes = [scope_of(part, traced, n_classes, probe, n_train) for part in parts]
    refuse_idle(scopes[-1])  # a step above it may train nothing that a pattern matches
    return tuple(
        planned(scope, source, n_classes, n_train=n_train, n_val=n_val, task=task, length=length) for scope in scopes
    )


def whole(recipe: Recipe, plans: Sequence[Plan]) -> Plan:
    """All steps as one plan: what the last one trains, with the epochs and updates of all.

    Args:
        recipe: what the steps were made from.
        plans: of `steps`.
    """
    last, epochs, updates = plans[-1], sum(p.n_epochs for p in plans), sum(p.updates for p in plans)
    seconds, most = sum(p.seconds for p in plans), sum(p.bytes for p in plans)
    each = tuple((plan.cut, plan.updates) for plan in plans) if len(plans) > 1 else ()
    return replace(last, recipe=recipe, n_epochs=epochs, updates=updates, seconds=seconds, bytes=most, steps=each)


def train_steps(
    plans: Sequence[Plan],
    network_of: Callable[[Plan], Network],
    rows_of: Callable[[Plan, str], Rows],
    *,
    seed: int,
    device: str = "cpu",
    checkpoint: Path | None = None,
    on_event: Callable[[Event], None] | None = None,
    time_limit: float | None = None,
) -> tuple[Network, History]:
    """Run the plans one after another, each from where the last one ended.

    Args:
        plans: of `steps`.
        network_of: the network above a plan's cut, as it starts.
        rows_of: the rows at a plan's cut, for "train" and "val".
        seed: as for `train`.
        device: likewise.
        checkpoint: likewise; each step has a file of its own beside it.
        on_event: likewise.
        time_limit: seconds for all steps together, and for making their rows.

    Returns:
        The last step's network with what all steps have trained, and their histories as one.
    """
    network, histories, waited = network_of(plans[0]), [], 0.0
    for number, plan in enumerate(plans):
        origin = None
        if number:
            before, network = network, network_of(plan)
            origin = taken(network, plan.trained)
            network.load_state_dict(before.state_dict(), strict=False)  # the last step's tensors are some of this one's
        began = time.perf_counter()
        training, validation = rows_of(plan, "train"), rows_of(plan, "val")
        waited += time.perf_counter() - began
        spent = waited + sum(history.rows[-1].seconds for history in histories)
        history = train(
            plan,
            network,
            training,
            validation,
            seed=seed + number,
            device=device,
            checkpoint=_own(checkpoint, number, len(plans)),
            on_event=on_event,
            time_limit=None if time_limit is None else max(0.0, time_limit - spent),
            origin=origin,
        )
        histories.append(history)
    return network, _joined(histories)


def _cuts(recipe: Recipe, traced: Traced, probe: ProbeResult | None) -> list[str]:
    """The cuts of the steps, the highest first."""
    found = _beginnings(recipe, traced, probe)
    if recipe.cut != "auto":
        found = _down_to(recipe, edited(traced, recipe).cut(recipe.cut), found)
    n = min(MOST_STEPS, len(found)) if recipe.unfreeze == "auto" else recipe.unfreeze
    if n > len(found):
        raise RecipeError(
            f"recipe {recipe.name!r} says unfreeze = {n}, each step with a stage to unfreeze that has parameters, but "
            f"{traced.model} can be trained only above {', then '.join(repr(cut.name) for cut in found)} here. "
            f"Take no more steps than that: recipe.with_(unfreeze={len(found)})."
        )
    chosen = found[:n] if recipe.cut == "auto" else [*_evenly(found[:-1], n - 1), found[-1]]
    return [cut.name for cut in chosen]


def _down_to(recipe: Recipe, end: Cut, found: list[Cut]) -> list[Cut]:
    if end not in found:
        fits = recipe.unfreeze == "auto" or recipe.unfreeze <= len(found)
        instead = "cut='auto'" if fits else "cut='auto', unfreeze='auto'"
        raise RecipeError(
            f"recipe {recipe.name!r} unfreezes stages of the body down to {end.name!r}, but a step has to begin below "
            f"all that the head reads and all that starts anew, with something to train: at {found[0].name!r} or "
            f"lower. Let the cuts be found: recipe.with_({instead})."
        )
    return found[: found.index(end) + 1]


def _beginnings(recipe: Recipe, traced: Traced, probe: ProbeResult | None) -> list[Cut]:
    """Where steps may begin, the highest first; each has parameters above it that the one before has not.

    What starts anew is random, so that it has to train from the first step on.
    """
    made = edited(traced, recipe)
    taps = choose_taps(recipe, made, probe)
    top = max((made.cut(tap.cut) for tap in taps), key=lambda cut: cut.index)
    highest = ceiling(recipe, traced, taps)
    named = () if recipe.cut == "auto" else (made.cut(recipe.cut),)
    legal = [
        cut
        for cut in (*places_below(made, top), highest, *named)
        if cut.index <= highest.index and cut.params_below < top.params_below and not cut.needs_input
    ]
    if not legal:
        raise RecipeError(
            f"recipe {recipe.name!r} unfreezes stages of the body, but its head reads {top.name!r}, and nothing below "
            "that has parameters. Train the head alone: recipe.with_(unfreeze=0, cut='output')."
        )
    by_size = {cut.params_below: cut for cut in legal}  # the last of those that are alike
    return [by_size[size] for size in sorted(by_size, reverse=True)]


def _evenly(cuts: list[Cut], n: int) -> list[Cut]:
    return [cuts[i * len(cuts) // n] for i in range(n)]


def _own(checkpoint: Path | None, number: int, n: int) -> Path | None:
    if checkpoint is None or n == 1:
        return checkpoint
    return checkpoint.with_name(f"{checkpoint.stem}-step{number + 1}{checkpoint.suffix}")


def _joined(histories: Sequence[History]) -> History:
    """One history of several that follow each other; epochs, updates and seconds go on counting."""
    if len(histories) == 1:
        return histories[0]
    rows: list[HistoryRow] = []
    start = kept = HistoryRow(0, 0, 0.0, None, None, None)
    diverged = 0
    for history in histories:
        if history.diverged and not diverged:
            diverged = start.epoch + history.diverged
        rows += [_later(row, start) for row in history.rows]
        start, kept = rows[-1], _later(history.kept, start)
    return History(tuple(rows), kept.epoch, kept, histories[-1].made_of, diverged)


def _later(row: HistoryRow, start: HistoryRow) -> HistoryRow:
    return replace(
        row, epoch=row.epoch + start.epoch, updates=row.updates + start.updates, seconds=row.seconds + start.seconds
    )
