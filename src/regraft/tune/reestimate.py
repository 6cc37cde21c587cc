"""Batch-norm statistics measured on the target's rows.

References: Li and others, 2016, arXiv:1603.04779; Schneider and others, 2020, arXiv:2006.16971.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import torch
from torch import Tensor

from regraft.cut import measuring
from regraft.tune.network import Network
from regraft.tune.plan import BODY


@torch.no_grad()
def reestimate(network: Network, names: Collection[str], batches: Callable[[], Iterable[Tensor]]) -> None:
    """Replace some batch-norm statistics by the average over the batches of the statistics of each.

    Each batch norm reads what those below it make of the batch with its own statistics, as in training.

    Args:
        network: changed in place; left in evaluation mode.
        names: of running means and variances, "body.…".
        batches: gives the rows, in batches.
    """
    assert network.body is not None
    buffers = {BODY + name: value for name, value in network.body.named_buffers()}
    before = {name: value.clone() for name, value in buffers.items()}
    sums = {name: torch.zeros_like(buffers[name]) for name in names}
    total = 0
    with measuring(network.body):
        for batch in batches():
            network.features(batch)
            total += len(batch)
            for name, value in sums.items():
                value.add_(buffers[name], alpha=len(batch))
    for name, value in buffers.items():
        value.copy_(sums[name] / total if name in sums else before[name])
    network.eval()
