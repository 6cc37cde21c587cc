"""Networks whose file is a graph: a neutral graph of named nodes, and the module that runs it.

In: what a reader (Caffe, TensorFlow 1, TensorFlow Lite) found in a file. Out: a `Source` whose architecture is
`graph:FORMAT` with the graph as plain JSON, so that it is rebuilt without the file.
Laws: nodes and tensors keep the file's names; activations are NCHW whatever the file's layout; nothing in a file
makes the reader run code, recurse without end, or allocate more than the file holds.
"""

from regraft.source.graph.builder import Builder, Value
from regraft.source.graph.graph import Graph, Node, Tensor
from regraft.source.graph.net import GraphNet, escaped, original
from regraft.source.graph.opening import fragment, graph_source, left_over

__all__ = [
    "Builder",
    "Graph",
    "GraphNet",
    "Node",
    "Tensor",
    "Value",
    "escaped",
    "fragment",
    "graph_source",
    "left_over",
    "original",
]
