"""Labelled examples.

In: a folder, a table, arrays or a built-in set. Out: a `Dataset` (what each example is, its split, where
its bytes lie), and batches of pixels prepared for a source.
Laws: an example is known by its content, never by its name; splits and subsets depend on content alone,
and subsets are nested over k; the same picture and InputSpec give the same pixels.
"""

from regraft.data.dataset import SPLITS, Dataset, Example, Problem, Sizes
from regraft.data.decode import decode, load_pixels
from regraft.data.read import read
from regraft.data.transform import Transform

__all__ = ["SPLITS", "Dataset", "Example", "Problem", "Sizes", "Transform", "decode", "load_pixels", "read"]
