"""A source's graph."""

from __future__ import annotations

from regraft.cut.cuts import Traced
from regraft.cut.tracing import trace
from regraft.source import Source, example_inputs


def trace_source(source: Source) -> Traced:
    """The graph of a source with its cuts, exported on an example of what it takes.

    Args:
        source: of any modality; the graph shares its parameters.

    Raises:
        CutError: the network can be traced in no way.

    Example:
        >>> from regraft.testing import tiny_source
        >>> trace_source(tiny_source()).cuts[0].shape
        (3, 32, 32)
    """
    return trace(source.model, example_inputs(source.input), ragged=source.input.ragged, name=source.uri)
