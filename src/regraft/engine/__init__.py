"""Where pieces of work run that do not need each other: here one after the other, or side by side on a Ray cluster.

In: a function and the pieces. Out: what it makes of each, in their order.
Law: equal values in equal order, wherever they run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from regraft.run import Engine, Here

EngineName = Literal["local", "ray"]

__all__ = ["EngineName", "engine_of"]


@contextmanager
def engine_of(name: EngineName) -> Iterator[Engine]:
    """An engine, at work for as long as the block lasts.

    Args:
        name: "local", or "ray": the cluster that `RAY_ADDRESS` names, else one of this machine.

    Raises:
        MissingExtra: the package ray is not installed.
        RunError: no such cluster answers.
    """
    if name == "local":
        yield Here()
        return
    from regraft.engine.ray import cluster

    with cluster() as engine:
        yield engine
