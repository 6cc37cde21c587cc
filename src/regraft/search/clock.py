"""How long a run has taken and may take."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """How long a run has taken and may take.

    Args:
        started: `time.monotonic()` at its beginning.
        limit: seconds; None leaves it to the search.
        share: of the limit that is left to the search; the rest is for controls, the model and the report.
    """

    started: float
    limit: float | None = None
    share: float = 1.0

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self.started

    @property
    def left(self) -> float | None:
        """Seconds that the search may still take; None without a limit."""
        return None if self.limit is None else max(0.0, self.share * self.limit - self.spent)
