"""Programs of `torch.export` (.pt2), read without `torch.export.load`.

In: the archive's JSON and tensors. Out: a `Source` whose architecture is `pt2:graph`, the program as plain values, so
that it is rebuilt without the file.
Laws: only operations of ATen that compute are called; nothing is unpickled or evaluated; names are the module's own.
"""
