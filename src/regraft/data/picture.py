"""Opening encoded pictures that nobody vouches for."""

from __future__ import annotations

import io
import struct

from PIL import Image

from regraft.data.bad import CUT, BadExample, broken

# Formats that photographs come in. The rest of Pillow's list is left out on purpose: some of it runs other
# programs (EPS starts Ghostscript), and none of it is a picture that a person would label.
Image.init()
FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO", "JPEG2000", "AVIF")
    if name in Image.OPEN
)
SUFFIXES = frozenset(suffix for suffix, name in Image.EXTENSION.items() if name in FORMATS)

# Pillow's own limit against decompression bombs: twice MAX_IMAGE_PIXELS.
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def open_picture(content: bytes) -> Image.Image:
    """Reads the header; pixels are decoded on use.

    Raises:
        BadExample: nothing there, too many pixels by the header, or no picture.
    """
    if not content:
        raise BadExample("empty file", "it has no bytes")
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except _TOO_LARGE as error:
        raise BadExample("too large", _claimed(content) or str(error)) from error
    except Exception as error:  # parsers of untrusted bytes raise anything: KeyError, struct.error, SyntaxError
        if _cut_in_header(content):
            raise BadExample("truncated", CUT) from error
        raise BadExample("unreadable", "it is not a picture in a known format") from error


def confirm_whole(image: Image.Image, content: bytes) -> None:
    """Raises BadExample if the end is missing; decodes only pictures whose last bytes look wrong."""
    if _ends_well(image.format, content):
        return
    try:
        image.load()
    except Exception as error:  # as above
        raise broken(error) from error


def _ends_well(format: str | None, content: bytes) -> bool:
    if format is None:  # an array, not an encoded picture
        return True
    if format in ("JPEG", "MPO"):
        return content.endswith(b"\xff\xd9")
    if format == "PNG":
        return content[-8:-4] == b"IEND"
    if format == "WEBP":
        return len(content) >= 8 + struct.unpack("<I", content[4:8])[0]
    return False  # rare formats: decode to be sure


def _cut_in_header(content: bytes) -> bool:
    """Whether a JPEG or PNG ends so early that not even its header is whole."""
    format = {b"\xff\xd8": "JPEG", b"\x89P": "PNG"}.get(content[:2])
    return format is not None and not _ends_well(format, content)


def _claimed(content: bytes) -> str:
    """Width and height that a PNG header claims, in words."""
    if not content.startswith(b"\x89PNG") or len(content) < 24:
        return ""
    width, height = struct.unpack(">II", content[16:24])
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
    return f"its header claims {width:,} x {height:,} pixels; at most {limit} million are decoded"
