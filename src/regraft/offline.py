"""Whether the network may be used."""

from __future__ import annotations

import os


def is_offline() -> bool:
    """Whether $REGRAFT_OFFLINE forbids the network."""
    return os.environ.get("REGRAFT_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")
