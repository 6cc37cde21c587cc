"""TorchScript files, read without `torch.jit.load`: their weights, and their code as a graph.

In: the archive's pickles, taken apart as data, and its code, parsed and never run. Out: a `Source` with the same kind
of graph as a program of `torch.export`.
Laws: what is not on the list of operations is refused by name; parameters keep the module's names.
"""
