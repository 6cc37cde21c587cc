"""`regraft serve`: a saved model over HTTP."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from regraft.artifact import LARGEST_MB, application, listening, run_server
from regraft.cli.flags import flags, json_option
from regraft.cli.saved import Use
from regraft.cli.terminal import print_result


@click.command()
@click.argument("model_dir", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 answers other machines too.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option(
    "--largest-mb", type=click.FloatRange(0, min_open=True), default=LARGEST_MB, show_default=True,
    help="Of a request; larger ones are refused.",
)  # fmt: skip
@flags(Use)
@json_option
def command(model_dir: Path, host: str, port: int, largest_mb: float, as_json: bool, **chosen: Any) -> None:
    """Answer over HTTP with the model in MODEL_DIR, until Ctrl-C.

    POST files to /predict; the answer is what `regraft predict --json` says.
    """
    at = listening(host, port)
    app = application(Use(**chosen).load(model_dir), largest_mb=largest_mb)
    url = f"http://{host}:{at.getsockname()[1]}"
    if as_json:
        print_result({"url": url})
    else:
        click.echo(f"{url}   for example: curl -F file=@FILE {url}/predict   (Ctrl-C stops)")
    with suppress(KeyboardInterrupt):
        run_server(app, at)
