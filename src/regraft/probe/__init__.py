"""What do cached features hold? Linear heads on every stage of a source, and the depth profile they draw.

In: pooled features of labelled examples, one array per tap. Out: fitted heads, each with an honest score.
Law: every head agrees with a reference solver, and its held-out scores with fitting again without the row.
"""

from regraft.probe.candidates import Candidate, candidates, derived, taps_wanted
from regraft.probe.control import raw_pixels
from regraft.probe.fitted import Fitted
from regraft.probe.keep import from_plain, to_plain
from regraft.probe.lda import lda
from regraft.probe.logistic import folds, logistic
from regraft.probe.profile import DepthProfile, ProbeResult, depth_profile, probe_at, refit, select
from regraft.probe.ridge import ridge
from regraft.probe.scores import h_score, leep, logme, nce
from regraft.probe.selected import selected

__all__ = [
    "Candidate",
    "DepthProfile",
    "Fitted",
    "ProbeResult",
    "candidates",
    "depth_profile",
    "derived",
    "folds",
    "from_plain",
    "h_score",
    "lda",
    "leep",
    "logistic",
    "logme",
    "nce",
    "probe_at",
    "raw_pixels",
    "refit",
    "ridge",
    "select",
    "selected",
    "taps_wanted",
    "to_plain",
]
