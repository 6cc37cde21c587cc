"""Names, errors, parts, training behaviour, in-place operations and the fallback, on small networks."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from regraft.cut import Cut, Traced, between, copy_graph, describe, join, set_training, split, trace
from regraft.errors import CutError


class Residual(nn.Module):
    """The smallest block with a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.conv2(self.relu(self.bn1(self.conv1(x)))) + x)


def tiny() -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), Residual(8), Residual(8), nn.MaxPool2d(2))
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 4)).eval()


@pytest.fixture
def model() -> nn.Sequential:
    return tiny()


@pytest.fixture
def traced(model: nn.Sequential) -> Traced:
    return trace(model, torch.zeros(2, 3, 16, 16), name="tiny")


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 3, 16, 16)


class TestNames:
    def test_a_block_names_its_output(self, traced: Traced) -> None:
        names = [cut.name for cut in traced.cuts]
        assert names[0] == "input"
        assert names[-1] == "output"
        assert {"0.2", "0.3"} <= set(names)
        assert len(set(names)) == len(names)

    def test_every_module_and_node_that_ends_at_a_cut_leads_to_it(self, traced: Traced) -> None:
        assert traced.cut("0") == traced.cut("0.4")
        assert traced.cut("4") == traced.cut("output")
        for cut in traced.cuts:
            assert traced.cut(cut.name) == traced.cut(cut.node) == traced.cut(cut) == cut

    def test_the_feature_is_what_the_classifier_reads_before_dropout(self, traced: Traced) -> None:
        assert traced.feature == traced.cut("2")
        assert traced.feature.layout == "NC"

    def test_without_a_classifier_the_output_is_the_feature(self) -> None:
        traced = trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()), torch.zeros(2, 3, 8, 8))
        assert traced.feature == traced.cuts[-1] == traced.stages[-1]

    def test_two_averaged_classifiers_have_one_feature(self) -> None:
        class Distilled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body, self.head, self.other = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 2)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                x = self.body(x).relu()
                return (self.head(x) + self.other(x)) / 2

        assert trace(Distilled(), torch.zeros(2, 4)).feature.node == "relu"

    def test_description_is_json(self, traced: Traced) -> None:
        rows = json.loads(json.dumps(describe(traced)))
        assert rows[0] == {"name": "input", "shape": [3, 16, 16], "layout": "NCHW", "stage": 0, "params_below": 0}
        assert len(rows) == len(traced.cuts)


class TestStages:
    def test_deep_networks_are_thinned_evenly(self) -> None:
        traced = trace(
            nn.Sequential(*(Residual(4) for _ in range(40)), nn.Flatten(), nn.Linear(36, 2)), torch.zeros(2, 4, 3, 3)
        )
        assert len(traced.stages) == 16
        gaps = [b.index - a.index for a, b in zip(traced.stages, traced.stages[1:], strict=False)]
        assert max(gaps) <= 2 * min(gaps[:-1])

    def test_layers_of_one_width_without_numbers_are_stages_of_their_own(self) -> None:
        class Unnumbered(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = nn.ModuleDict({name: nn.Linear(6, 6) for name in "abcdef"})
                self.fc = nn.Linear(6, 2)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                for layer in self.layers.values():
                    x = x + layer(x).relu()
                return self.fc(x)

        traced = trace(Unnumbered(), torch.zeros(2, 6))
        assert [cut.name for cut in traced.stages] == ["add", "add_1", "add_2", "add_3", "add_4", "add_5"]

    def test_padding_the_input_is_no_stage(self) -> None:
        model = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(256, 2))
        traced = trace(model, torch.zeros(2, 3, 8, 8))
        assert "0" in [cut.name for cut in traced.cuts]
        assert all(cut.params_below for cut in traced.stages)

    def test_a_cut_beside_which_the_input_is_read_again_says_so(self) -> None:
        class TwoScales(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fine, self.coarse, self.fc = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 2)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.fc((self.fine(x).relu() + self.coarse(x)).relu())

        model, x = TwoScales(), torch.randn(3, 4)
        traced = trace(model, x)
        assert [cut.name for cut in traced.cuts if cut.needs_input] == ["fine", "relu"]
        assert not any(cut.needs_input for cut in traced.stages)
        prefix, suffix = split(traced, "fine")
        assert torch.equal(suffix(prefix(x), x=x), model(x))
        assert torch.equal(join(prefix, suffix)(x), model(x))


class TestErrors:
    @pytest.mark.parametrize("layer", ["conv1", "bn1"])
    def test_a_place_with_a_shortcut_beside_it(self, traced: Traced, layer: str) -> None:
        with pytest.raises(CutError) as error:
            traced.cut(f"0.3.{layer}")
        assert str(error.value) == (
            f"'0.3.{layer}' of tiny is not a single-tensor boundary: the shortcut of 0.3 also crosses it. "
            "Nearest legal cuts: '0.2' (8, 14, 14), '0.3#add' (8, 14, 14)."
        )

    def test_a_misspelt_name(self, traced: Traced) -> None:
        with pytest.raises(CutError, match=r"tiny has no 'ouput'\. Did you mean 'output'"):
            split(traced, "ouput")

    def test_an_end_above_the_start(self, traced: Traced) -> None:
        with pytest.raises(CutError, match=r"between\(traced, '0.2', \['0.3'\]\)"):
            between(traced, "0.3", ["0.2"])


class TestParts:
    def test_several_ends_come_in_one_pass(self, model: nn.Module, traced: Traced, x: torch.Tensor) -> None:
        start, two, three, out = between(traced, "0.2", ["0.2", "0.3", "2", "output"])(split(traced, "0.2")[0](x))
        assert torch.equal(start, split(traced, "0.2")[0](x))
        assert torch.equal(two, model[0][3](model[0][2](model[0][1](model[0][0](x)))))
        assert torch.equal(three, model[2](model[1](model[0](x))))
        assert torch.equal(out, model(x))

    def test_what_lies_above_is_gone(self, traced: Traced) -> None:
        assert list(dict(between(traced, "0.3", ["output"]).named_parameters())) == ["4.weight", "4.bias"]
        assert "4.weight" not in between(traced, "input", ["0.3"]).state_dict()

    def test_parameters_are_shared_until_copied(self, model: nn.Sequential, traced: Traced) -> None:
        suffix = split(traced, "2")[1]
        assert suffix.get_parameter("4.weight") is model[4].weight
        assert copy_graph(suffix).get_parameter("4.weight") is not model[4].weight

    def test_a_cached_activation_is_never_overwritten(self, traced: Traced, x: torch.Tensor) -> None:
        for cut in traced.cuts:
            activation = split(traced, cut)[0](x)
            before = activation.clone()
            split(traced, cut)[1](activation)
            assert torch.equal(activation, before), cut

    def test_the_model_keeps_its_mode(self, x: torch.Tensor) -> None:
        model = tiny().train()
        trace(model, x)
        assert all(module.training for module in model.modules())

    def test_one_example_is_enough_to_trace(self, model: nn.Module, x: torch.Tensor) -> None:
        assert torch.equal(trace(model, x[:1]).graph(x), model(x))

    def test_buffers_that_are_not_saved_stay_unsaved(self) -> None:
        class Scaled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(4, 2)
                self.register_buffer("scale", torch.tensor([1.0, 2.0]), persistent=False)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.fc(x) * self.scale

        graph = between(trace(Scaled(), torch.zeros(2, 4)), "input", ["output"])
        assert set(graph.state_dict()) == {"fc.weight", "fc.bias"}

    def test_one_of_several_outputs(self) -> None:
        class Two(nn.Module):
            def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
                return {"a": x.relu(), "b": x.tanh()}

        x = torch.randn(2, 4)
        assert torch.equal(trace(Two(), x, output=1).graph(x), x.tanh())


class TestInPlace:
    def test_writing_through_a_view_is_kept(self) -> None:
        class Writes(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.bn, self.fc = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                y = self.bn(self.conv(x))
                y[:, 0] = 1.0
                y[:, 1] += 1
                y.flatten(1).mul_(2)
                return self.fc(y.relu().mean((2, 3)))

        model, x = Writes().eval(), torch.randn(3, 3, 8, 8)
        traced = trace(model, x)
        assert not traced.fallback_reason
        for cut in traced.cuts:
            prefix, suffix = split(traced, cut)
            activation = prefix(x)
            before = activation.clone()
            assert torch.equal(suffix(activation), model(x)), cut
            assert torch.equal(activation, before), cut
        graph = copy_graph(between(traced, "input", ["output"]))
        set_training(graph, batch_norm="train", dropout=False)
        graph(x)
        assert not torch.equal(graph.get_buffer("bn.running_mean"), model.bn.running_mean)


class TestTraining:
    def graph(self, traced: Traced) -> torch.fx.GraphModule:
        return copy_graph(between(traced, "input", ["output"]))

    def test_frozen_batch_norm_keeps_its_buffers(self, traced: Traced, x: torch.Tensor) -> None:
        graph = self.graph(traced)
        before = {name: buffer.clone() for name, buffer in graph.named_buffers()}
        set_training(graph, batch_norm="frozen", dropout=True)
        graph(x)
        assert all(torch.equal(before[name], buffer) for name, buffer in graph.named_buffers())

    def test_training_agrees_with_the_model_in_training(self, model: nn.Module, traced: Traced) -> None:
        graph, x = self.graph(traced), torch.randn(4, 3, 16, 16)
        set_training(graph, batch_norm="train", dropout=False)
        model.train()[3].eval()
        assert torch.equal(graph(x)[0], model(x))
        for name, buffer in graph.named_buffers():
            assert torch.equal(buffer, model.get_buffer(name)), name

    def test_it_can_be_reversed(self, traced: Traced, x: torch.Tensor) -> None:
        graph = self.graph(traced)
        (before,) = graph(x)
        set_training(graph, batch_norm="frozen", dropout=True)
        assert not torch.equal(graph(x)[0], before)
        set_training(graph, batch_norm="frozen", dropout=False)
        assert torch.equal(graph(x)[0], before)


class Branching(nn.Module):
    """Its branch depends on values, which no exported graph can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) if x.sum() > 0 else -self.fc(x)


class TestFallback:
    def network(self) -> nn.Module:
        layers = (nn.Linear(3, 8), Branching(), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 2))
        return nn.Sequential(*layers).eval()

    def test_whole_layers_are_cut_apart(self) -> None:
        model, x = self.network(), torch.randn(5, 3)
        traced = trace(model, x)
        assert traced.fallback_reason.startswith("torch.export failed: GuardOnDataDependentSymNode")
        assert [cut.name for cut in traced.cuts] == ["input", "0", "1", "2", "3", "output"]
        for cut in traced.cuts:
            assert torch.equal(join(*split(traced, cut))(x), model(x)), cut
        assert traced.feature.name == "2"

    def test_pictures_that_the_network_itself_refuses_are_said_to_be_so(self) -> None:
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2)).eval()
        assert trace(network, torch.zeros(2, 3, 8, 8)).stages
        with pytest.raises(CutError, match=r"does not take an input of \(3, 6, 6\): .*108.*--input-size 224$"):
            trace(network, torch.zeros(2, 3, 6, 6))
        with pytest.raises(CutError, match="cannot be taken apart"):  # rows of numbers have no size to ask for
            trace(nn.Linear(3, 2).eval(), torch.zeros(2, 4))

    def test_a_place_that_would_be_overwritten_is_refused(self) -> None:
        class Writes(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.mul_(2)

        model = nn.Sequential(nn.Linear(3, 8), Branching(), nn.Linear(8, 8), Writes(), nn.Linear(8, 2))
        with pytest.raises(CutError, match="what follows writes into it"):
            trace(model, torch.ones(2, 3)).cut("2")

    def test_training_modes_stay_apart(self) -> None:
        model, x = self.network(), torch.ones(50, 3)
        traced = trace(model, x)
        suffix = split(traced, "0")[1]
        set_training(suffix, batch_norm="frozen", dropout=True)
        assert not model[3].training
        assert torch.equal(traced.graph(x), model(x))

    def test_what_cannot_be_taken_apart_says_why(self) -> None:
        with pytest.raises(CutError, match=r"taken apart\. torch\.export failed.*layer by layer failed too"):
            trace(Branching(), torch.zeros(2, 8))


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((8, 7, 7), "NCHW"), ((7, 7, 8), "NHWC"), ((8, 8, 8), "NCHW"), ((49, 8), "NLC"), ((8,), "NC")],
)
def test_layouts(shape: tuple[int, ...], layout: str) -> None:
    cuts: tuple[Cut, ...] = trace(nn.Sequential(nn.ReLU(), nn.Tanh()), torch.zeros(2, *shape)).cuts
    assert cuts[1].layout == layout
