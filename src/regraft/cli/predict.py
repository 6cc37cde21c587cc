"""`regraft predict`: answers of a saved model."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from regraft.artifact import Classifier, Prediction
from regraft.cli.flags import flags, json_option
from regraft.cli.saved import Use
from regraft.cli.terminal import print_result, table, table_console
from regraft.data import Problem
from regraft.data.listing import TABLES
from regraft.errors import DataError

_ENDINGS = (*TABLES, ".txt", ".json", ".md", ".html", ".pdf", ".docx")


@click.command()
@click.argument("model_dir", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, required=True)
@flags(Use)
@json_option
def command(model_dir: Path, inputs: tuple[str, ...], as_json: bool, **chosen: Any) -> None:
    """Answer for INPUTS with the model in MODEL_DIR: a class, labels, or numbers.

    INPUTS are files, folders of them, or tables (.csv, .tsv, .jsonl, .parquet) with a column of examples or of their
    paths, as in training; pairs of texts are the rows of a table. For a model of texts, what is no file, and does not
    look like one, is a text itself.
    """
    model = Use(**chosen).load(model_dir)
    bad: list[Problem] = []
    texts = model.bundle.input.modality == "text"
    given = [one if texts and not _is_there(one) and not _looks_like_file(one) else Path(one) for one in inputs]
    found = model.predict(given, on_bad=bad.append)
    if as_json:
        print_result([model.plain(one) for one in found])
    else:
        table_console().print(_table(found, model))
    if bad:
        raise DataError(_without_answer(bad, found, model, model_dir, inputs))


def _without_answer(
    bad: list[Problem], found: list[Prediction], model: Classifier, folder: Path, inputs: tuple[str, ...]
) -> str:
    noun, told = model.medium.noun, "\n".join(f"  {problem}" for problem in bad)
    what = f"1 {noun} cannot be read and has" if len(bad) == 1 else f"{len(bad)} {noun}s cannot be read and have"
    if tables := [one for one in inputs if Path(one).suffix.lower() in TABLES]:  # whose rows no command can name
        return f"{what} no answer:\n{told}\nMend or remove these rows of {', '.join(tables)}; all others are answered"
    names = [shlex.quote(one.name) for one in found[:3]] or [f"NEW_{noun.upper()}"]
    more = " …" if len(found) > 3 else ""
    return f"{what} no answer:\n{told}\nWithout: regraft predict {shlex.quote(str(folder))} {' '.join(names)}{more}"


def _is_there(name: str) -> bool:
    try:
        return bool(name) and Path(name).exists()
    except (OSError, ValueError):  # a text may be too long for a file name, or hold what none may
        return False


def _table(found: list[Prediction], model: Classifier) -> Table:
    noun, task = model.medium.noun, model.bundle.task
    if task.numeric:
        shown = table(noun, *(f"{name}>" for name in model.classes))
        for one in found:
            shown.add_row(one.name, *(f"{value:.6g}" for value in one.values))
        return shown
    shown = table(noun, "class" if task.one_of else "labels", "probability>")
    for one in found:
        shown.add_row(one.name, one.label, f"{one.probability:.3f}")
    return shown


def _looks_like_file(text: str) -> bool:
    """One word with a path or with an ending that files of text have: a misspelt name, and no text."""
    return " " not in text.strip() and (os.sep in text or Path(text).suffix.lower() in _ENDINGS)
