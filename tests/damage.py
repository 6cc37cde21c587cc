"""Files as disks, networks and attackers leave them."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

_HUGE = (b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\0" * 7 + b"\x80")  # -1, 2^63 - 1 and 2^63, in one byte order or other
_VALUES = [2**63, -1, 0, 2**31, 1e300, "", None, [], "x", {}, [2**40, 2**40], "../../../etc/passwd", "os:system", True]


def mutations(whole: bytes, n: int, seed: int = 0) -> Iterator[bytes]:
    """Damaged copies of a file: cut short, bits flipped, lengths of 2^63, pieces doubled; always the same ones."""
    draw = random.Random(seed)
    ways = (_cut, _flipped, _lengthened, _doubled)
    for i in range(n):
        at = draw.randrange(len(whole))
        yield ways[i % 4](whole, at, draw)


def damaged(name: str, whole: bytes, draw: random.Random) -> bytes:
    """A damaged copy of a file; half of the time it is damaged inside its container, so that readers get far.

    Args:
        name: of the file; its ending says what is inside.
        whole: the content.
        draw: decides.
    """
    inside = next((change for ending, change in _INSIDE.items() if name.endswith(ending)), None)
    if inside and draw.random() < 0.5:
        return inside(whole, draw)
    way = draw.choice((_cut, _flipped, _lengthened, _doubled, _blank, _not_numbers))
    most = draw.choice((len(whole), min(len(whole), 4096)))  # most formats begin with what says how to read the rest
    return way(whole, draw.randrange(max(1, most)), draw)


def bent(value: Any, draw: random.Random) -> Any:
    """A copy of plain values in which one thing is another."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    if not keys:
        return draw.choice(_VALUES)
    key, copy = draw.choice(list(keys)), value.copy()
    copy[key] = draw.choice(_VALUES) if draw.random() < 0.1 else bent(value[key], draw)
    return copy


def _cut(whole: bytes, at: int, draw: random.Random) -> bytes:
    return whole[:at]


def _flipped(whole: bytes, at: int, draw: random.Random) -> bytes:
    data = bytearray(whole)
    for place in (draw.randrange(len(data)) for _ in range(draw.choice((1, 8, 64)))):
        data[place] ^= 1 << draw.randrange(8)
    return bytes(data)


def _lengthened(whole: bytes, at: int, draw: random.Random) -> bytes:
    return whole[:at] + draw.choice(_HUGE) + whole[at + 8 :]


def _doubled(whole: bytes, at: int, draw: random.Random) -> bytes:
    return whole[:at] + whole[at : at + draw.randrange(1, 64)] + whole[at:]


def _blank(whole: bytes, at: int, draw: random.Random) -> bytes:
    length = draw.choice((16, 256, 4096))
    return whole[:at] + b"\0" * len(whole[at : at + length]) + whole[at + length :]


def _not_numbers(whole: bytes, at: int, draw: random.Random) -> bytes:
    values = draw.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f")) * draw.choice((1, 16))  # NaN, infinity
    return whole[:at] + values + whole[at + len(values) :]


def _bent_json(whole: bytes, draw: random.Random) -> bytes:
    return json.dumps(bent(json.loads(whole), draw)).encode()


def _bent_header(whole: bytes, draw: random.Random) -> bytes:
    """Of safetensors: a length, JSON of that length, values."""
    length = int.from_bytes(whole[:8], "little")
    header = _bent_json(whole[8 : 8 + length], draw)
    return len(header).to_bytes(8, "little") + header + whole[8 + length :]


def _bent_text(whole: bytes, draw: random.Random) -> bytes:
    """One number or name of a text is another."""
    words = list(re.finditer(rb"[\w.-]+", whole))
    word = draw.choice(words)
    other = draw.choice((b"-1", b"0", b"9223372036854775808", b"4000000000", b"1e300", b"nan", b"x", b"../../x", b"{"))
    return whole[: word.start()] + other + whole[word.end() :]


def _in_zip(whole: bytes, draw: random.Random) -> bytes:
    """One member is damaged, the archive around it is sound."""
    new = io.BytesIO()
    if not zipfile.is_zipfile(io.BytesIO(whole)):  # a bare pickle has the same ending
        return _flipped(whole, 0, draw)
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(new, "w") as archive:
        entries = old.infolist()
        chosen = draw.choice(entries)
        for entry in entries:
            content = old.read(entry)
            if entry is chosen and content:
                content = damaged(entry.filename, content, draw)
            archive.writestr(zipfile.ZipInfo(entry.filename), content, entry.compress_type)
    return new.getvalue()


def _in_gzip(whole: bytes, draw: random.Random) -> bytes:
    return gzip.compress(damaged("inside", gzip.decompress(whole), draw), mtime=0)


_INSIDE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": _bent_json,
    ".safetensors": _bent_header,
    ".pt": _in_zip,
    ".pt2": _in_zip,
    ".zip": _in_zip,
    ".keras": _in_zip,
    ".gz": _in_gzip,
    ".prototxt": _bent_text,
    ".txt": _bent_text,
    ".py": _bent_text,
    ".vec": _bent_text,
    "checkpoint": _bent_text,
}
