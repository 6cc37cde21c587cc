"""Attack: a small file that wants all the memory there is, or all the time.

Packed archives and Keras files are in tests/source; here are those that open without a word in the libraries below.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from readers import READERS, Sample
from regraft.errors import SourceError

PATIENCE = 20  # seconds, on a busy machine; all of them take less than one on a quiet one


def refused(sample: Sample, files: dict[str, bytes], folder: Path, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        sample.open(sample.files | files, folder)


def saved(content: Any) -> dict[str, bytes]:
    stream = io.BytesIO()
    torch.save(content, stream)
    return {"net.pt": stream.getvalue()}


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("member", ["data.pkl", "data/0"])
def test_a_checkpoint_that_unpacks_to_many_times_its_size(member: str, tmp_path: Path) -> None:
    """PyTorch writes its files unpacked, and reads packed ones whole."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(f"net/{member}", "w") as file:
        for _ in range(16):
            file.write(bytes(1 << 24))
    assert len(packed.getvalue()) < 2 << 20
    refused(READERS["PyTorch zip"](), {"net.pt": packed.getvalue()}, tmp_path, "would unpack to")


@pytest.mark.timeout(PATIENCE)
def test_a_dictionary_that_holds_itself_a_billion_times(tmp_path: Path) -> None:
    content: dict[str, Any] = {"weight": torch.zeros(1)}
    for _ in range(30):
        content = {"left": content, "right": content}
    refused(READERS["PyTorch zip"](), saved(content), tmp_path, "without end")


@pytest.mark.timeout(PATIENCE)
def test_a_dictionary_inside_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {"weight": torch.zeros(1)}
    content["again"] = content
    refused(READERS["PyTorch zip"](), saved(content), tmp_path, "does not fit the architecture")


@pytest.mark.timeout(PATIENCE)
def test_a_number_repeated_without_end(tmp_path: Path) -> None:
    """One value on disk, 2^40 in memory as soon as it is looked at."""
    content = {"weight": torch.zeros(1).expand(2**20, 2**20)}
    refused(READERS["PyTorch zip"](), saved(content), tmp_path, r"claims tensors of 4,398,046,511,104 bytes")


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("classes", [10**7, 10**9, 2**62])
@pytest.mark.parametrize("reader", ["timm folder", "regraft folder"])
def test_a_config_that_describes_a_huge_network(reader: str, classes: int, tmp_path: Path) -> None:
    sample = READERS[reader]()
    changed = {"num_classes": classes} if reader == "timm folder" else {"arch_args": {"num_classes": classes}}
    config = json.loads(sample.files["config.json"]) | changed
    says = "far larger than the weights beside it|describes no network"
    refused(sample, {"config.json": json.dumps(config).encode()}, tmp_path, says)


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("side", [20_000, 2**40, -1, "many", None, 1.5])
def test_a_card_that_asks_for_absurd_pictures(side: Any, tmp_path: Path) -> None:
    sample = READERS["timm folder"]()
    config = json.loads(sample.files["config.json"])
    config["pretrained_cfg"]["input_size"] = [3, side, side]
    refused(sample, {"config.json": json.dumps(config).encode()}, tmp_path, "makes no sense|wrong value")


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("reader", READERS)
def test_a_length_of_2_to_the_63_anywhere_in_the_first_bytes(reader: str, tmp_path: Path) -> None:
    sample = READERS[reader]()
    name = sample.opens or max(sample.files, key=lambda n: (n.endswith(".safetensors"), n))
    content = sample.files[name]
    for at in range(0, 32, 16 if "Keras" in reader else 4):
        folder = tmp_path / str(at)
        folder.mkdir()
        damaged = content[:at] + b"\xff" * 7 + b"\x7f" + content[at + 8 :]
        try:  # in some places nothing is read
            sample.open(sample.files | {name: damaged}, folder)
        except SourceError as error:
            assert str(error)
