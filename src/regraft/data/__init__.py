"""Labelled examples: pictures, texts, recordings.

In: a folder, a table, arrays or a built-in set. Out: a `Dataset` (what each example is, its split, where
its bytes lie), and batches of rows prepared for a source.
Laws: an example is known by its content, never by its name; splits and subsets depend on content alone,
and subsets are nested over k; the same example and spec give the same row.
"""

from regraft.data.dataset import SPLITS, Dataset, Example, Problem, Sizes
from regraft.data.decode import decode, load_pixels, load_rows
from regraft.data.prepare import Preparation, transform_for
from regraft.data.read import read, read_unlabelled
from regraft.data.task import CLASSIFICATION, Kind, Task, standard_error
from regraft.data.text import TextTransform
from regraft.data.transform import Transform, plain

__all__ = [
    "CLASSIFICATION",
    "SPLITS",
    "Dataset",
    "Example",
    "Kind",
    "Preparation",
    "Problem",
    "Sizes",
    "Task",
    "TextTransform",
    "Transform",
    "decode",
    "load_pixels",
    "load_rows",
    "plain",
    "read",
    "read_unlabelled",
    "standard_error",
    "transform_for",
]
