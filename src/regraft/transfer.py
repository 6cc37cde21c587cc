"""transfer(): the whole story. Everything else in this package is one of the calls made here."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from regraft.artifact import Delivery, Results, save, write_card
from regraft.data import Dataset, load_rows, transform_for
from regraft.data.check import by_kind
from regraft.engine import engine_of
from regraft.errors import SourceError
from regraft.evidence import (
    Case,
    RunStore,
    answers,
    confident_mistakes,
    expected_seconds,
    measure,
    render,
    save_examples,
    write_answers,
)
from regraft.evidence.events import write_events
from regraft.evidence.examine import Findings, examine
from regraft.evidence.looks import write_looks, write_where
from regraft.evidence.measures import measured
from regraft.evidence.predictions import MOST_PICTURES, largest_errors
from regraft.evidence.record import data_facts, profile_rows, write_curves
from regraft.job import Fitting, Job, examples, means, open_source, readable, run_path
from regraft.run import EVIDENCE, METRICS, Listener, RunFolder, bytes_below, peak_rss_mb
from regraft.search import (
    TRAINING,
    Clock,
    Decision,
    Means,
    Prospect,
    Trial,
    check,
    decide,
    look_at,
    race,
    rank,
    refuse_if_none_fits,
    settled_order,
    traced_source,
)
from regraft.search.study import STUDY
from regraft.source import Source
from regraft.tune import Recipe, check_cuts, check_views

SELF_TEST = 8  # examples kept in the bundle
# Of a time limit, how much is for finding what to deliver; quick controls then take as long again.
SEARCH_SHARE = {"off": 0.9, "quick": 0.45, "full": 0.2}
CONTROLS_UNTIL, FOR_THE_REPORT = 0.97, 3.0  # of a time limit, and seconds before its end
LATE = 1.1  # times the limit
RUNS = "controls"  # control runs that ended, until evidence.json holds them


@dataclass(frozen=True)
class Outcome:
    """What a finished run left: its folder, and the content of metrics.json and evidence.json."""

    folder: Path
    metrics: dict[str, Any]
    evidence: dict[str, Any]


def transfer(
    job: Job, *, data: Dataset | None = None, audience: Listener | None = None, began: float | None = None
) -> Outcome:
    """Find out what to reuse, train the rest, prove what it gave, and save the model with its report.

    Args:
        job: what to do.
        data: the examples, where they are at hand; else they are read from `job.data`.
        audience: who is told how it goes.
        began: since when the time limit counts, by `time.monotonic`; None means now.

    Raises:
        RegraftError: something is wrong with the input; nothing that was finished is lost.
    """
    clock = clock_of(job, began)
    recipe = job.chosen_recipe
    data = data or examples(job)
    source = readable(job, data)
    folder = RunFolder.open(run_path(job, data), job.config(), resume=job.resume, audience=audience)
    if folder.is_complete:
        outcome = Outcome(folder.path, folder.read_json(METRICS), folder.read_json(EVIDENCE))
        render(folder.path)  # which a full disk may have prevented
        folder.say(f"{folder.path} is already complete.")
        return outcome
    if job.out is None:
        folder.say(f"Run folder: {folder.path}")
    _say_task(data, folder)
    if recipe is not None and job.recipe == "auto":
        folder.say(f"--set and --cut settle what is trained, so nothing is searched: recipe {recipe.name}.")
    with (
        folder.withdrawn_if_refused("ranking.json", STUDY),
        engine_of(job.engine if job.has_pieces else "local") as engine,
        means(job, folder, engine) as work,
    ):
        only = len(job.sources) == 1
        prospect, why = _suited(data, source, recipe, work) if only else _best(job, data, work, folder, clock)
        decision = decide(prospect, recipe, len(data.classes), work, folder=folder.path, clock=clock)
        return _conclude(job, folder, replace(decision, why=(*why, *decision.why)), work, clock)


def clock_of(job: Fitting, began: float | None = None) -> Clock:
    """What time a job has, and how much of it is for finding what to deliver.

    Args:
        job: what to do.
        began: since when the limit counts, by `time.monotonic`; None means now.
    """
    return Clock(time.monotonic() if began is None else began, job.time_limit, SEARCH_SHARE[job.evidence])


def _say_task(data: Dataset, folder: RunFolder) -> None:
    """What is doubtful about the examples, and what is predicted where it is not one class for each."""
    for first, more in by_kind(data.problems):
        if first.kind == "task":
            folder.say(first.detail[:1].upper() + first.detail[1:])
        else:
            folder.say(f"Careful: {first}{f' (and {more} more)' if more else ''}.")
    if not data.task.one_of:
        folder.say(f"Task: {data.task.kind}, {len(data.classes)} to predict: {', '.join(data.classes[:10])}.")


def _suited(data: Dataset, source: Source, recipe: Recipe | None, work: Means) -> tuple[Prospect, list[str]]:
    """The only source, looked at; and what to be careful about.

    Raises:
        SourceError: the data are of another kind than it takes.
        CutError: the recipe names a cut that it has not.
        RecipeError: the recipe asks for views of texts.
    """
    traced = traced_source(source, work.root)
    if recipe is not None:
        check_cuts(recipe, traced)
        check_views(recipe, source)
    fitness = check(data, source, traced, work)
    if fitness.verdict == "refuses":
        raise SourceError(fitness.reasons[0])
    return look_at(data, source, work, traced), [f"Careful: {reason}" for reason in fitness.reasons]


def _best(job: Job, data: Dataset, work: Means, folder: RunFolder, clock: Clock) -> tuple[Prospect, list[str]]:
    """The first of several sources, looked at; and why it is the first.

    Raises:
        SourceError: the data are of a kind that no source takes.
    """
    opened = partial(open_source, opening=job, data=data)
    ranked = settled_order(rank(data, job.sources, opened, work), folder.path)
    folder.write_json("ranking.json", [each.to_dict() for each in ranked])
    refuse_if_none_fits(ranked)
    if job.chosen_recipe is None:  # who asks for a recipe has settled what is trained, and how long
        ranked = race(ranked, data, opened, work, folder=folder.path, clock=clock)
        folder.write_json("ranking.json", [each.to_dict() for each in ranked])
    places = [f"{place}. {each.source}: {each.reason}." for place, each in enumerate(ranked, 1)]
    careful = [f"Careful: {reason}" for reason in ranked[0].fitness.reasons]
    return look_at(data, opened(ranked[0].source), work), [*places, *careful]


def _conclude(job: Job, folder: RunFolder, decision: Decision, work: Means, clock: Clock) -> Outcome:
    """The test split is touched here by the trial that was chosen; then everything is written down.

    The model is whole before the controls begin: who stops them keeps it, and --resume goes on with them.
    """
    chosen, fit_seconds = decision.chosen, clock.spent
    for sentence in decision.why:
        folder.say(sentence)
    test = chosen.prospect.features.data.split("test")
    probabilities = chosen.probabilities("test")
    correct = test.task.merits_of_outputs(probabilities, test.y)
    metrics = _metrics(job, chosen, measured(test.task, probabilities, test.y), fit_seconds)
    _save_model(folder, chosen, metrics)
    _write(folder, decision)
    _write_answers(folder, test, probabilities)
    _write_trust(folder, examine(chosen, correct), chosen.prospect.features.data.split("train"))
    write_looks(folder.path, chosen)
    _finish(folder, metrics, clock, fit_seconds)
    before = clock.spent
    case = Case(chosen, correct, fit_seconds, work, _pool(job, chosen), _left_for_controls(clock))
    evidence = _prove(job, folder, case)
    metrics["times"]["controls"] = round(clock.spent - before, 3)
    write_card(folder.path / "model", evidence=evidence, dataset=chosen.prospect.features.data.name)
    _finish(folder, metrics, clock, fit_seconds)
    _say_if_late(folder, clock)
    folder.write_json(EVIDENCE, evidence)
    for scratch in (TRAINING, RUNS):
        shutil.rmtree(folder.path / scratch, ignore_errors=True)
    render(folder.path)
    return Outcome(folder.path, metrics, evidence)


def _prove(job: Job, folder: RunFolder, case: Case) -> dict[str, Any]:
    """The content of evidence.json; stopped, it leaves a report of what there is."""
    if seconds := expected_seconds(case, job.evidence):
        folder.say(f"The model is saved. Controls take about {seconds:.0f} s more.")
    keys = case.data.split("test").keys
    try:
        if job.evidence == "full":
            write_where(folder.path, case.chosen)
        return measure(case, job.evidence, RunStore(folder.path / RUNS, [keys, case.source.weights_digest]))
    except KeyboardInterrupt:
        render(folder.path)
        raise


def _left_for_controls(clock: Clock) -> float | None:
    """Seconds of the time limit that controls may take; the report needs a few of them."""
    if clock.limit is None:
        return None
    return max(0.0, min(CONTROLS_UNTIL * clock.limit, clock.limit - FOR_THE_REPORT) - clock.spent)


def _pool(job: Job, chosen: Trial) -> Dataset:
    """The examples that learning curves may use: those that --per-class left out too."""
    data = chosen.prospect.features.data
    kept = job.per_class is not None or job.train_size is not None
    whole = job.evidence == "full" and kept and job.data
    return replace(examples(replace(job, per_class=None, train_size=None)), task=data.task) if whole else data


def _finish(folder: RunFolder, metrics: dict[str, Any], clock: Clock, fit_seconds: float) -> None:
    """Write metrics.json, with what it took so far."""
    metrics |= {"wall_s": round(clock.spent, 3), "peak_rss_mb": round(peak_rss_mb(), 1)}
    controls = metrics["times"].get("controls", 0.0)
    metrics["times"]["model, examination, files"] = round(clock.spent - fit_seconds - controls, 3)
    metrics["sizes"]["model"] = bytes_below(folder.path / "model")
    folder.write_json(METRICS, metrics)


def _say_if_late(folder: RunFolder, clock: Clock) -> None:
    """That the limit was shorter than what cannot be left out."""
    if clock.limit is not None and clock.spent > LATE * clock.limit:
        folder.say(
            f"--time-limit {clock.limit:g}s was not kept, the run took {clock.spent:.0f} s: reading the examples and "
            "the source, one pass through its frozen layers, probes, the model and the report are never left out."
        )


def _metrics(job: Job, chosen: Trial, test: dict[str, Any], fit_seconds: float) -> dict[str, Any]:
    """The content of metrics.json but for what is known only at the end."""
    features, plan = chosen.prospect.features, chosen.plan
    tally, task = features.tally, plan.task
    read = sorted({tap.cut for tap in plan.taps}, key=lambda name: chosen.prospect.traced.cut(name).index)
    reached = "accuracy" if task.one_of else "score"
    return {
        "data": features.data.name,
        **({} if task.one_of else {"task": task.kind}),
        "test": test,
        "val": {reached: chosen.val_accuracy, "n": len(features.labels("val"))},
        "source": chosen.prospect.source.uri,
        "cut": read[-1] if plan.cut == "output" else plan.cut,  # what lies above the last place read is not kept
        "taps": read,
        "recipe": job.recipe_name,
        "delivered": chosen.name,
        "seed": job.seed,
        "n_train": plan.n_train,
        "cache_hits": tally.hits,
        "cache_computed": tally.computed,
        "runtime": tally.runtime,
        "times": {
            "frozen layers": round(tally.seconds, 3),
            "probes, training, reading": round(fit_seconds - tally.seconds, 3),
        },
        "sizes": {"feature cache, written": tally.bytes},
    }


def _write(folder: RunFolder, decision: Decision) -> None:
    prospect = decision.chosen.prospect
    folder.write_json("data.json", data_facts(prospect.features.data))
    folder.write_json("plan.json", decision.chosen.in_effect.to_dict())
    folder.write_json("profile.json", profile_rows(prospect.profile))
    folder.write_json("decision.json", {"why": list(decision.why)})
    write_curves(folder, decision.trials)
    write_events(folder.path, decision.trials)


def _write_answers(folder: RunFolder, test: Dataset, probabilities: np.ndarray) -> None:
    names = [example.name for example in test.examples]
    rows = answers(test.keys, names, test.y, probabilities, test.classes, test.task)
    write_answers(folder.path / "predictions.csv", rows)
    place = {key: i for i, key in enumerate(test.keys)}
    shown = largest_errors(rows) if test.task.numeric else confident_mistakes(rows)
    save_examples(folder.path, shown, lambda key: test.open(place[key]))


def _write_trust(folder: RunFolder, found: Findings, train: Dataset) -> None:
    folder.write_json("trust.json", found.facts)
    if found.suspects:
        write_answers(folder.path / "suspects.csv", found.suspects)
        place = {key: i for i, key in enumerate(train.keys)}
        save_examples(folder.path, found.suspects[:MOST_PICTURES], lambda key: train.open(place[key]))


def _save_model(folder: RunFolder, chosen: Trial, metrics: dict[str, Any]) -> None:
    prospect = chosen.prospect
    data = prospect.features.data
    shown = load_rows(_first(data.split("val"), SELF_TEST), transform_for(prospect.source.input))
    delivery = Delivery(
        network=chosen.delivered(),
        source=prospect.source,
        taps=chosen.plan.taps,
        classes=data.classes,
        rows=shown,
        recipe=chosen.plan.recipe.to_dict(),
        views=chosen.views,
        task=data.task,
    )
    save(folder.path / "model", delivery, Results(data.name, metrics), replace=True)


def _first(data: Dataset, n: int) -> Dataset:
    return replace(data, examples=data.examples[:n])
