"""Pretrained networks.

In: a URI (`timm:NAME`, `https://…`, a folder, a weight file with its architecture). Out: a `Source`, the
network in eval mode with what it expects as input, its digest, and a report of every tensor.
Laws: nothing of a checkpoint is dropped silently; the same weights give the same digest, wherever they came
from; `build(source.arch, source.arch_args)` is always the same architecture again.
"""

from regraft.source.arch import build, canonical_arch, code_of, expects
from regraft.source.catalogue import WEIGHT_FILES, load_source
from regraft.source.folder import save_tensors, write_source
from regraft.source.front import example_inputs, example_rows, front
from regraft.source.graph_files import is_graph
from regraft.source.request import MissingInput
from regraft.source.source import LoadReport, Source, describe, make_source, with_random_weights
from regraft.source.spectrogram import for_sound
from regraft.source.tf1 import contents, is_tf1, read_variables, restore_variables
from regraft.source.vector_file import is_vectors

__all__ = [
    "WEIGHT_FILES",
    "LoadReport",
    "MissingInput",
    "Source",
    "build",
    "canonical_arch",
    "code_of",
    "contents",
    "describe",
    "example_inputs",
    "example_rows",
    "expects",
    "for_sound",
    "front",
    "is_graph",
    "is_tf1",
    "is_vectors",
    "load_source",
    "make_source",
    "read_variables",
    "restore_variables",
    "save_tensors",
    "with_random_weights",
    "write_source",
]
