"""A saved model over HTTP: the only file that imports a web server.

    GET  /         what the model is: classes, task, modality, source, digest
    POST /predict  examples, and a list of answers in their order, as `regraft predict --json` gives them:
                   multipart/form-data with any number of files; or the bytes of one file as they are; or, for texts,
                   application/json {"inputs": ["a text", ["first of a pair", "second"], ...]}

An example that cannot be used has {"name", "error"} in the place of its answer; the others are answered all the same.
A request that holds no example, or too much, is refused with {"error"} and a status of 400 to 415.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

from regraft.artifact.classifier import Classifier, One, Upload
from regraft.data import Problem
from regraft.data.medium import MEDIA
from regraft.errors import BundleError, MissingExtra
from regraft.spec import Modality

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

LARGEST_MB = 64.0
_UNNAMED = "body"


class _Refused(Exception):  # noqa: N818  (it reads as what it is)
    """A request that cannot be answered: the status, and what would have been."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def application(model: Classifier, *, largest_mb: float = LARGEST_MB) -> Starlette:
    """The model as a web application, which any ASGI server can run.

    Args:
        model: a loaded model; one request computes at a time.
        largest_mb: of a request; larger ones are refused before they are read.

    Raises:
        MissingExtra: the web server's packages are not installed.
    """
    try:
        import python_multipart  # noqa: F401  (starlette reads files with it)
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import JSONResponse
        from starlette.routing import Route
    except ImportError as error:
        raise MissingExtra(error.name or "starlette", "serve", "answer over HTTP") from error

    alone = Lock()

    def answers(examples: Sequence[One]) -> list[dict[str, Any]]:
        with alone:
            return answers_of(model, examples)

    async def about(request: Request) -> JSONResponse:
        return JSONResponse(_about(model))

    async def predict(request: Request) -> JSONResponse:
        _check_size(request, largest_mb)
        examples = await _examples(request, model.medium.modality)
        return JSONResponse(await run_in_threadpool(answers, examples))

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, _Refused)
        return JSONResponse({"error": str(error)}, error.status)

    routes = [Route("/", about), Route("/predict", predict, methods=["POST"])]
    return Starlette(routes=routes, exception_handlers={_Refused: refused})


def listening(host: str, port: int) -> socket.socket:
    """A socket that waits for requests.

    Args:
        host: name or address of this machine.
        port: 0 takes a free one.

    Raises:
        BundleError: the place is taken, or not of this machine.
    """
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise BundleError(
            f"cannot listen at {host}:{port} ({error}). Take a free port: regraft serve MODEL_DIR --port 0"
        ) from error


def run_server(app: Starlette, at: socket.socket) -> None:
    """Answer requests until the process is told to stop (Ctrl-C, SIGTERM)."""
    import uvicorn

    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[at])


def answers_of(model: Classifier, examples: Sequence[One]) -> list[dict[str, Any]]:
    """An answer for each example, in order; of those that cannot be used, why.

    Args:
        model: a loaded model.
        examples: uploads, or texts and pairs of them.
    """
    bad: list[Problem] = []
    found = model.predict(examples, on_bad=bad.append)
    if not bad:
        return [model.plain(one) for one in found]
    if len(examples) > 1:  # which of them, names do not tell: two uploads may have the same
        return [answer for one in examples for answer in answers_of(model, [one])]
    return [{"name": bad[0].name, "error": bad[0].detail}]


def _about(model: Classifier) -> dict[str, Any]:
    bundle = model.bundle
    return {
        "classes": list(model.classes),
        "task": bundle.task.kind,
        "modality": bundle.input.modality,
        "source": bundle.source.get("uri", ""),
        "digest": bundle.digest,
    }


def _check_size(request: Request, largest_mb: float) -> None:
    """By what the request says of itself; the server reads no more than that."""
    length = request.headers.get("content-length")
    if length is None:
        raise _Refused(411, "say how long the request is: Content-Length")
    if int(length) > largest_mb * 1e6:
        raise _Refused(
            413, f"the request has {int(length) / 1e6:.1f} MB, at most {largest_mb:g} are read. Send fewer files"
        )


async def _examples(request: Request, modality: Modality) -> Sequence[One]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        found = await _files(request)
    elif kind == "application/json":
        found = _texts(await request.body(), modality)
    else:
        body = await request.body()
        found = [Upload(_UNNAMED, body)] if body else []
    if not found:
        raise _Refused(400, "the request holds no example. Send a file: curl -F file=@photo.jpg URL/predict")
    return found


async def _files(request: Request) -> Sequence[One]:
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException

    try:
        async with request.form() as form:
            files = [each for _, each in form.multi_items() if isinstance(each, UploadFile)]
            return [Upload(each.filename or _UNNAMED, await each.read()) for each in files]
    except HTTPException as error:
        raise _Refused(
            400, f"the form cannot be read ({error.detail}). Send files: curl -F file=@a -F file=@b URL"
        ) from error


def _texts(body: bytes, modality: Modality) -> Sequence[One]:
    expected = 'Expected {"inputs": ["a text", ["first of a pair", "second"]]}'
    if modality != "text":
        raise _Refused(
            415, f"this model takes {MEDIA[modality].noun}s as files, not as JSON: curl -F file=@FILE URL/predict"
        )
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _Refused(400, f"the request is not JSON ({error}). {expected}") from error
    inputs = given.get("inputs") if isinstance(given, dict) else None
    if not isinstance(inputs, list):
        raise _Refused(400, f"the request has no list of inputs. {expected}")
    return [_text(one, expected) for one in inputs]


def _text(one: object, expected: str) -> One:
    match one:
        case str():
            return one
        case [str(first), str(second)]:
            return first, second
        case _:
            raise _Refused(400, f"{one!r:.60} is neither a text nor a pair of texts. {expected}")
