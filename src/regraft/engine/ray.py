"""Pieces of work side by side on a Ray cluster: the only file that imports ray.

A piece has as many threads as PyTorch has here: sums of another number of threads differ in their last digits. Every
machine of the cluster needs regraft, and sees the data, the sources and the cache under the same paths.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from regraft.errors import MissingExtra, RunError, first_line
from regraft.run import P, R

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ImportError as error:
    raise MissingExtra("ray", "ray", "work on a cluster: --engine ray") from error

_PATIENCE = 10.0  # seconds until a cluster must have answered


@contextmanager
def cluster() -> Iterator[Cluster]:
    """The cluster that `RAY_ADDRESS` names, or one of this machine, until the block ends.

    Raises:
        RunError: no such cluster answers.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        _knock(address)
        ray.init(
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"PYTHONPATH": _python_path()}},
        )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise RunError(
            f"Ray does not answer at {address or 'this machine'}: {first_line(error)}. Start it there: ray start "
            "--head; or work here: --engine local"
        ) from error
    try:
        yield Cluster()
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), _PATIENCE).close()


def _python_path() -> str:
    """What is imported here, a user's own networks too, is imported from the same place there."""
    return os.pathsep.join(path or str(Path.cwd()) for path in sys.path)


class Cluster:
    """What Ray has to give, in shares of as many cores as PyTorch uses here, or of one GPU."""

    def __init__(self) -> None:
        self._threads = torch.get_num_threads()
        self._gpus = 1 if torch.cuda.is_available() else 0
        there = ray.cluster_resources()
        shares = there.get("GPU", 0) if self._gpus else there.get("CPU", 1) // self._threads
        self.width = max(1, int(shares))

    def map(self, work: Callable[[P], R], pieces: Sequence[P]) -> Iterator[R]:
        """What the work makes of each piece, in the order of the pieces.

        Those that nobody asks for any more end with the block of `cluster`. They are not cancelled: a piece that ends
        in the same moment makes Ray 2.60 end this process ("Tried to complete task that was not pending").

        Raises:
            RunError: the work cannot be sent to another process, or a machine was lost more often than Ray tries again.
            Exception: what the work raised.
        """
        if not pieces:
            return
        sent = _sent(work)
        carry_out = _carry_out.options(num_cpus=self._threads, num_gpus=self._gpus)
        running = [carry_out.remote(sent, piece, self._threads, str(Path.cwd())) for piece in pieces]
        for piece in running:
            yield _result(piece)


@ray.remote
def _carry_out(work: Callable[[Any], Any], piece: Any, threads: int, folder: str) -> Any:
    torch.set_num_threads(threads)
    os.chdir(folder)  # relative paths mean there what they mean here
    return work(piece)


def _sent(work: Callable[[Any], Any]) -> Any:
    """The work in Ray's store, once for all pieces."""
    try:
        return ray.put(work)
    except Exception as error:  # each kind of object refuses in its own way
        raise RunError(
            f"the source or the data cannot be sent to another process ({first_line(error)}). Work here: --engine local"
        ) from error


def _result(piece: Any) -> Any:
    try:
        try:
            return ray.get(piece)
        except RayTaskError as error:
            raise error.cause from None
    except RayError as error:  # perhaps the cause itself: the piece was lost on its way
        raise RunError(f"Ray lost a piece of work: {first_line(error)}. Work here: --engine local") from error
