"""TensorFlow 1 without TensorFlow: checkpoints as named variables, and `.meta` files as graphs.

In: the file's bytes. Out: arrays by variable name (`Checkpoint`), or a `Source` whose network is the graph from its
placeholder to a chosen tensor, as it is at inference: batch norm on stored statistics, dropout off.
"""

from regraft.source.tf1.checkpoint import Checkpoint, open_variables
from regraft.source.tf1.opening import Contents, contents, is_tf1, open_tf1, read_variables, restore_variables

__all__ = [
    "Checkpoint",
    "Contents",
    "contents",
    "is_tf1",
    "open_tf1",
    "open_variables",
    "read_variables",
    "restore_variables",
]
