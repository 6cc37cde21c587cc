"""Cuts: the places in a network that exactly one activation crosses.

In: any `torch.nn.Module` and an example input. Out: a `Traced` graph with its legal cuts, and from it
prefixes, suffixes and everything between two cuts.
Law: `join(*split(traced, cut))` equals the model bit for bit, for every legal cut, at any batch size.
"""

from regraft.cut.at_once import rows_at_once
from regraft.cut.cuts import Cut, Traced, describe, from_plain, to_plain
from regraft.cut.linear import as_modules, linear_layers, weight_shape
from regraft.cut.of_source import trace_source
from regraft.cut.surgery import around, between, copy_graph, join, replaced, split
from regraft.cut.tracing import trace
from regraft.cut.training import batch_norms, measuring, set_training, statistics

__all__ = [
    "Cut",
    "Traced",
    "around",
    "as_modules",
    "batch_norms",
    "between",
    "copy_graph",
    "describe",
    "from_plain",
    "join",
    "linear_layers",
    "measuring",
    "replaced",
    "rows_at_once",
    "set_training",
    "split",
    "statistics",
    "to_plain",
    "trace",
    "trace_source",
    "weight_shape",
]
