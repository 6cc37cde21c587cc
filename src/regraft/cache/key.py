"""What a row of features depends on, and nothing else.

A cache is found by its key. Whatever can change a row is in the key: how pictures become pixels, the
network, the tap, the number type, the arithmetic. Whatever cannot is not: file names, order, dates, how
many rows there are.
The example itself is in the row's own name, the SHA-256 of its encoded bytes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from regraft.digest import digest_json

# Rows as float32 arithmetic gives them. PyTorch and OpenVINO on a CPU agree within `runtime.TOLERANCE`, which
# each pass checks, so they share rows: to split the cache by engine would compute everything again for
# differences in the sixth digit. bfloat16 on a GPU differs in the third digit and has a class of its own.
FLOAT32 = "float32"
BFLOAT16 = "bfloat16"


@dataclass(frozen=True, order=True)
class Tap:
    """A place where features are taken, and how.

    Args:
        cut: the name of a legal cut.
        grid: 0 keeps the full activation; G > 0 pools it on a G x G grid (see `Pool`).
    """

    cut: str
    grid: int = 0

    def __str__(self) -> str:
        return f"{self.cut} on a {self.grid}x{self.grid} grid" if self.grid else self.cut


@dataclass(frozen=True)
class CacheKey:
    """All that the rows of one cache have in common.

    Args:
        transform: digest of the way from encoded picture to pixels and normalised input, the view included.
        weights: digest of the network's tensors.
        architecture: digest of what is computed with them.
        tap: where the features are taken.
        dtype: number type of the stored rows, as NumPy names it.
        runtime: class of arithmetic, "float32" or "bfloat16"; not the engine.

    Example:
        >>> key = CacheKey("9f…", "51…", "c0…", Tap("layer3", 4), "float32", "float32")
        >>> key.differs(CacheKey("77…", "51…", "c0…", Tap("layer3", 2), "float32", "float32"))
        ['transform (77…, here 9f…)', 'tap (layer3 on a 2x2 grid, here layer3 on a 4x4 grid)']
    """

    transform: str
    weights: str
    architecture: str
    tap: Tap
    dtype: str
    runtime: str

    @property
    def digest(self) -> str:
        """The key's name: 64 hexadecimal digits."""
        return digest_json(self.to_dict())

    def differs(self, other: CacheKey) -> list[str]:
        """The parts in which another key differs, in words."""
        pairs = ((name, getattr(other, name), getattr(self, name)) for name in self.__dataclass_fields__)
        return [f"{name} ({_short(theirs)}, here {_short(ours)})" for name, theirs, ours in pairs if theirs != ours]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they go into `cache.json`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CacheKey:
        """The inverse of `to_dict`."""
        # Caches that were made before the architecture had a digest match no key, but can be listed and removed.
        return cls(**{"architecture": "", **values, "tap": Tap(**values["tap"])})


def _short(part: str | Tap) -> str:
    text = str(part)
    return text if isinstance(part, Tap) or len(text) < 20 else text[:12] + "…"
