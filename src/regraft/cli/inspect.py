"""`regraft inspect`: what a source or a dataset is made of."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, get_args

import click
import numpy as np

from regraft.cli.flags import flags, json_option
from regraft.cli.terminal import print_result, table, table_console
from regraft.cut import describe as describe_cuts
from regraft.data import Dataset, Kind, read
from regraft.data.check import by_kind
from regraft.data.task import KINDS
from regraft.evidence.measures import WORDS
from regraft.evidence.record import data_facts
from regraft.job import Opening, open_source
from regraft.search import traced_source
from regraft.source import WEIGHT_FILES, MissingInput, Source, contents, is_graph, is_tf1, is_vectors, load_source
from regraft.source import describe as describe_source
from regraft.source.graph_files import without_fragment
from regraft.spec import InputSpec, Modality


@click.command()
@click.argument("uri_or_data")
@flags(Opening)
@click.option("--task", type=click.Choice(KINDS), help="Of a dataset: what is predicted.  [default: by the labels]")
@click.option("--modality", type=click.Choice(get_args(Modality)), help="Of a dataset that holds several kinds.")
@json_option
def command(uri_or_data: str, task: Kind | None, modality: Modality | None, as_json: bool, **chosen: Any) -> None:
    """Show a source's layers, shapes, parameters and cuts, or a dataset's counts, sizes and problems."""
    if is_source(uri_or_data):
        _show_source(_opened(uri_or_data, Opening(**chosen)), as_json)
    else:
        _show_data(read(uri_or_data, skip_bad=True, task=task, modality=modality), as_json)


def is_source(where: str) -> bool:
    """Whether a word on the command line names a source: a URI scheme, a file of one, a folder with config.json."""
    path = without_fragment(where)
    if is_graph(where):
        return True
    if path.exists():
        return (path / "config.json").is_file() or path.name.endswith(WEIGHT_FILES) or is_vectors(path)
    return (":" in where and not where.startswith("hub:")) or path.name.endswith(WEIGHT_FILES)


def _opened(where: str, opening: Opening) -> Source:
    """A source; how pictures are scaled for it makes no difference to what is shown here."""
    try:
        return open_source(where, opening)
    except MissingInput as missing:
        spec = InputSpec(missing.size, mean=(0.0,) * missing.size[0], std=(1.0,) * missing.size[0])
        return replace(load_source(where, arch=opening.arch, input=spec), origin="how pictures are scaled is not known")


def _checkpoint_facts(uri: str) -> dict[str, Any]:
    """All operations and variables of a TensorFlow 1 checkpoint; nothing for other sources."""
    path = without_fragment(uri)
    if not is_graph(uri) or not is_tf1(path):
        return {}
    found = contents(path)
    return {"operations": [list(pair) for pair in found.operations], "variables": found.variables}


def _show_source(source: Source, as_json: bool) -> None:
    traced = traced_source(source)
    facts = {**describe_source(source), "cuts": describe_cuts(traced), "fallback": traced.fallback_reason}
    facts |= _checkpoint_facts(source.uri)
    if as_json:
        print_result(facts)
        return
    console = table_console()
    console.print(f"{source.uri}: {source.n_params:,} parameters, input {source.input.size}", soft_wrap=True)
    for name in ("licence", "origin", "report", "fallback"):
        if facts[name]:
            console.print(f"{name}: {facts[name]}", soft_wrap=True, markup=False)
    title = f"{len(facts['cuts'])} cuts in {len(traced.stages)} stages"
    shown = table("cut", "shape", "stage>", "parameters below>", title=title)
    ends = {stage.name for stage in traced.stages}
    for cut in facts["cuts"]:
        style = "bold" if cut["name"] in ends else None
        sizes = ["L", *cut["shape"][1:]] if cut["layout"] == "ragged" else cut["shape"]
        shape = " × ".join(map(str, sizes))
        shown.add_row(cut["name"], shape, str(cut["stage"]), f"{cut['params_below']:,}", style=style)
    console.print(shown)
    console.print("Bold cuts end a stage: probes look there.")
    if any(cut["layout"] == "ragged" for cut in facts["cuts"]):
        console.print("L is the number of tokens, which differs between examples.")
    if "variables" in facts:
        variables = table("variable", "shape", title=f"{len(facts['variables'])} variables")
        for name, shape in facts["variables"].items():
            variables.add_row(name, " × ".join(map(str, shape)))
        console.print(variables)
        console.print(
            f"{len(facts['operations'])} operations; --json lists them. A network can end at any of them: URI#NAME"
        )


def _show_data(data: Dataset, as_json: bool) -> None:
    facts = {**data_facts(data), "sizes": _size_facts(data)}
    if data.task.numeric:
        facts["values"] = _spreads(data)
    if as_json:
        print_result(facts)
        return
    console = table_console()
    splits = list(facts["counts"])
    things = WORDS[data.task.kind]["things"]
    title = f"{data.name}: {len(data)} examples of {len(data.classes)} {things}"
    shown = table(
        things.removesuffix("es") if data.task.one_of else things.removesuffix("s"),
        *(f"{split}>" for split in splits),
        title=title,
    )
    for name in data.classes:
        shown.add_row(name, *(str(facts["counts"][split].get(name, 0)) for split in splits))
    console.print(shown)
    for name, spread in facts.get("values", {}).items():
        console.print(f"{name} {spread} (min, median, max)", soft_wrap=True, markup=False)
    console.print(_sizes_in_words(facts["sizes"]), soft_wrap=True, markup=False)
    for first, more in by_kind(data.problems):
        others = f" (and {more} more, which --json lists)" if more else ""
        console.print(f"problem: {first}{others}", soft_wrap=True, markup=False)


def _spreads(data: Dataset) -> dict[str, tuple[float, ...]]:
    """(smallest, median, largest) of each number that is to be predicted."""
    ends = np.quantile(data.targets, [0, 0.5, 1], axis=0).T
    return {name: tuple(float(f"{value:.6g}") for value in row) for name, row in zip(data.classes, ends, strict=True)}


def _size_facts(data: Dataset) -> dict[str, Any]:
    """How large the examples are, in the words of their modality; (smallest, median, largest) where there are three."""
    sizes = data.sizes()
    if data.modality == "text":
        return {"characters": sizes.width, "encodings": sizes.modes}
    if data.modality == "audio":
        seconds = np.array([e.width / e.height for e in data.examples])
        spread = tuple(round(float(value), 3) for value in (seconds.min(), np.median(seconds), seconds.max()))
        return {"seconds": spread, "rates": dict(Counter(e.height for e in data.examples).most_common())}
    return {"width": sizes.width, "height": sizes.height, "modes": sizes.modes}


def _sizes_in_words(facts: dict[str, Any]) -> str:
    spreads = [f"{name} {values}" for name, values in facts.items() if isinstance(values, tuple)]
    counts = [f"{name} {values}" for name, values in facts.items() if isinstance(values, dict)]
    return f"{', '.join(spreads)} (min, median, max); {', '.join(counts)}"
