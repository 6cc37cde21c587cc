"""Image encoders of transformers: from folders that transformers itself wrote, and from the hub's cache."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from damage import mutations
from regraft.cut import join, split, trace
from regraft.errors import MissingExtra, SourceError
from regraft.source import Source, build, load_source, with_random_weights
from regraft.spec import InputSpec

transformers = pytest.importorskip("transformers")

TOKENS = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
WAVES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViTForImageClassification": ("vit", TOKENS | {"num_labels": 3}),
    "ViTModel": ("vit", TOKENS),
    "DeiTForImageClassification": ("deit", TOKENS),
    "BeitForImageClassification": ("beit", TOKENS | {"use_relative_position_bias": True}),
    "Dinov2Model": ("dinov2", TOKENS),
    "Dinov2ForImageClassification": ("dinov2", TOKENS),
    "ConvNextForImageClassification": ("convnext", {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1]}),
    "ConvNextModel": ("convnext", {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1]}),
    "ResNetForImageClassification": ("resnet", WAVES | {"embedding_size": 8}),
    "ResNetModel": ("resnet", WAVES | {"embedding_size": 8}),
    "SwinForImageClassification": (
        "swin",
        {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
    ),
    "CLIPVisionModel": ("clip_vision_model", TOKENS),
    "SiglipVisionModel": ("siglip_vision_model", TOKENS),
    "CLIPForImageClassification": ("clip", {"vision_config": TOKENS, "num_labels": 3}),
    "MobileNetV2ForImageClassification": ("mobilenet_v2", {"image_size": 32, "depth_multiplier": 0.1, "min_depth": 4}),
}
PREPARED = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 2}


@pytest.fixture(autouse=True)
def _silent() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def network(name: str) -> Any:
    kind, settings = NETWORKS[name]
    return getattr(transformers, name)(transformers.AutoConfig.for_model(kind, **settings)).eval()


def saved(folder: Path, name: str = "ViTForImageClassification", **prepared: Any) -> Any:
    """A folder as transformers writes it; returns the network."""
    model = network(name)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPARED | prepared))
    return model


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_gives_transformers_outputs_can_be_cut_and_rebuilt(name: str, tmp_path: Path) -> None:
    theirs = saved(tmp_path, name)
    source = load_source(f"hf:{tmp_path}")
    x = torch.randn(2, *source.input.size)
    found = theirs(pixel_values=x)
    wanted = found.logits if "logits" in found else found.pooler_output.flatten(1)
    assert torch.equal(source.model(x), wanted)
    assert source.arch == f"hf:{name}" and source.model.state_dict().keys() == theirs.state_dict().keys()
    assert source.report is not None and source.report.complete
    traced = trace(source.model, torch.zeros(2, *source.input.size))
    assert len(traced.cuts) > 4 and not traced.fallback_reason
    for cut in traced.cuts:
        assert torch.equal(join(*split(traced, cut))(x), wanted)
    again, _ = build(source.arch, json.loads(json.dumps(source.arch_args)))
    again.load_state_dict(source.model.state_dict())
    assert torch.equal(again(x), wanted)


@pytest.mark.parametrize("kind", ["clip", "siglip", "chinese_clip"])
def test_of_a_pair_of_networks_the_one_that_sees_is_opened(kind: str, tmp_path: Path) -> None:
    words = {name: value for name, value in TOKENS.items() if name not in ("image_size", "patch_size")}
    settings = {"vision_config": TOKENS, "text_config": words | {"vocab_size": 99}}
    theirs = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **settings)).eval()
    theirs.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPARED))
    source = load_source(f"hf:{tmp_path}")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(source.model(x), theirs.vision_model(pixel_values=x).pooler_output)
    assert source.report is not None and not source.report.missing
    assert all(name.startswith(("text", "logit", "visual")) for name in source.report.unexpected)
    again, _ = build(source.arch, json.loads(json.dumps(source.arch_args)))
    assert again.state_dict().keys() == source.model.state_dict().keys()


def test_the_card_beside_the_weights_is_read(tmp_path: Path) -> None:
    saved(tmp_path)
    edit(tmp_path, id2label={"0": "ant", "1": "bee", "2": "cat"})
    (tmp_path / "README.md").write_text("---\ntags:\n- vision\nlicense: apache-2.0\n---\nlicense: none\n")
    source = load_source(str(tmp_path))
    assert source.classes == ("ant", "bee", "cat") and source.licence == "apache-2.0"
    assert source.input == InputSpec((3, 32, 32), (0.5,) * 3, (0.25,) * 3, "bilinear", 1.0, "squash")
    twin = with_random_weights(source, seed=1)
    assert twin.weights_digest != source.weights_digest and twin.input == source.input


@pytest.mark.parametrize(
    ("prepared", "expected"),
    [
        (
            {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True},
            {"crop_pct": 0.8, "crop_mode": "center"},
        ),
        ({"size": {"shortest_edge": 32}, "crop_pct": 0.5}, {"crop_pct": 0.5, "crop_mode": "center"}),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, {"size": (3, 384, 384), "crop_mode": "squash"}),
        ({"size": 32, "resample": 3}, {"interpolation": "bicubic"}),
        ({"do_normalize": False}, {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
        ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [51.0] * 3}, {"std": (0.2,) * 3}),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}, {"mean": (0.5,) * 3}),
        ({"do_flip_channel_order": True}, {"channel_order": "BGR"}),
    ],
)
def test_preprocessors_are_read_as_transformers_means_them(
    prepared: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    saved(tmp_path, "ResNetForImageClassification", **prepared)
    told = load_source(str(tmp_path)).input
    assert {name: getattr(told, name) for name in expected} == expected


def test_a_preprocessor_gives_transformers_pixels(tmp_path: Path) -> None:
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.4, 0.5, 0.6])
    saved(tmp_path)
    processor.save_pretrained(tmp_path)
    spec = load_source(str(tmp_path)).input
    pixels = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    theirs = processor(pixels, return_tensors="pt")["pixel_values"][0]
    ours = (pixels / 255 - torch.tensor(spec.mean)[:, None, None]) / torch.tensor(spec.std)[:, None, None]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", ["pytorch_model.bin", "shards"])
def test_older_weights_and_shards(layout: str, tmp_path: Path) -> None:
    theirs = saved(tmp_path)
    whole = tmp_path / "model.safetensors"
    digest = load_source(str(tmp_path)).weights_digest
    if layout == "shards":
        theirs.save_pretrained(tmp_path, max_shard_size="5KB")
        assert (tmp_path / "model.safetensors.index.json").is_file()
    else:
        torch.save(theirs.state_dict(), tmp_path / layout)
    whole.unlink(missing_ok=True)
    assert load_source(str(tmp_path)).weights_digest == digest


def test_an_encoder_saved_without_its_pooler_has_none(tmp_path: Path) -> None:
    saved(tmp_path, "ViTModel")
    path = tmp_path / "model.safetensors"
    kept = {k: v for k, v in safetensors.torch.load_file(path).items() if not k.startswith("pooler")}
    safetensors.torch.save_file(kept, path, metadata={"format": "pt"})
    source = load_source(str(tmp_path))
    assert source.arch_args["pooler"] is False and source.model(torch.zeros(2, 3, 32, 32)).shape == (2, 16)
    assert not [name for name in source.model.state_dict() if "pooler" in name]
    again, _ = build(source.arch, source.arch_args)
    assert again.state_dict().keys() == source.model.state_dict().keys()


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache on disk, with one network in it: files are links from a snapshot to blobs."""
    from huggingface_hub import constants

    saved(tmp_path / "plain")
    home = tmp_path / "hub"
    snapshot = home / "models--someone--small-vit" / "snapshots" / ("a" * 40)
    blobs = snapshot.parents[1] / "blobs"
    refs = snapshot.parents[1] / "refs"
    for folder in (snapshot, blobs, refs):
        folder.mkdir(parents=True)
    (refs / "main").write_text("a" * 40)
    for i, file in enumerate(sorted((tmp_path / "plain").iterdir())):
        shutil.copy(file, blobs / str(i))
        (snapshot / file.name).symlink_to(f"../../blobs/{i}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(home))
    monkeypatch.setenv("REGRAFT_OFFLINE", "1")
    return home


@pytest.mark.usefixtures("no_network", "hub_cache")
@pytest.mark.parametrize("name", ["someone/small-vit", "someone/small-vit@main"])
def test_a_name_in_the_hubs_cache_opens_without_a_network(name: str, tmp_path: Path) -> None:
    source = load_source(f"hf:{name}")
    assert source.uri == f"hf:{name}"
    assert source.weights_digest == load_source(str(tmp_path / "plain")).weights_digest


@pytest.mark.usefixtures("no_network", "hub_cache")
def test_offline_says_what_to_copy_where() -> None:
    with pytest.raises(SourceError, match=r"REGRAFT_OFFLINE=1.*copy config\.json.*someone/other.*hf:path/to/folder"):
        load_source("hf:someone/other")
    with pytest.raises(SourceError, match="could not be fetched"):
        load_source("hf:no such name!")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "autoformer", "architectures": ["X"]}, "kind 'autoformer', expected an image encoder"),
        ({"model_type": "no-such"}, "no config that transformers"),
        ({"num_hidden_layers": 10**9}, "asks for 'num_hidden_layers' = 1000000000"),
        ({"hidden_size": 2**62}, "asks for 'hidden_size'"),
        ({"hidden_size": 2**20}, "describes a network of .* weights hold far fewer"),
        ({"hidden_size": -1}, "describes no network|no config"),
        ({"hidden_size": "many"}, "describes no network|no config"),
        ({"hidden_size": 32}, "does not fit its config"),
        ({"num_hidden_layers": 3}, "does not fit its config"),
        ({"quantization_config": {"load_in_4bit": True}}, "quantised"),
        ({"id2label": {"x": 3}}, "no config that transformers|describes no network"),
    ],
)
def test_a_config_is_not_trusted(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    saved(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(SourceError, match=message):
        load_source(str(tmp_path))


def test_code_that_a_config_points_to_is_never_fetched(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "mine.py").write_text("raise AssertionError('this code ran')")
    edit(tmp_path, auto_map={"AutoModel": "mine.Net"}, _attn_implementation="someone/kernels")
    source = load_source(str(tmp_path))
    assert source.arch == "hf:ViTForImageClassification" and "auto_map" not in source.arch_args["config"]


def test_without_a_preprocessor_the_input_is_asked_for(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(SourceError, match="does not say what input"):
        load_source(str(tmp_path))
    spec = InputSpec(size=(3, 32, 32))
    assert load_source(str(tmp_path), input=spec).input == spec
    (tmp_path / "preprocessor_config.json").write_text('{"size": {}}')
    with pytest.raises(SourceError, match="lacks something or has a wrong value"):
        load_source(str(tmp_path))


@pytest.mark.usefixtures("no_network")
def test_random_weights_need_no_weights(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    source: Source = load_source(str(tmp_path), random_weights=True, seed=3)
    assert source.weights_digest == load_source(str(tmp_path), random_weights=True, seed=3).weights_digest
    with pytest.raises(SourceError, match=r"no model\.safetensors"):
        load_source(str(tmp_path))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_damaged_folders_give_one_clear_message(name: str, tmp_path: Path) -> None:
    saved(tmp_path, "ResNetForImageClassification")
    whole = (tmp_path / name).read_bytes()
    refused = 0
    for data in mutations(whole, 60):
        (tmp_path / name).write_bytes(data)
        try:
            load_source(str(tmp_path))
        except SourceError:
            refused += 1
    assert refused > 20


def test_without_transformers_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"regraft\[hf\]"):
        load_source(str(tmp_path))
