"""Files as disks and networks leave them."""

from __future__ import annotations

import random
from collections.abc import Iterator


def mutations(whole: bytes, n: int, seed: int = 0) -> Iterator[bytes]:
    """Damaged copies of a file: cut short, bits flipped, lengths of 2^63, pieces doubled; always the same ones."""
    draw = random.Random(seed)
    for i in range(n):
        data, at = bytearray(whole), draw.randrange(len(whole))
        if i % 4 == 0:
            del data[at:]
        elif i % 4 == 1:
            for place in (draw.randrange(len(data)) for _ in range(draw.choice((1, 8, 64)))):
                data[place] ^= 1 << draw.randrange(8)
        elif i % 4 == 2:
            data[at : at + 8] = draw.choice((b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\0" * 7 + b"\x80"))
        else:
            data[at:at] = data[at : at + draw.randrange(1, 64)]
        yield bytes(data)
