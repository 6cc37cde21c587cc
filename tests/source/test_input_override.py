"""Law: what is not said of the input stays what the source says; what nobody says is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from regraft.errors import SourceError
from regraft.source import MissingInput, load_source
from regraft.spec import InputOverride, InputSpec
from regraft.testing import check_source

EMBEDDED = "regraft:cifar10-resnet20"


@pytest.mark.parametrize(("size", "becomes"), [((48,), (3, 48, 48)), ((48, 40), (3, 48, 40)), ((3, 8, 40), (3, 8, 40))])
def test_another_size_leaves_the_rest_as_the_source_says(size: tuple[int, ...], becomes: tuple[int, int, int]) -> None:
    own = load_source(EMBEDDED).input
    source = load_source(EMBEDDED, input=InputOverride(size))
    assert isinstance(own, InputSpec) and isinstance(source.input, InputSpec)
    assert source.input.size == becomes
    assert (source.input.mean, source.input.std, source.input.crop_pct) == (own.mean, own.std, own.crop_pct)
    check_source(source)


def test_colours_alone_leave_the_size() -> None:
    own = load_source(EMBEDDED).input
    other = load_source(EMBEDDED, input=InputOverride(mean=(0.0,) * 3, std=(1.0,) * 3, channel_order="BGR")).input
    assert isinstance(other, InputSpec)
    assert (other.size, other.mean, other.std, other.channel_order) == (own.size, (0.0,) * 3, (1.0,) * 3, "BGR")


def test_numbers_that_do_not_fit_the_channels_are_refused() -> None:
    with pytest.raises(SourceError, match=r"one number per channel \(3\).* with commas between them"):
        load_source(EMBEDDED, input=InputOverride(mean=(0.5,)))


def exported(path: Path, *, free: bool) -> str:
    """A network whose file says one size, or, with free sides, that of its example."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    sides = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO} if free else {}
    shapes = ({0: torch.export.Dim("n"), **sides},)
    torch.export.save(torch.export.export(network, (torch.rand(2, 3, 20, 24),), dynamic_shapes=shapes), path)
    return str(path)


@pytest.mark.parametrize("free", [False, True])
def test_a_file_that_says_its_size_alone_needs_the_colours_alone(tmp_path: Path, *, free: bool) -> None:
    uri = exported(tmp_path / "net.pt2", free=free)
    said = InputOverride(mean=(0.5,) * 3, std=(0.25,) * 3)
    assert load_source(uri, input=said).input == InputSpec((3, 20, 24), (0.5,) * 3, (0.25,) * 3)
    with pytest.raises(MissingInput, match=r"--input-size 3,20,24 --mean"):
        load_source(uri, input=InputOverride(channel_order="BGR"))


def test_sides_that_a_file_leaves_free_may_be_others(tmp_path: Path) -> None:
    said = InputOverride((31,), (0.5,) * 3, (0.25,) * 3)
    assert load_source(exported(tmp_path / "free.pt2", free=True), input=said).input.size == (3, 31, 31)
    with pytest.raises(SourceError, match=r"takes pictures of \(C, H, W\) = \(3, 20, 24\), asked for \(3, 31, 31\)"):
        load_source(exported(tmp_path / "one.pt2", free=False), input=said)


def test_texts_have_no_size_of_pictures(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("good 1 0\nbad 0 1\nfine 1 1\n", encoding="utf-8")
    with pytest.raises(SourceError, match="takes input of the modality 'text', and 'image' was asked for"):
        load_source(f"vectors:{words}", input=InputOverride((48,)))
