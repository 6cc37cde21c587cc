"""How many examples to send through a network together where nothing is trained."""

from __future__ import annotations

import math

from torch import fx, nn

# Examples, and float32 values of one activation of all of them: 32 MB.
LEAST, MOST, VALUES = 8, 256, 8_000_000


def rows_at_once(network: nn.Module) -> int:
    """So many that the largest activation stays below 32 MB, on a processor.

    Larger blocks are given back to the system after each batch, and asking for them again, page by page, takes longer
    than the arithmetic: with MobileNetV2 at 96 and 224 pixels, batches of 256 took three times as long as these
    (`benchmarks/forward_batches.py`), and four gigabytes at 224.

    Args:
        network: one whose `body` is a graph of this package; of another one nothing is known, and a batch is large.

    Example:
        >>> rows_at_once(nn.Linear(2, 2))
        256
    """
    body, weight = getattr(network, "body", None), next(network.parameters(), None)
    if not isinstance(body, fx.GraphModule) or (weight is not None and weight.device.type != "cpu"):
        return MOST
    rows = (row for node in body.graph.nodes if (row := node.meta.get("row")))
    largest = max((math.prod(row) for row in rows), default=1)
    return max(LEAST, min(MOST, VALUES // max(1, largest)))
