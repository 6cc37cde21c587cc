"""Evidence: what a run measured, said with intervals, and shown on one page.

Comes in: right-or-wrong answers on the test split, and the files of a run folder.
Goes out: intervals, a verdict against a control, `report.html` and `report.md`.
Law: the same run folder gives the same report, byte for byte; every figure says which split and how many
examples.
"""

from regraft.evidence.arms import Case
from regraft.evidence.conclude import Control
from regraft.evidence.controls import expected_seconds, measure
from regraft.evidence.predictions import (
    Answer,
    answers,
    confident_mistakes,
    read_answers,
    save_examples,
    write_answers,
)
from regraft.evidence.report import render
from regraft.evidence.runs import RawRun, RunStore
from regraft.evidence.stats import (
    Verdict,
    mcnemar,
    paired_bootstrap,
    verdict,
    verdict_against_best,
    wilson,
)
from regraft.evidence.trust import (
    ClassFigures,
    calibration_error,
    confusion,
    per_class,
    suspected_labels,
)

__all__ = [
    "Answer",
    "Case",
    "ClassFigures",
    "Control",
    "RawRun",
    "RunStore",
    "Verdict",
    "answers",
    "calibration_error",
    "confident_mistakes",
    "confusion",
    "expected_seconds",
    "mcnemar",
    "measure",
    "paired_bootstrap",
    "per_class",
    "read_answers",
    "render",
    "save_examples",
    "suspected_labels",
    "verdict",
    "verdict_against_best",
    "wilson",
    "write_answers",
]
