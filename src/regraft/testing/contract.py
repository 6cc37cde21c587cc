"""What every source has to keep to, as a check that a third party runs against its own scheme.

N examples.
"""

from __future__ import annotations

import json

import torch

from regraft.cut import join, split, trace
from regraft.digest import digest_state
from regraft.errors import SourceError
from regraft.source import Source, build, describe, load_source, with_random_weights


def check_scheme(uri: str, *, unknown: str) -> None:
    """Check that a scheme opens sources that keep the contract.

    Args:
        uri: a source that opens here, without a network if need be.
        unknown: a URI of the same scheme that names nothing.

    Raises:
        AssertionError: the first part of the contract that is broken, in words.

    Example:
        >>> check_scheme("regraft:cifar10-resnet20", unknown="regraft:no-such-network")
    """
    first, again = load_source(uri), load_source(uri)
    assert first.weights_digest == again.weights_digest, f"{uri} has other weights each time that it is opened"
    check_source(first)
    fresh = load_source(uri, random_weights=True, seed=1)
    assert fresh.weights_digest != first.weights_digest, "random_weights=True gives the pretrained weights"
    same = load_source(uri, random_weights=True, seed=1)
    assert fresh.weights_digest == same.weights_digest, "the seed does not decide the random weights"
    try:
        load_source(unknown)
    except SourceError as error:
        assert len(str(error).splitlines()) == 1, "an error is one line for a person to read"
    else:
        raise AssertionError(f"{unknown} names nothing, and still a source was opened")


def check_source(source: Source) -> None:
    """Check that a source keeps the contract: prepared, described, rebuilt, cut, trained.

    Raises:
        AssertionError: the first part of the contract that is broken, in words.

    Example:
        >>> from regraft.testing import tiny_source
        >>> check_source(tiny_source())
    """
    _check_state(source)
    x = torch.randn(3, *source.input.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = source.model(x)
        _check_output(source, x, output)
        _check_rebuilt(source, x, output)
        _check_cuts(source, x, output)
    _check_trainable(source, x)
    json.dumps(describe(source))


def _check_state(source: Source) -> None:
    state = source.model.state_dict()
    real = [value for value in (*source.model.parameters(), *source.model.buffers()) if value.is_floating_point()]
    assert not any(module.training for module in source.model.modules()), "the network is not in eval mode"
    assert all(value.dtype == torch.float32 for value in real), "the network is not in float32"
    assert all(value.device.type == "cpu" for value in real), "the network is not on the CPU"
    assert all(torch.isfinite(value).all() for value in real), "the weights hold NaN or infinite values"
    assert digest_state(state) == source.weights_digest, "weights_digest is not that of the weights; use make_source"


def _check_output(source: Source, x: torch.Tensor, output: torch.Tensor) -> None:
    assert isinstance(output, torch.Tensor) and len(output) == len(x), "the output is not one row for each example"
    assert torch.isfinite(output).all(), "the output is not finite"
    alone = torch.cat([source.model(row[None]) for row in x])
    torch.testing.assert_close(alone, output, atol=1e-3, rtol=1e-3, msg="one example's output depends on the others")
    if source.classes:
        assert output.shape[-1] == len(source.classes), "there is not one class name for each output"


def _check_rebuilt(source: Source, x: torch.Tensor, output: torch.Tensor) -> None:
    arch_args = json.loads(json.dumps(source.arch_args))
    model, _ = build(source.arch, arch_args)
    assert model.state_dict().keys() == source.model.state_dict().keys(), "build(arch, arch_args) has other tensors"
    model.load_state_dict(source.model.state_dict())
    torch.testing.assert_close(model(x), output, msg="build(arch, arch_args) is not the same architecture")
    twin = with_random_weights(source, seed=1)
    assert twin.weights_digest != source.weights_digest, "build(arch, arch_args) gives the pretrained weights"


def _check_cuts(source: Source, x: torch.Tensor, output: torch.Tensor) -> None:
    traced = trace(source.model, x, name=source.uri)
    assert len(traced.cuts) > 2, "the network has no cut between its input and its output"
    for cut in traced.stages:
        joined = join(*split(traced, cut))(x)
        torch.testing.assert_close(joined, output, msg=f"split and joined at {cut.name!r}, the output is another")


def _check_trainable(source: Source, x: torch.Tensor) -> None:
    model, _ = build(source.arch, source.arch_args)
    model(x).square().sum().backward()
    reached = [parameter.grad is not None for parameter in model.parameters()]
    assert any(reached), "no parameter gets a gradient"
