"""What holds for every source that was read from a graph."""

from __future__ import annotations

import json

import torch

from regraft.cut import Traced, join, split
from regraft.search import traced_source
from regraft.source import Source, build


def check_laws(source: Source) -> Traced:
    """Cut anywhere, rebuilt from plain JSON, trained: the laws of a source."""
    traced = traced_source(source)
    assert not traced.fallback_reason
    x = torch.randn(3, *source.input.size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = source.model(x)
        for cut in traced.cuts:
            assert torch.equal(join(*split(traced, cut))(x), wanted), cut
    rebuilt, _ = build(source.arch, json.loads(json.dumps(source.arch_args)), seed=1)
    assert torch.isfinite(rebuilt(x)).all()
    rebuilt.load_state_dict(source.model.state_dict())
    assert torch.equal(rebuilt(x), wanted)
    rebuilt(x).square().sum().backward()
    still = [name for name, p in rebuilt.named_parameters() if p.grad is None]
    assert not still and any(bool(p.grad.any()) for p in rebuilt.parameters() if p.grad is not None)
    return traced
