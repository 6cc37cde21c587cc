"""Pictures of every kind become the array that the InputSpec asks for."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from regraft.data import Transform
from regraft.spec import InputSpec

RGB = InputSpec(size=(3, 16, 16), interpolation="bilinear")
GREY = InputSpec(size=(1, 16, 16), mean=(0.5,), std=(0.5,), interpolation="bilinear")


def _encoded(image: Image.Image, format: str, **options) -> Image.Image:
    """The picture after a trip through a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def _flat(mode: str, colour) -> Image.Image:
    return Image.new(mode, (20, 20), colour)


def _palette_with_hole() -> Image.Image:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    return _encoded(image, "PNG", transparency=1)


def _deep(value: int) -> Image.Image:
    return Image.fromarray(np.full((20, 20), value, np.uint16))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_formats(format: str):
    image = _encoded(_flat("RGB", (200, 100, 50)), format)
    assert np.abs(Transform(RGB)(image).mean((1, 2)) - [200, 100, 50]).max() < 6


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (_flat("L", 77), (77, 77, 77)),
        (_flat("1", 1), (255, 255, 255)),
        (_encoded(_flat("CMYK", (0, 255, 255, 0)), "JPEG"), (254, 0, 0)),
        (_flat("RGBA", (255, 0, 0, 0)), (255, 255, 255)),
        (_flat("RGBA", (255, 0, 0, 255)), (255, 0, 0)),
        (_flat("LA", (0, 0)), (255, 255, 255)),
        (_flat("LA", (9, 255)), (9, 9, 9)),
        (_palette_with_hole(), (255, 255, 255)),
        (_flat("RGB", (0, 255, 0)).convert("P"), (0, 255, 0)),
        (_encoded(_deep(65535), "PNG"), (255, 255, 255)),
        (_encoded(_deep(32896), "TIFF"), (128, 128, 128)),
        (_flat("I", 257 * 40), (40, 40, 40)),
        (_flat("I", 40), (40, 40, 40)),
        (_flat("F", 0.2), (51, 51, 51)),
        (_flat("YCbCr", (100, 128, 128)), (100, 100, 100)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_every_kind_of_pixel(image: Image.Image, expected: tuple[int, int, int]):
    colour = Transform(RGB)(image)
    assert (colour.dtype, colour.shape) == (np.uint8, (3, 16, 16))
    assert np.abs(colour[:, 8, 8].astype(int) - expected).max() <= 2
    grey = Transform(GREY)(image)
    assert grey.shape == (1, 16, 16)
    assert abs(int(grey[0, 8, 8]) - np.dot(expected, (0.299, 0.587, 0.114))) <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_lie_as_the_camera_was_held(orientation: int, paint):
    upright = paint(0, (60, 40))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # EXIF orientation -> Pillow's inverse transpose
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = Transform(RGB)(_encoded(stored, "PNG", exif=exif))
    assert np.array_equal(turned, Transform(RGB)(upright))


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (224, 224), (640, 201), (50, 60)])
@pytest.mark.parametrize(
    "spec",
    [
        InputSpec((3, 224, 224), crop_pct=0.875),
        InputSpec((3, 224, 224), crop_pct=0.9, interpolation="bilinear"),
        InputSpec((3, 32, 32), crop_mode="squash", interpolation="bilinear"),
        InputSpec((3, 96, 96), crop_pct=0.95, crop_mode="squash"),
        InputSpec((3, 96, 128), crop_pct=0.9),
    ],
    ids=lambda spec: f"{spec.size[1]}x{spec.size[2]} {spec.crop_mode} {spec.crop_pct}" if hasattr(spec, "size") else "",
)
def test_pixels_equal_timms(size: tuple[int, int], spec: InputSpec, paint):
    """A source was tested on timm's pixels; ours are the same, to the bit."""
    create_transform = pytest.importorskip("timm.data").create_transform
    theirs = create_transform(
        spec.size,
        interpolation=spec.interpolation,
        crop_pct=spec.crop_pct,
        crop_mode=spec.crop_mode,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    image = paint(0, size)
    assert np.array_equal(Transform(spec)(image), np.rint(theirs(image).numpy() * 255))


def test_small_digits_grow():
    from regraft.data import read

    data = read("digits")
    large = Transform(InputSpec((3, 32, 32), crop_mode="squash", interpolation="bilinear"))(data.open(0))
    assert large.shape == (3, 32, 32)
    assert np.array_equal(large[0], large[2])
    assert np.abs(large[0].reshape(8, 4, 8, 4).mean((1, 3)) - np.asarray(data.open(0))).mean() < 25


def test_drafted_jpegs_hardly_differ():
    y, x = np.mgrid[:900, :1200]
    waves = np.stack([127 + 120 * np.sin(x / 60 + c) * np.cos(y / 50) for c in range(3)], -1)
    photo, whole = (_encoded(Image.fromarray(waves.astype(np.uint8)), "JPEG") for _ in range(2))
    whole.load()  # too late for a draft
    spec = InputSpec((3, 128, 128), crop_pct=0.875)
    small, full = Transform(spec)(photo).astype(int), Transform(spec)(whole).astype(int)
    assert (photo.size, whole.size) == ((600, 450), (1200, 900))
    assert np.abs(small - full).mean() < 1


def test_views_are_fixed_by_key_and_number(paint):
    image = paint(0, (60, 40))
    views = [Transform(RGB, view=v)(image, key) for v in (0, 1, 2) for key in ("a", "b")]
    again = [Transform(RGB, view=v)(image, key) for v in (0, 1, 2) for key in ("a", "b")]
    assert all(np.array_equal(*pair) for pair in zip(views, again, strict=True))
    assert np.array_equal(views[0], views[1])  # the plain view does not depend on the key
    assert len({view.tobytes() for view in views}) == 5


def test_views_show_at_least_half_and_sometimes_flip():
    x = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    ramps = [Transform(RGB, view=v)(Image.fromarray(x), "k")[0].astype(int) for v in range(1, 40)]
    rises = [int(r[8, -1] - r[8, 0]) for r in ramps]
    assert 8 < sum(rise < 0 for rise in rises) < 32
    assert min(abs(rise) for rise in rises) > 60  # of 255: half of it in the picture, at the least contrast


def test_views_change_colours_a_little(paint):
    grey = _flat("RGB", (120, 120, 120))
    means = [Transform(RGB, view=v)(grey, "k").mean() for v in range(20)]
    assert means[0] == 120 and len(set(means)) > 10
    assert all(120 * 0.75 < mean < 120 * 1.3 for mean in means)


def test_the_digest_names_everything_the_input_depends_on():
    base = Transform(RGB)
    others = [
        Transform(RGB, view=1),
        Transform(GREY),
        Transform(replace(RGB, crop_pct=0.9)),
        Transform(replace(RGB, mean=(0.0, 0.0, 0.0))),
        Transform(replace(RGB, interpolation="bicubic")),
        Transform(replace(RGB, crop_mode="squash")),
    ]
    assert base.digest == Transform(replace(RGB)).digest
    assert len({t.digest for t in (base, *others)}) == 7


def test_arrays_are_writable(paint):
    for mode in ("RGB", "L"):
        for spec in (RGB, GREY):
            assert Transform(spec)(paint(0, (16, 16), mode)).flags.writeable


def test_a_network_that_wants_blue_first_gets_it():
    blue_first = replace(RGB, channel_order="BGR")
    assert Transform(blue_first)(_flat("RGB", (200, 100, 50))).mean((1, 2)).tolist() == [50, 100, 200]
    assert Transform(blue_first).digest != Transform(RGB).digest
