"""`regraft export`: a saved model as one file for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from regraft.artifact import export_onnx, load
from regraft.cli.flags import json_option
from regraft.cli.terminal import print_result


@click.command()
@click.argument("model_dir", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(["onnx"]), required=True, help="The format.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The file.  [default: MODEL_DIR.onnx]")
@click.option("--trust-code", is_flag=True, help="Call the Python function that the model names as its architecture.")
@json_option
def command(model_dir: Path, to: str, out: Path | None, trust_code: bool, as_json: bool) -> None:
    """Write the model in MODEL_DIR as one file that gives the same answers without regraft.

    Normalisation is inside; pictures are to be decoded and resized, texts to be tokenised before, as the file's
    metadata says.
    """
    model = load(model_dir, trust_code=trust_code)
    beside = model_dir.absolute()
    path = export_onnx(model, out or beside.with_name(f"{beside.name}.{to}"))
    if as_json:
        print_result({"file": str(path), "bytes": path.stat().st_size, "views": model.bundle.views})
        return
    click.echo(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    if model.bundle.views > 1:
        click.echo(
            f"The model's predictions are the mean over {model.bundle.views} views of an example; the file answers for "
            "one.",
            err=True,
        )
