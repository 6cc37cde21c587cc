"""The law of this stage: a network taken apart at any legal cut and joined again is the network, bit for bit.

N examples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from regraft.cut import Traced, between, join, split, trace

timm = pytest.importorskip("timm")


@dataclass(frozen=True)
class Case:
    name: str
    size: int
    least_cuts: int
    resized: bool = False  # the architecture is built for a picture size
    settings: tuple[tuple[str, float], ...] = ()

    def build(self, size: int) -> nn.Module:
        settings = {"img_size": size} if self.resized else {}
        return timm.create_model(self.name, pretrained=False, **settings, **dict(self.settings)).eval()


CASES = [
    Case("resnet18", 64, 24),
    Case("vit_tiny_patch16_224", 32, 30, resized=True),
    Case("mobilenetv2_100", 32, 73),
    Case("densenet121", 32, 20),
    Case("convnext_atto", 32, 30),
    Case("swin_tiny_patch4_window7_224", 32, 60, resized=True),
    Case("efficientnet_b0", 32, 70),
    Case("inception_v3", 75, 30),
    Case("vgg11", 32, 25, settings=(("mlp_ratio", 1 / 64),)),  # or 100 million parameters
    Case("regnetx_002", 32, 25),
    Case("mixer_s32_224", 64, 18, resized=True),
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@functools.cache
def small(case: Case) -> tuple[nn.Module, Traced]:
    torch.manual_seed(0)
    model = case.build(case.size)
    return model, trace(model, torch.zeros(2, 3, case.size, case.size), name=f"timm:{case.name}")


def holds(model: Callable, traced: Traced, x: torch.Tensor) -> None:
    """From each activation of one prefix pass the suffix gives the model's output, and leaves it alone."""
    wanted = model(x)
    for cut, activation in zip(traced.cuts, between(traced, "input", traced.cuts)(x), strict=True):
        before = activation.clone()
        (reached,) = between(traced, cut, ["output"])(activation)
        assert torch.equal(reached, wanted), cut
        assert torch.equal(activation, before), f"{cut} was overwritten"
        assert tuple(activation.shape) == (len(x), *cut.shape)


@cases
@torch.no_grad()
def test_every_cut(case: Case) -> None:
    model, traced = small(case)
    assert not traced.fallback_reason
    assert len(traced.cuts) >= case.least_cuts
    holds(model, traced, torch.randn(2, 3, case.size, case.size))


@cases
@torch.no_grad()
def test_every_batch_size(case: Case) -> None:
    model, traced = small(case)
    joined = join(*split(traced, traced.stages[len(traced.stages) // 2]))
    for n in (1, 2, 5):
        x = torch.randn(n, 3, case.size, case.size)
        assert torch.equal(joined(x), model(x)), n


@cases
def test_every_stage_trains_and_loads_back(case: Case) -> None:
    """Gradients flow through each suffix, and its parameters are parameters of the original architecture."""
    model, traced = small(case)
    own = dict(model.named_parameters())
    cut = traced.stages[len(traced.stages) // 2]
    _, suffix = split(traced, cut)
    x = torch.randn(2, *cut.shape, requires_grad=True)
    suffix(x).sum().backward()
    parameters = dict(suffix.named_parameters())
    assert x.grad is not None
    assert all(p.grad is not None and p is own[name] for name, p in parameters.items())
    assert set(suffix.state_dict()) <= set(model.state_dict())
    model.load_state_dict({**model.state_dict(), **suffix.state_dict()})
    model.zero_grad()


@cases
def test_stages_are_few_and_end_in_the_feature(case: Case) -> None:
    _, traced = small(case)
    assert 4 <= len(traced.stages) <= 16
    assert traced.stages[-1] == traced.feature
    assert traced.feature.layout == "NC"
    assert [cut.stage for cut in traced.stages] == list(range(len(traced.stages)))
    assert [cut.index for cut in traced.cuts] == list(range(len(traced.cuts)))
    below = [cut.params_below for cut in traced.cuts]
    assert below == sorted(below)


@cases
def test_parameters_are_counted_once(case: Case) -> None:
    model, traced = small(case)
    assert traced.cuts[0].params_below == 0
    assert traced.cuts[-1].params_below == sum(p.numel() for p in model.parameters())


@pytest.mark.slow
@cases
@torch.no_grad()
def test_every_cut_at_full_size(case: Case) -> None:
    model = case.build(224)
    traced = trace(model, torch.zeros(2, 3, 224, 224))
    x = torch.randn(2, 3, 224, 224)
    wanted = model(x)
    for cut in traced.cuts:
        assert torch.equal(join(*split(traced, cut))(x), wanted), cut


@pytest.fixture(scope="module")
def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64
    )
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(config).eval()


@torch.no_grad()
def test_every_cut_of_bert(bert: nn.Module) -> None:
    """Two inputs: the attention mask is taken again by the suffix, by name."""
    ids, mask = torch.randint(0, 100, (2, 12)), torch.ones(2, 12, dtype=torch.long)
    mask[1, 8:] = 0
    traced = trace(bert, (ids, mask))
    wanted = bert(ids, attention_mask=mask).logits
    assert len(traced.cuts) >= 15
    for cut in traced.cuts:
        assert torch.equal(join(*split(traced, cut))(ids, attention_mask=mask), wanted), cut
    _, suffix = split(traced, "bert.encoder.layer.1.output")
    assert [n.target for n in suffix.graph.nodes if n.op == "placeholder"][1:] == ["attention_mask"]
    assert traced.feature.shape == (32,)


@torch.no_grad()
def test_inputs_by_name(bert: nn.Module) -> None:
    ids, mask = torch.randint(0, 100, (2, 12)), torch.ones(2, 12, dtype=torch.long)
    traced = trace(bert, {"input_ids": ids, "attention_mask": mask})
    joined = join(*split(traced, "bert.encoder.layer.0"))
    assert torch.equal(joined(input_ids=ids, attention_mask=mask), bert(ids, attention_mask=mask).logits)
