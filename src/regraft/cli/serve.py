"""`regraft serve`: a saved model over HTTP."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import get_args

import click

from regraft.artifact import LARGEST_MB, application, listening, load, run_server
from regraft.cli.flags import json_option, source_head_option
from regraft.cli.terminal import print_result
from regraft.job import Device
from regraft.job import device as device_of


@click.command()
@click.argument("model_dir", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 answers other machines too.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option(
    "--largest-mb", type=click.FloatRange(0, min_open=True), default=LARGEST_MB, show_default=True,
    help="Of a request; larger ones are refused.",
)  # fmt: skip
@click.option(
    "--device", type=click.Choice(get_args(Device)), default="cpu", show_default=True, help="Where PyTorch works."
)
@click.option("--trust-code", is_flag=True, help="Call the Python function that the model names as its architecture.")
@source_head_option
@json_option
def command(
    model_dir: Path,
    host: str,
    port: int,
    largest_mb: float,
    device: str,
    trust_code: bool,
    source_head: bool,
    as_json: bool,
) -> None:
    """Answer over HTTP with the model in MODEL_DIR, until Ctrl-C.

    POST files to /predict; the answer is what `regraft predict --json` says.
    """
    at = listening(host, port)
    model = load(model_dir, device=device_of(device), trust_code=trust_code)
    app = application(model.source_head if source_head else model, largest_mb=largest_mb)
    url = f"http://{host}:{at.getsockname()[1]}"
    if as_json:
        print_result({"url": url})
    else:
        click.echo(f"{url}   for example: curl -F file=@FILE {url}/predict   (Ctrl-C stops)")
    with suppress(KeyboardInterrupt):
        run_server(app, at)
