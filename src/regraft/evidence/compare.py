"""Several runs on one page, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from regraft.errors import RunError
from regraft.evidence.figures import INK, MARKERS, SERIES, Picture, draw, finish_rows
from regraft.evidence.folder import Run, read_run
from regraft.evidence.measures import as_shown
from regraft.evidence.report import environment, source_name, verdict_in_words
from regraft.run import make_folder, write_atomic


def compare(run_dirs: Sequence[str | Path], into: str | Path) -> Path:
    """Write one page that compares finished runs.

    Args:
        run_dirs: two folders or more that `regraft fit --out` wrote.
        into: the file to write; its folder is made.

    Returns:
        Its path.

    Raises:
        RunError: one of them is no finished run, there is only one, or the page's folder cannot be made.
    """
    if len(run_dirs) < 2:
        raise RunError("a comparison needs two runs: regraft report runs/a runs/b. One alone: regraft report runs/a")
    rows = [_row(read_run(Path(folder))) for folder in run_dirs]
    same = len({row["test"] for row in rows}) == 1 and rows[0]["test"]
    page = {"rows": rows, "same": bool(same), "shown": _accuracies(rows)}
    into = Path(into)
    make_folder(into.parent)
    write_atomic(into, environment().get_template("compare.html.j2").render(page))
    return into


def _row(run: Run) -> dict[str, Any]:
    metrics, evidence = run.metrics, run.evidence
    return {
        "name": run.path.resolve().name,
        "data": metrics.get("data", run.data.get("name", "")),
        "source": source_name(metrics["source"]),
        "metrics": as_shown(metrics),
        "verdict": verdict_in_words(evidence),
        "difference": evidence.get("difference"),
        "ci95": evidence.get("ci95"),
        "test": frozenset(answer.key for answer in run.answers),
    }


def _accuracies(rows: Sequence[dict[str, Any]]) -> Picture:
    """Test accuracy of every run with its 95 % interval."""
    told = "; ".join(f"{row['name']} {100 * row['metrics']['test']['accuracy']:.1f} %" for row in rows)

    def plot(axes: Axes, narrow: bool) -> None:
        for i, row in enumerate(rows):
            test, colour = row["metrics"]["test"], SERIES[i % len(SERIES)]
            low, high = (100 * end for end in test.get("ci95") or [test["accuracy"]] * 2)
            axes.plot([low, high], [i, i], color=colour, lw=2)
            axes.plot([100 * test["accuracy"]], [i], MARKERS[i % len(MARKERS)], ms=7, color=colour)
            words = f"{row['name']}: {100 * test['accuracy']:.1f} %"
            axes.text(0.01, i - 0.2, words, transform=axes.get_yaxis_transform(), color=INK).set_in_layout(False)
        axes.set_ylim(len(rows) - 0.5, -0.8)
        finish_rows(axes)
        axes.set_xlabel("right on test (of other tasks: mean merit), %")

    height = 0.8 + 0.55 * len(rows)
    return draw("runs", f"Test accuracy: {told}.", plot, height, height)
