"""Pictures of what was compared: accuracy over updates and over labels, and every difference with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from regraft.evidence.figures import INK, LINE, MARKERS, SERIES, Picture, draw, finish, finish_rows

ARMS = ("transfer", "fresh weights", "scratch", "scratch, same updates")
WORDS = {
    "transfer": "pretrained weights",
    "fresh weights": "same procedure, random weights",
    "scratch": "from scratch",
    "scratch, same updates": "from scratch, as many updates",
}


def over_updates(runs: Sequence[dict[str, Any]], n_train: int, right: str = "right") -> Picture | None:
    """Test accuracy over updates, one line a run; None where nothing was trained by gradient.

    Args:
        runs: raw runs of evidence.json.
        n_train: of those that are shown.
        right: what the figures are fractions of.
    """
    shown = [run for run in runs if run["n_train"] == n_train]
    upto = max((run["points"][-1]["updates"] for run in shown), default=0)
    if not upto:
        return None

    def plot(axes: Axes, narrow: bool) -> None:
        for run in shown:
            i = ARMS.index(run["arm"])
            x = [point["updates"] for point in run["points"]]
            y = [100 * point["accuracy"] for point in run["points"]]
            kept = 100 * run["points"][run["kept"]]["accuracy"]
            axes.plot([*x, upto], [*y, kept], lw=1.6, color=SERIES[i], label=WORDS[run["arm"]])
            axes.plot(x[:1], y[:1], MARKERS[i], ms=5, color=SERIES[i])
        axes.set_xlabel("updates")
        axes.set_ylabel(f"{right} on test, %")
        finish(axes, columns=1 if narrow else 2)

    ends = {WORDS[run["arm"]]: run["points"][run["kept"]]["accuracy"] for run in shown}
    told = "; ".join(f"{words} {100 * value:.1f} %" for words, value in ends.items())
    alt = f"Test accuracy over updates of every run. They end at: {told}."
    return draw("test-curves", alt, plot, 3.4, 3.8)


def over_labels(curves: Mapping[str, dict[str, Any]], right: str = "right") -> Picture:
    """Test accuracy over the number of labelled examples, with 95 % intervals."""
    told = "; ".join(
        f"{WORDS[name]} from {100 * c['accuracy'][0]:.1f} % at {c['n_train'][0]} to {100 * c['accuracy'][-1]:.1f} % "
        f"at {c['n_train'][-1]} labels"
        for name, c in curves.items()
    )

    def plot(axes: Axes, narrow: bool) -> None:
        for name, curve in curves.items():
            i = ARMS.index(name)
            n, (low, high) = curve["n_train"], 100 * np.array(curve["ci95"]).T
            axes.fill_between(n, low, high, color=SERIES[i], alpha=0.15, lw=0)
            style = {"marker": MARKERS[i], "ms": 5, "lw": 1.6, "color": SERIES[i]}
            axes.plot(n, [100 * a for a in curve["accuracy"]], label=WORDS[name], **style)
        axes.set_xscale("log")
        sizes = sorted({n for curve in curves.values() for n in curve["n_train"]})
        axes.xaxis.set_major_locator(FixedLocator(sizes))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([str(n) for n in sizes])
        axes.set_xlabel("labelled examples")
        axes.set_ylabel(f"{right} on test, %")
        finish(axes, columns=1 if narrow else 2)

    return draw("label-curves", f"Test accuracy over labelled examples: {told}.", plot, 3.6, 4.0)


def differences(benefits: Mapping[str, dict[str, Any]]) -> Picture:
    """Start, slope and asymptote: the difference to every control, with its 95 % interval."""
    rows = [(name, arm, found) for name, b in benefits.items() for arm, found in b["against"].items()]
    told = "; ".join(f"{name} against {WORDS[arm]} {100 * f['difference']:+z.1f} points" for name, arm, f in rows)

    def plot(axes: Axes, narrow: bool) -> None:
        for i, (name, arm, found) in enumerate(rows):
            low, high = (100 * end for end in found["ci95"])
            colour = SERIES[ARMS.index(arm)]
            axes.plot([low, high], [i, i], color=colour, lw=2, solid_capstyle="butt")
            axes.plot([100 * found["difference"]], [i], "o", ms=6, color=colour)
            words = arm if narrow else WORDS[arm]
            name_of_row = axes.text(0, i - 0.22, f"{name}, against {words}", va="bottom", color=INK, fontsize=10)
            name_of_row.set_in_layout(False)
        axes.axvline(0, color=LINE, lw=1.2)
        ends = [100 * end for _, _, found in rows for end in found["ci95"]]
        axes.set_xlim(min(-2.0, *ends), max(40.0, *ends))  # room for the names
        axes.set_ylim(len(rows) - 0.5, -0.9)
        finish_rows(axes)
        axes.set_xlabel("points that transfer gives")

    height = 0.7 + 0.5 * len(rows)
    return draw("differences", f"What transfer gives: {told}.", plot, height, height)


def reliability(bins: Sequence[dict[str, Any]]) -> Picture:
    """How often the model is right where it states a probability, against that probability.

    Args:
        bins: of `trust.reliability`: {confidence, accuracy, n, ci95}, empty ones left out.
    """
    told = ", ".join(f"{100 * b['accuracy']:.0f} % right at {100 * b['confidence']:.0f} % (N = {b['n']})" for b in bins)

    def plot(axes: Axes, narrow: bool) -> None:
        axes.plot([0, 100], [0, 100], color=LINE, lw=1.2, label="perfectly calibrated")
        for b in bins:
            x, (low, high) = 100 * b["confidence"], (100 * end for end in b["ci95"])
            axes.plot([x, x], [low, high], color=SERIES[0], lw=1.4)
            axes.plot([x], [100 * b["accuracy"]], "o", ms=6, color=SERIES[0], label="this model")
        axes.set_xlabel("stated probability, %")
        axes.set_ylabel("right, %")
        finish(axes, columns=1 if narrow else 2)

    return draw("reliability", f"Reliability: {told}.", plot, 3.6, 3.6)
