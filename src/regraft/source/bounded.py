"""Networks that somebody else's config describes are built within bounds, whatever numbers stand in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from regraft.errors import SourceError

_MOST_TENSORS = 50_000  # the largest networks in use have some thousands
_SLACK = 1 << 24  # values of a network that its weights may lack


class Bounded(TorchDispatchMode):
    """While it is entered, no more values are made than weights of a known size can fill.

    Args:
        n_bytes: of the weights; each value takes at least one.
        where: what describes the network, for the message.

    Raises:
        SourceError: on the way, before the memory is taken.

    Example:
        >>> from torch import nn
        >>> with Bounded(1_000_000, "config.json"):
        ...     network = nn.Linear(100, 100)
    """

    def __init__(self, n_bytes: int, where: str) -> None:
        super().__init__()
        self._left, self._tensors, self._where = n_bytes + _SLACK, _MOST_TENSORS, where

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count what a factory is about to make, then let it."""
        if args and isinstance(args[0], list | tuple) and all(isinstance(n, int) for n in args[0]):
            self._left -= math.prod(args[0])
            self._tensors -= 1
            if min(self._left, self._tensors) < 0:
                raise SourceError(
                    f"{self._where} describes a network far larger than the weights beside it. Copy config.json and "
                    "the weights again, from the same place"
                )
        return func(*args, **(kwargs or {}))
