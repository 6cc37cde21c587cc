"""The report: `report.html` and `report.md` from the files in a run folder, and from nothing else.

Only metrics.json must be there; a section whose file is absent is left out. Fractions are in [0, 1].

    metrics.json     source, cut, recipe, seed, n_train, wall_s, peak_rss_mb, cache_hits,
                     test {accuracy, n, ci95 [low, high]}, val {accuracy, n?}
                     optional: task "multilabel" | "regression", whose test and val have score, the mean merit, in
                     place of accuracy, and more figures (`measures`);
                     cache_computed, times {what: seconds}, sizes {what: bytes}; both in order
    data.json        name, modality, task (as above), classes [name], counts {split: {class: n}}, problems [{kind, name,
                     detail}]
    plan.json        `Plan.to_dict()`: rows [{group, names [name], n_params, state, lr, weight_decay,
                     batch_norm}]; cut, taps, n_epochs, updates are shown where present
    profile.json     a list of probes in order of depth: {stage, grid, head, val_accuracy, se, cv_accuracy,
                     seconds, dims, chosen?, score?}; joined stages have " + " in stage; chosen is true for
                     one; score is what probes were compared by, where that is not val_accuracy
    curves.csv       epoch,updates,seconds,train_loss,val_loss,val_accuracy,run; unknown cells are empty
    predictions.csv  the test split: key,name,truth,predicted,probability (`write_answers`)
    suspects.csv     the same columns: training examples whose label (truth) a model that did not see them
                     contradicts (predicted)
    pictures/        KEY.jpg or KEY.txt: the most confident mistakes and suspects in small (`save_examples`)
    looks/           filters.png, channel-N.jpg, where-N.jpg (`looks`)
    evidence.json    verdict "helps" | "no difference" | "hurts"; control, difference, ci95, p, n, sentence;
                     controls [{name, what?, accuracy, n, ci95?, seconds?, runs?, matched?}], of which `what` is shown
                     to people and `name` is what `control` and rests_on [name] refer to; rests_on names the controls
                     that the verdict is about; from matched controls also benefits {start, slope,
                     asymptote: `Benefit.to_dict()`}, speed, parts, runs [`RawRun.to_dict()`], and from several
                     numbers of labels label_curves, power_laws, labels_to_match (`controls.evidence`); depth
                     [{cut, variant, accuracy, ci95, n, updates?, seconds}] (`depth_effects`)
    trust.json       temperature, before and after {log_loss, ece, n}, duplicates [{split, name, train, cosine}],
                     unlike [{name, key, distance}], n_unlike, n (`examine`)
    decision.json    why: [sentence]
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from regraft.data.medium import MEDIA
from regraft.evidence.benefits import worth_splitting
from regraft.evidence.depth import in_words
from regraft.evidence.folder import LOOKS, Run, read_run
from regraft.evidence.measures import WORDS, as_shown, mean_merit
from regraft.evidence.measures import in_words as in_figures
from regraft.evidence.predictions import MOST_PICTURES, Answer, confident_mistakes, largest_errors
from regraft.evidence.trust import calibration_error, confusion, per_class, reliability
from regraft.run import write_atomic

MOST_CELLS = 20  # classes up to which a confusion matrix is legible as a table
MOST_PAIRS = 12
MOST_CLASSES = 60
MOST_PROBLEMS = 50
NOT_MEASURED = "not measured"
STATES = {  # of a plan's rows, and what the report says about each
    "frozen": "kept as they came",
    "trained": "by gradient",
    "fitted": "in closed form",
    "dropped": "not part of the model",
}
FACTS = {  # in words -> key of plan.json
    "trained above": "cut",
    "head reads": "taps",
    "epochs at most": "n_epochs",
    "updates at most": "updates",
}


def render(run_dir: str | Path) -> Path:
    """Write report.html and report.md into a run folder.

    Both read without a network and hold everything they show; the same files give the same bytes.

    Args:
        run_dir: a folder that `regraft fit --out` wrote.

    Returns:
        The path of report.html.

    Raises:
        RunError: it is no finished run, or one of its files cannot be read.
    """
    run = read_run(Path(run_dir))
    page = _page(run)
    for name in ("report.md", "report.html"):
        write_atomic(run.path / name, environment().get_template(f"{name}.j2").render(page))
    return run.path / "report.html"


@cache
def environment() -> Any:
    """The templates of this stage, with the filters that show numbers."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("regraft.evidence"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name, show in (("percent", percent), ("points", points), ("seconds", seconds), ("size", size)):
        environment.filters[name] = _unbroken(show)
    environment.filters["unbroken"] = lambda text: text.replace(" %", "\u00a0%")
    environment.filters |= {"count": count, "figure": significant, "cell": _markdown_cell}
    return environment


def _unbroken(show: Callable[[Any], str]) -> Callable[[Any], str]:
    """The same text with spaces at which no line breaks: a number stays with its unit."""
    return lambda value: show(value).replace(" ", "\u00a0")


def percent(fraction: float | None) -> str:
    """A fraction as people read it.

    Example:
        >>> percent(0.9312), percent(None)
        ('93.1 %', '–')
    """
    return "–" if fraction is None or fraction != fraction else f"{100 * fraction:.1f} %"


def points(fraction: float) -> str:
    """A difference of two fractions, signed.

    Example:
        >>> points(0.083), points(-0.02), points(-0.0001)
        ('+8.3', '−2.0', '+0.0')
    """
    return f"{100 * fraction:+z.1f}".replace("-", "−")


def seconds(value: float | None) -> str:
    """A duration with two or three figures.

    Example:
        >>> seconds(0.034), seconds(4.25), seconds(75), seconds(7260)
        ('34 ms', '4.2 s', '1 min 15 s', '2 h 1 min')
    """
    if value is None:
        return "–"
    if value < 1:
        return f"{1000 * value:.0f} ms"
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(n_bytes: float) -> str:
    """Bytes in decimal units.

    Example:
        >>> size(950), size(1_234_567)
        ('950 B', '1.2 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"


def count(n: float) -> str:
    """A whole number in groups of three.

    Example:
        >>> count(269722)
        '269,722'
    """
    return f"{round(n):,}"


def significant(value: float | None) -> str:
    """A rate or another small number with three figures.

    Example:
        >>> significant(0.0003), significant(None)
        ('0.0003', '–')
    """
    return "–" if value is None else f"{value:.3g}"


def _markdown_cell(value: Any) -> str:
    """Text that cannot break out of a table cell or start markup."""
    text = " ".join(str(value).split())
    for mark in "\\|`*_<>[]":
        text = text.replace(mark, f"\\{mark}")
    return text


def _page(run: Run) -> dict[str, Any]:
    """Everything the templates show."""
    one = MEDIA[run.data.get("modality", "image")].noun
    noun = f"{one}s"
    kind = task_kind(run)
    return {
        "title": _title(run),
        "metrics": as_shown(run.metrics),
        "kind": kind,
        "words": WORDS[kind],
        "figures": in_figures(kind, run.metrics["test"]),
        "source": source_name(run.metrics["source"]),
        "data": run.data,
        "noun": noun,
        "one": one,
        "headline": headline(run, noun),
        "verdict": verdict_in_words(run.evidence),
        "evidence": _evidence(run),
        "depth": {"rows": run.evidence.get("depth", []), "sentences": in_words(run.evidence.get("depth", []))},
        "proof": _proof(run),
        "trust": run.trust,
        "looks": _looks(run.path / LOOKS),
        "why": run.decision.get("why", []),
        "plan": _plan(run.plan),
        "profile": _profile(run.profile, run.metrics, WORDS[kind]["right"]),
        "curves": _curves(run.curves, WORDS[kind]["right"]),
        **_answers(run),
        "suspects": _tiles(run, run.suspects[:MOST_PICTURES]),
        "n_suspects": len(run.suspects),
        "problems": run.data.get("problems", [])[:MOST_PROBLEMS],
        "n_problems": len(run.data.get("problems", [])),
        "times": run.metrics.get("times", {}),
        "sizes": run.metrics.get("sizes", {}),
    }


def task_kind(run: Run) -> str:
    """What the run predicts; one class for each example where it does not say."""
    return run.metrics.get("task", "classification")


def _title(run: Run) -> str:
    return f"{run.data.get('name', 'a run')} from {source_name(run.metrics['source'])}"


def source_name(uri: str) -> str:
    """A source's URI; of a path only the last part: pages travel, and folders at home are private.

    Example:
        >>> source_name("timm:resnet18"), source_name("/home/ann/weights/net.th")
        ('timm:resnet18', 'net.th')
    """
    scheme, colon, _ = uri.partition(":")
    is_path = "/" in uri and "://" not in uri and not (colon and scheme.isalpha() and len(scheme) > 1)
    return Path(uri).name if is_path else uri


def headline(run: Run, noun: str) -> str:
    """The verdict in one sentence."""
    right = _reached(run, noun)
    found = run.evidence
    if "verdict" not in found:
        return f"{right}. Not yet compared with training from scratch."
    opening = {
        "helps": "Transfer helps",
        "no difference": "Transfer makes no measurable difference",
        "hurts": "Transfer hurts",
        NOT_MEASURED: "Whether transfer helps was not measured",
    }[verdict_in_words(found)]
    if found.get("difference") is None:
        return f"{opening}: {right}."
    control = control_in_words(found)
    if found["verdict"] == "no difference":
        return f"{opening}: {right}, {points(found['difference'])} points against {control}."
    side = "more" if found["difference"] > 0 else "fewer"
    return f"{opening}: {right}, {abs(100 * found['difference']):.1f} points {side} than {control}."


def _reached(run: Run, noun: str) -> str:
    test, kind = run.metrics["test"], task_kind(run)
    if kind == "classification":
        return f"{percent(test['accuracy'])} of {count(test['n'])} test {noun} right"
    return f"{percent(mean_merit(test))} {WORDS[kind]['right']} on {count(test['n'])} test {noun}"


def verdict_in_words(evidence: dict[str, Any]) -> str:
    """The verdict, or that there was no control with the same network, which alone could tell what the weights gave.

    Example:
        >>> raw = {"name": "raw pixels", "matched": False}
        >>> verdict_in_words({"verdict": "no difference", "rests_on": ["raw pixels"], "controls": [raw]})
        'not measured'
        >>> verdict_in_words({"verdict": "helps"}), verdict_in_words({})
        ('helps', '')
    """
    matched = {row["name"] for row in evidence.get("controls", []) if row.get("matched")}
    unmatched = "rests_on" in evidence and not matched & set(evidence["rests_on"])
    return NOT_MEASURED if unmatched and evidence["verdict"] == "no difference" else evidence.get("verdict", "")


def _rests_on(evidence: dict[str, Any]) -> str:
    """The controls that the verdict is about, in words, each with its number of runs."""
    rows = {row["name"]: row for row in evidence.get("controls", [])}
    named = [rows[name] for name in evidence.get("rests_on", []) if name in rows]
    return "; ".join(f"{row['what']} ({count(row['runs'])} {'run' if row['runs'] == 1 else 'runs'})" for row in named)


def control_in_words(evidence: dict[str, Any]) -> str:
    """What the control is, where the list of controls says so; else its name."""
    rows = evidence.get("controls", [])
    return next(
        (row["what"] for row in rows if row["name"] == evidence["control"] and row.get("what")),
        evidence["control"],
    )


def _evidence(run: Run) -> dict[str, Any]:
    """The delivered model and its controls as rows, with a picture of them."""
    from regraft.evidence.figures import controls

    test = run.metrics["test"]
    own = {"name": "regraft", "what": "regraft, the delivered model", "seconds": run.metrics.get("wall_s")}
    rows = [own | {"accuracy": mean_merit(test)} | {key: test.get(key) for key in ("n", "ci95")}]
    best_first = sorted(run.evidence.get("controls", []), key=lambda row: -row["accuracy"])
    rows += [{"what": "", "seconds": None, "ci95": None} | row for row in best_first]
    against = control_in_words(run.evidence) if run.evidence.get("control") else ""
    picture = controls(rows) if len(rows) > 1 else None
    return {**run.evidence, "against": against, "rests_on": _rests_on(run.evidence), "rows": rows, "picture": picture}


def _proof(run: Run) -> dict[str, Any]:
    """The three benefits with their pictures, where matched controls were run."""
    from regraft.evidence import curves

    found = run.evidence
    if not found.get("benefits"):
        return {}
    right = WORDS[task_kind(run)]["right"]
    shown = _told_apart(found["benefits"], found["runs"])
    over_labels = curves.over_labels(found["label_curves"], right) if found.get("label_curves") else None
    return {
        "benefits": [benefit | {"in_words": curves.WORDS[benefit["control"]]} for benefit in shown.values()],
        "differences": curves.differences(shown),
        "updates": curves.over_updates(found["runs"], run.metrics["n_train"], right),
        "labels": over_labels,
        "parts": found["parts"] if worth_splitting(found["parts"]) else {},
        "speed": found["speed"],
        "words": curves.WORDS,
        "laws": found.get("power_laws", {}),
        "needed": _needed(found, run.metrics),
        "seeds": sum(r["arm"] == "transfer" and r["n_train"] == run.metrics["n_train"] for r in found["runs"]),
    }


def _told_apart(benefits: dict[str, Any], runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The benefits that differ: heads in closed form are where they end from the start."""
    trained = any(len(run["points"]) > 1 for run in runs)
    return benefits if trained else {"asymptote": benefits["asymptote"]}


def _needed(evidence: dict[str, Any], metrics: dict[str, Any]) -> list[str]:
    """How many labels each control would need for the accuracy that transfer has."""
    from regraft.evidence.curves import WORDS

    sentences = []
    for name, answer in evidence.get("labels_to_match", {}).items():
        if name == "n_train":
            continue
        low, high = answer["ci95"]
        span = f" (95 % interval {count(low) if low else '–'} to {count(high) if high else 'more than were measured'})"
        many = f"{count(answer['n'])}{span}" if answer["n"] else f"more than the {count(answer['more_than'])} measured"
        reached = f"the {percent(answer['target'])} that pretrained weights reach with {count(metrics['n_train'])}"
        sentences.append(f"{WORDS[name].capitalize()}, {reached} labels take {many}.")
    return sentences


def _plan(plan: dict[str, Any]) -> dict[str, Any]:
    """Rows of the plan for reading, and what share of the parameters is in which state."""
    rows = plan.get("rows", [])
    totals = {state: sum(r["n_params"] for r in rows if r["state"] == state) for state in STATES}
    everything = max(1, sum(totals.values()))
    states = [
        {"state": state, "n": totals[state], "share": totals[state] / everything, "meaning": meaning}
        for state, meaning in STATES.items()
        if totals[state]
    ]
    plain = plan | ({"taps": taps_in_words(plan["taps"])} if "taps" in plan else {})
    facts = {name: plain[key] for name, key in FACTS.items() if plain.get(key) not in (None, "", 0, "output")}
    return {"rows": rows, "states": states, "facts": facts}


def taps_in_words(taps: Sequence[dict[str, Any]]) -> str:
    """Taps as their cuts and the grids they are pooled on.

    Example:
        >>> taps_in_words([{"cut": "layer2", "grid": 4}, {"cut": "layer3", "grid": 4}])
        'layer2 + layer3 (pooled on 4×4)'
    """
    grids = sorted({tap["grid"] for tap in taps})
    pooled = " and ".join(f"{grid}×{grid}" for grid in grids if grid)
    cuts = " + ".join(dict.fromkeys(tap["cut"] for tap in taps))
    return f"{cuts} (pooled on {pooled})" if pooled else cuts


def _profile(rows: list[dict[str, Any]], metrics: dict[str, Any], right: str) -> dict[str, Any]:
    """The depth profile's picture and the probes behind it, the best first."""
    from regraft.evidence.figures import depth_profile, reached

    if not rows:
        return {"picture": None, "rows": [], "where": ""}
    blank = dict.fromkeys(("grid", "val_accuracy", "se", "cv_accuracy", "seconds", "dims"))
    full = [blank | {"chosen": False} | row for row in rows]
    ranked = sorted(full, key=lambda row: (not row["chosen"], -reached(row)))
    return {"picture": depth_profile(full, right), "rows": ranked, "where": _where("score" in rows[0], metrics)}


def _where(together: bool, metrics: dict[str, Any]) -> str:
    """Which examples the probes were compared on."""
    n = metrics["val"].get("n")
    if together:
        return f"Training split (held out), N = {metrics['n_train']}, and validation split, N = {n}, together"
    return "Validation split" if n is None else f"Validation split, N = {n}"


def _curves(rows: list[dict[str, Any]], right: str) -> dict[str, Any]:
    from regraft.evidence.figures import training_curves

    if not any(row.get("val_accuracy") is not None for row in rows):
        return {"picture": None, "rows": rows}
    return {"picture": training_curves(rows, right), "rows": rows}


def _answers(run: Run) -> dict[str, Any]:
    """Everything that follows from the answers on the test split."""
    from regraft.evidence import curves

    nothing: dict[str, Any] = {"confusion": None, "reliability": None, "ece": None, "scatters": []}
    nothing |= {"pairs": [], "per_class": [], "mistakes": [], "n_mistakes": 0}
    if not run.answers:
        return nothing
    if task_kind(run) != "classification":
        return nothing | _answers_of_numbers(run)
    classes = run.classes
    place = {name: i for i, name in enumerate(classes)}
    truth, predicted = ([place[getattr(r, side)] for r in run.answers] for side in ("truth", "predicted"))
    counts = confusion(truth, predicted, len(classes))
    correct, stated = [row.correct for row in run.answers], [row.probability for row in run.answers]
    return {
        "confusion": _matrix(counts, classes) if len(classes) <= MOST_CELLS else None,
        "pairs": _confused_pairs(counts, classes),
        "per_class": sorted(per_class(counts, classes), key=_weakest_first)[:MOST_CLASSES],
        "ece": calibration_error(stated, correct),
        "reliability": curves.reliability(reliability(stated, correct)),
        "mistakes": _tiles(run, confident_mistakes(run.answers)),
        "n_mistakes": len(correct) - sum(correct),
        "scatters": [],
    }


def _answers_of_numbers(run: Run) -> dict[str, Any]:
    """The same where any number of labels may hold, or numbers are predicted."""
    from regraft.evidence.numbers import per_label, scatters

    names = run.data.get("classes", [])
    if task_kind(run) == "regression":
        return {"scatters": scatters(run.answers, names), "mistakes": _tiles(run, largest_errors(run.answers))}
    return {
        "per_class": sorted(per_label(run.answers, names), key=_weakest_first)[:MOST_CLASSES],
        "mistakes": _tiles(run, confident_mistakes(run.answers)),
        "n_mistakes": sum(not row.correct for row in run.answers),
    }


def _weakest_first(figures: Any) -> tuple[float, str]:
    return (1.0 if figures.f1 is None else figures.f1, figures.name)


def _matrix(counts: Any, classes: Sequence[str]) -> dict[str, Any]:
    """Cells shaded by their share of the row."""
    rows = []
    for i, name in enumerate(classes):
        total = max(1, int(counts[i].sum()))
        cells = [_cell(n, n / total, right=i == j) for j, n in enumerate(counts[i].tolist())]
        rows.append({"name": name, "cells": cells, "n": int(counts[i].sum())})
    return {"classes": classes, "rows": rows}


def _cell(n: int, share: float, *, right: bool) -> dict[str, Any]:
    """A single mistake must be seen at a glance, so the shade of mistakes starts at a fifth."""
    return {"n": n, "right": right, "shade": share if right or not n else 0.2 + 0.8 * share}


def _confused_pairs(counts: Any, classes: Sequence[str]) -> list[dict[str, Any]]:
    pairs = [
        {"truth": classes[i], "predicted": classes[j], "n": int(counts[i, j]), "of": int(counts[i].sum())}
        for i in range(len(classes))
        for j in range(len(classes))
        if i != j and counts[i, j]
    ]
    return sorted(pairs, key=lambda pair: -pair["n"])[:MOST_PAIRS]


def _looks(folder: Path) -> dict[str, list[str]]:
    """Pictures of what was learned as data URIs, by kind: filters, channel, where."""
    found: dict[str, list[str]] = {"filters": [], "channel": [], "where": []}
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        kind = path.stem.split("-")[0]
        if kind in found:
            mime = "png" if path.suffix == ".png" else "jpeg"
            found[kind].append(_data_uri(path.read_bytes(), mime))
    return found


def _data_uri(content: bytes, mime: str) -> str:
    return f"data:image/{mime};base64,{base64.b64encode(content).decode()}"


def _tiles(run: Run, rows: Iterable[Answer]) -> list[dict[str, Any]]:
    """Answers with their thumbnail as a data URI, so that the page is one file; of texts, their beginning."""
    tiles = []
    for row in rows:
        picture = run.picture(row.key)
        uri = _data_uri(picture, "jpeg") if picture else ""
        tiles.append({"answer": row, "picture": uri, "text": run.text(row.key)})
    return tiles
