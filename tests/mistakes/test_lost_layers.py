"""Mistake: a file lacks some of a network's weights, and `strict=False` fills the gap with fresh ones in silence.

A network with one random layer answers at random, and trains well enough that nobody notices. Every reader refuses it
by the layer's name; the final classifier alone may be missing, and is reported.
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import safetensors.torch
import torch

from readers import READERS, Sample
from regraft.errors import SourceError
from regraft.source import load_source
from regraft.source.caffe_schema import net_parameter

# In which file, and a tensor below the classifier.
LOST = {
    "safetensors": "block1.conv.weight",
    "safetensors in shards": "block1.conv.weight",
    "timm folder": "blocks.0.0.conv_dw.weight",
    "transformers folder": "layer.0.",
    "transformers, text": "encoder.layer.1.attention.self.query.weight",
    "transformers, sound": "encoder.layers.0.feed_forward.intermediate_dense.weight",
    "regraft folder": "block2.bn.running_mean",
}


def without(sample: Sample, lost: str) -> tuple[dict[str, bytes], str]:
    """The files without one tensor, and the tensor's name."""
    for name, content in sample.files.items():
        if name.endswith(".safetensors"):
            tensors = safetensors.torch.load(content)
            found = next((key for key in tensors if lost in key), None)
            if found:
                del tensors[found]
                return sample.files | {name: safetensors.torch.save(tensors)}, found
    raise AssertionError(f"no file holds {lost}")


@pytest.mark.parametrize("reader", LOST)
def test_a_lost_layer_is_named(reader: str, tmp_path: Path) -> None:
    sample = READERS[reader]()
    files, lost = without(sample, LOST[reader])
    with pytest.raises(SourceError, match=f"1 missing|{lost.split(chr(46))[-2]}"):
        sample.open(files, tmp_path)


def test_a_layer_of_caffe_without_weights_is_named(tmp_path: Path) -> None:
    sample = READERS["Caffe"]()
    net = net_parameter().FromString(sample.files["net.caffemodel"])
    del net.layer[0].blobs[:]
    with pytest.raises(SourceError, match="conv"):
        sample.open(sample.files | {"net.caffemodel": net.SerializeToString()}, tmp_path)


def test_an_initialiser_of_onnx_that_is_gone_is_named(tmp_path: Path) -> None:
    sample = READERS["ONNX"]()
    model = onnx.load_model_from_string(sample.files["residual_17.onnx"])
    lost = model.graph.initializer[0].name
    del model.graph.initializer[0]
    with pytest.raises(SourceError, match=lost.replace(".", r"\.")):
        sample.open(sample.files | {"residual_17.onnx": model.SerializeToString()}, tmp_path)


def test_a_lost_classifier_is_reported_and_the_rest_is_used(tmp_path: Path) -> None:
    sample = READERS["regraft folder"]()
    files, lost = without(sample, "classifier.weight")
    source = sample.open(files, tmp_path)
    assert source.report is not None and source.report.missing == (lost,)
    assert "left fresh" in str(source.report)


def test_classes_keep_their_names_in_whatever_order_they_are_written(tmp_path: Path) -> None:
    """Another mistake of the kind: names in the order of outputs, given as a table that is not sorted by it."""
    sample = READERS["timm folder"]()
    config = json.loads(sample.files["config.json"])
    for names in (["wasp", "ant", "bee"], {"2": "bee", "0": "wasp", "1": "ant"}):
        content = json.dumps(config | {"label_names": names}).encode()
        (tmp_path / type(names).__name__).mkdir()
        source = sample.open(sample.files | {"config.json": content}, tmp_path / type(names).__name__)
        assert source.classes == ("wasp", "ant", "bee")


def test_weights_of_another_network_of_the_same_shape_are_refused(tmp_path: Path) -> None:
    state = {f"body.{i}": torch.zeros(3, 3) for i in range(4)}
    safetensors.torch.save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(SourceError, match="0 tensors matched"):
        load_source(str(tmp_path / "net.safetensors"), arch="regraft.testing.sources:tiny_net")
