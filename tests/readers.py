"""A small whole file, or folder, of every format that is read, and how it is opened."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import re
import shutil
import struct
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from damage import damaged
from regraft.source import expects, load_source, write_source
from regraft.spec import InputSpec, Spec
from regraft.testing import TINY_ARCH, tiny_source

FIXTURES = Path(__file__).parent / "source" / "fixtures"
MARK = "code-ran"  # the file that hostile code leaves in the working folder
SPEC = InputSpec(size=(3, 32, 32))
LENET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 12 dim: 12 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" batch_norm_param { eps: 0.001 } }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc" inner_product_param { num_output: 5 } }
"""
BLOBS = {"conv": [(4, 3, 3, 3), (4,)], "bn": [(4,), (4,), (1,)], "scale": [(4,), (4,)], "fc": [(5, 100), (5,)]}


@dataclass(frozen=True)
class Sample:
    """A whole source on disk, as its files.

    Args:
        files: name to content.
        opens: which of them is passed; "" for their folder.
        arch: of bare weights.
        input: where the source does not say it.
        hostile: files that carry code and are now and then put in place of the whole ones.
        kept: files that are not damaged.
        scheme: what stands before the path.
    """

    files: dict[str, bytes]
    opens: str = ""
    arch: str | None = None
    input: Spec | None = None
    hostile: tuple[dict[str, bytes], ...] = ()
    kept: tuple[str, ...] = field(default=())
    scheme: str = ""

    def case(self, name: str, number: int) -> dict[str, bytes]:
        """The files with one of them damaged; always the same for a reader's name and a number."""
        draw = random.Random(f"{name} {number}")
        files = dict(self.files)
        if self.hostile and draw.random() < 0.25:
            files |= draw.choice(self.hostile)
        hurt = draw.choice(sorted(files.keys() - set(self.kept)))
        return files | {hurt: damaged(hurt, files[hurt], draw)}

    def open(self, files: dict[str, bytes], folder: Path):
        """Write files into an empty folder and open them as a source."""
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return load_source(f"{self.scheme}{folder / self.opens}", arch=self.arch, input=self.input)


class Hostile:
    """A pickle that runs a command when it is opened."""

    def __reduce__(self):
        return os.system, (f"touch {MARK}",)


TRAP = Hostile()


def _files(write: Callable[[Path], object]) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _saved(content: object, name: str, *, zipped: bool) -> dict[str, bytes]:
    return _files(lambda folder: torch.save(content, folder / name, _use_new_zipfile_serialization=zipped))


def _pytorch(name: str, *, zipped: bool) -> Sample:
    state = tiny_source().model.state_dict()
    hostile = [_saved({"state_dict": state, "more": Hostile()}, name, zipped=zipped)]
    hostile += [{name: pickle.dumps({"state_dict": Hostile()}, protocol=protocol)} for protocol in (2, 5)]
    whole = _saved({"state_dict": state, "epoch": 3}, name, zipped=zipped)
    return Sample(whole, name, TINY_ARCH, hostile=tuple(hostile))


def _repacked(whole: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """A zip with the content of its members changed."""
    new = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(new, "w") as archive:
        for name in old.namelist():
            archive.writestr(name, change(name, old.read(name)))
    return new.getvalue()


def _exported() -> Sample:
    shapes, saved, trap = ({0: torch.export.Dim("n")},), io.BytesIO(), pickle.dumps(TRAP)
    torch.export.save(
        torch.export.export(tiny_source().model, (torch.rand(2, 3, 32, 32),), dynamic_shapes=shapes), saved
    )
    whole = saved.getvalue()

    def pickled(name: str, content: bytes) -> bytes:
        if name.endswith("config.json"):
            return content.replace(b'"use_pickle": false', b'"use_pickle": true')
        return trap if "/data/" in name else content

    def evaluated(name: str, content: bytes) -> bytes:
        return content.replace(b"Symbol(", f"__import__('os').system('touch {MARK}') or (".encode())

    def called(name: str, content: bytes) -> bytes:
        return content.replace(b"torch.ops.aten.relu.default", b"torch.ops.aten.from_file.default")

    hostile = tuple({"net.pt2": _repacked(whole, change)} for change in (pickled, evaluated, called))
    return Sample({"net.pt2": whole}, "net.pt2", input=SPEC, hostile=hostile)


def _torchscript(arch: str | None = None, input: Spec | None = None) -> Sample:
    saved = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls TorchScript deprecated
        torch.jit.save(torch.jit.trace(tiny_source().model, torch.rand(2, 3, 32, 32)), saved)
    whole, trap = saved.getvalue(), pickle.dumps(TRAP, protocol=2)

    def pickled(name: str, content: bytes) -> bytes:
        return trap if name.endswith(".pkl") else content

    def coded(statement: str) -> Callable[[str, bytes], bytes]:
        return lambda name, content: re.sub(rb"(\) -> \w+:\n)( +)", rf"\1\2{statement}\n\2".encode(), content)

    changes = [pickled, coded(f'torch.save(1, "{MARK}")'), coded(f'_ = torch.from_file("{MARK}", True, 4)')]
    changes += [coded(f"__import__('os').system('touch {MARK}')"), coded(f"def __setstate__(a): open('{MARK}', 'w')")]
    hostile = tuple({"net.pt": _repacked(whole, change)} for change in changes)
    return Sample({"net.pt": whole}, "net.pt", arch, input, hostile)


@expects(InputSpec(size=(3, 16, 16)))
def exported_by_keras() -> nn.Module:
    """The network of fixtures/make_saved_model.py."""
    layers = {"conv": nn.Conv2d(3, 8, 3), "bn": nn.BatchNorm2d(8), "relu": nn.ReLU(), "pool": nn.MaxPool2d(2)}
    layers |= {"more": nn.Conv2d(8, 8, 3), "average": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}
    return nn.Sequential(OrderedDict(layers | {"head": nn.Linear(8, 5)}))


def _tensorflow2() -> Sample:
    with zipfile.ZipFile(FIXTURES / "saved_model.zip") as archive:
        names = [name for name in archive.namelist() if "/variables/" in name]
        files = {Path(name).name: archive.read(name) for name in names}
    return Sample(files, "variables.index", "readers:exported_by_keras")


def _safetensors() -> Sample:
    whole = {"net.safetensors": safetensors.torch.save(tiny_source().model.state_dict())}
    return Sample(whole, "net.safetensors", TINY_ARCH)


def _shards() -> Sample:
    state = tiny_source().model.state_dict()
    first = dict(list(state.items())[:8])
    parts = {"a.safetensors": first, "b.safetensors": {n: v for n, v in state.items() if n not in first}}
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    files = {file: safetensors.torch.save(part) for file, part in parts.items()}
    files["net.index.json"] = json.dumps(index).encode()
    return Sample(files, "net.index.json", TINY_ARCH)


def _fixture(name: str, spec: Spec | None) -> Sample:
    return Sample({Path(name).name: (FIXTURES / name).read_bytes()}, Path(name).name, input=spec)


def _keras(name: str) -> Sample:
    return _fixture(f"keras/{name}", SPEC)


def _caffe() -> Sample:
    from regraft.source.caffe_schema import net_parameter

    net, draw = net_parameter()(), torch.Generator().manual_seed(0)
    for name, shapes in BLOBS.items():
        layer = net.layer.add(name=name, type="Whatever")
        for shape in shapes:
            values = torch.rand(shape, generator=draw).flatten().tolist()
            layer.blobs.add(data=values).shape.dim.extend(shape)
    files = {"net.caffemodel": net.SerializeToString(), "deploy.prototxt": LENET.encode()}
    return Sample(files, "net.caffemodel", input=InputSpec(size=(3, 12, 12)))


def _tensorflow(case: str, size: tuple[int, int, int], *, old: bool = False) -> Sample:
    with zipfile.ZipFile(FIXTURES / "tf1.zip") as archive:
        names = [name for name in archive.namelist() if name.startswith(f"{case}/") and not name.endswith("case.json")]
        files = {Path(name).name: archive.read(name) for name in names}
    files = {name: content for name, content in files.items() if name.startswith("old.ckpt") == old}
    return Sample(files, "old.ckpt" if old else "", input=InputSpec(size, (0.0,) * size[0], (1.0,) * size[0]))


def _tflite(kind: str) -> Sample:
    with zipfile.ZipFile(FIXTURES / "tflite.zip") as archive:
        files = {f"{kind}.tflite": archive.read(f"{kind}.tflite")}
    return Sample(files, f"{kind}.tflite", input=InputSpec((3, 15, 13), (0.0,) * 3, (1.0,) * 3))


def _timm() -> Sample:
    import timm

    model = timm.create_model("mobilenetv3_small_050", num_classes=3)
    card = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}
    config: dict[str, object] = {
        "architecture": "mobilenetv3_small_050",
        "num_classes": 3,
        "model_args": {"drop_rate": 0.1},
    }
    config["pretrained_cfg"] = card
    weights = safetensors.torch.save({name: value.contiguous() for name, value in model.state_dict().items()})
    hostile = {
        "config.json": json.dumps(config | {"architecture": "os:system", "model_args": {"command": MARK}}).encode()
    }
    return Sample({"config.json": json.dumps(config).encode(), "model.safetensors": weights}, hostile=(hostile,))


_SCRIPT = f"from pathlib import Path\nPath({MARK!r}).touch()\n".encode()


def _transformers() -> Sample:
    import transformers

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=3, **small)
    files = _files(transformers.ViTForImageClassification(config).save_pretrained)
    files = {name: files[name] for name in ("config.json", "model.safetensors")}
    card = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 2}
    files["preprocessor_config.json"] = json.dumps(card).encode()
    theirs = {"auto_map": {"AutoModel": "modeling.Mine", "AutoModelForImageClassification": "modeling.Mine"}}
    config_json = json.dumps(json.loads(files["config.json"]) | theirs | {"model_type": "mine"}).encode()
    return Sample(files, hostile=({"config.json": config_json, "modeling.py": _SCRIPT},))


def _bert() -> Sample:
    import transformers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film", "##s"]
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    files = _files(transformers.BertModel(transformers.BertConfig(vocab_size=len(words), **small)).save_pretrained)
    files = {name: files[name] for name in ("config.json", "model.safetensors")}
    return Sample(files | {"vocab.txt": "\n".join(words).encode()})


def _wav2vec() -> Sample:
    import transformers

    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_stride=(5, 2), conv_kernel=(10, 3), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    files = _files(transformers.Wav2Vec2Model(config).save_pretrained)
    card = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16000, "do_normalize": True}
    files = {name: files[name] for name in ("config.json", "model.safetensors")}
    return Sample(files | {"preprocessor_config.json": json.dumps(card).encode()})


def _vectors(name: str) -> Sample:
    words = {"the": (0.5, -0.25, 1.5), "film": (0.1, 0.2, 0.3), "good": (1.0, 2.0, -3.0)}
    if name.endswith(".bin"):
        rows = [word.encode() + b" " + struct.pack("<3f", *values) + b"\n" for word, values in words.items()]
    else:
        rows = [f"{word} {' '.join(map(str, values))}\n".encode() for word, values in words.items()]
    return Sample({name: b"3 3\n" + b"".join(rows)}, name, scheme="vectors:")


def _regraft() -> Sample:
    files = _files(lambda folder: write_source(folder, tiny_source()))
    config = json.loads(files["config.json"]) | {"arch_args": {"num_classes": 10}}
    files["config.json"] = json.dumps(config).encode()
    hostile = [{"config.json": json.dumps(config | {"arch": arch}).encode(), "mine.py": _SCRIPT}
               for arch in ("python:mine:net", "python:os:system", "python:subprocess:getoutput")]  # fmt: skip
    return Sample(files, hostile=tuple(hostile))


def _archive(format: str, ending: str) -> Sample:
    def write(folder: Path) -> None:
        write_source(folder / "net", tiny_source())
        shutil.make_archive(str(folder / "net"), format, folder, "net")
        shutil.rmtree(folder / "net")

    return Sample(_files(write), f"net{ending}")


# One of every format; each is made when it is asked for.
READERS: dict[str, Callable[[], Sample]] = {
    "PyTorch zip": lambda: _pytorch("net.pt", zipped=True),
    "PyTorch before 1.6": lambda: _pytorch("net.th", zipped=False),
    "torch.export": _exported,
    "TorchScript": lambda: _torchscript(input=SPEC),
    "TorchScript, weights": lambda: _torchscript(arch=TINY_ARCH),
    "safetensors": _safetensors,
    "safetensors in shards": _shards,
    "ONNX": lambda: _fixture("onnx/residual_17.onnx", SPEC),
    "ONNX, tokens": lambda: _fixture("onnx/tokens_17.onnx", SPEC),
    "Keras 3": lambda: _keras("plain.keras"),
    "Keras HDF5": lambda: _keras("branched.h5"),
    "Caffe": _caffe,
    "TensorFlow 1": lambda: _tensorflow("mlp", (3, 4, 4)),
    "TensorFlow 1, convolutions": lambda: _tensorflow("conv", (3, 13, 15)),
    "TensorFlow 1, older": lambda: _tensorflow("autoencoder", (1, 4, 4), old=True),
    "TensorFlow 2, variables": _tensorflow2,
    "TensorFlow Lite": lambda: _tflite("float"),
    "TensorFlow Lite, 8 bit": lambda: _tflite("int8"),
    "timm folder": _timm,
    "transformers folder": _transformers,
    "transformers, text": _bert,
    "transformers, sound": _wav2vec,
    "word vectors, text": lambda: _vectors("words.vec"),
    "word vectors, binary": lambda: _vectors("words.bin"),
    "regraft folder": _regraft,
    "zip archive": lambda: _archive("zip", ".zip"),
    "tar.gz archive": lambda: _archive("gztar", ".tar.gz"),
}
