"""What do cached features hold? Linear heads on every stage of a source, and the depth profile they draw.

In: pooled features of labelled examples, one array per tap. Out: fitted heads, each with an honest score.
Law: every head agrees with a reference solver, and its held-out scores with fitting again without the row.
"""

from regraft.probe.fitted import Fitted
from regraft.probe.lda import lda
from regraft.probe.logistic import logistic
from regraft.probe.ridge import ridge
from regraft.probe.rows import RowSpace, row_space

__all__ = ["Fitted", "RowSpace", "lda", "logistic", "ridge", "row_space"]
