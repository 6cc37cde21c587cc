"""`regraft export`: a saved model for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from regraft.artifact import export_hf, export_onnx, load
from regraft.cli.flags import json_option
from regraft.cli.terminal import print_result


@click.command()
@click.argument("model_dir", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(["onnx", "hf"]), required=True, help="The format.")
@click.option("--out", type=click.Path(path_type=Path), help="What to write.  [default: MODEL_DIR.onnx, MODEL_DIR-hf]")
@click.option("--trust-code", is_flag=True, help="Call the Python function that the model names as its architecture.")
@json_option
def command(model_dir: Path, to: str, out: Path | None, trust_code: bool, as_json: bool) -> None:
    """Write the model in MODEL_DIR so that it gives the same answers without regraft.

    As one ONNX file (normalisation is inside; pictures are to be decoded and resized, texts to be tokenised before, as
    the file's metadata says), or as a folder that transformers opens and the Hugging Face hub takes.
    """
    model = load(model_dir, trust_code=trust_code)
    beside = model_dir.absolute()
    if to == "onnx":
        path = export_onnx(model, out or beside.with_name(f"{beside.name}.onnx"))
        size = path.stat().st_size
    else:
        path = export_hf(model, out or beside.with_name(f"{beside.name}-hf"))
        size = sum(file.stat().st_size for file in path.iterdir())
    if as_json:
        print_result({"file": str(path), "bytes": size, "views": model.bundle.views})
        return
    click.echo(f"{path}  {size / 1e6:.1f} MB")
    if model.bundle.views > 1:
        click.echo(
            f"The model's predictions are the mean over {model.bundle.views} views of an example; what was written "
            "answers for one.",
            err=True,
        )
