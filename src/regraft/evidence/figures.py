"""Pictures of the report as SVG that takes its colours from the page, so that light and dark both fit.

Figures are drawn in stand-in colours that are replaced by CSS variables; text stays text; the same numbers
give the same bytes.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, LINE, PAGE = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
SERIES = ("#0a0b05", "#0a0b06", "#0a0b07", "#0a0b08", "#0a0b09")
MARKERS = ("o", "s", "^", "D", "v")
_CSS = {INK: "--ink", MUTED: "--muted", LINE: "--line", PAGE: "--surface"} | {
    colour: f"--series-{i}" for i, colour in enumerate(SERIES, start=1)
}
_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.parse_math": False,  # a class called "$5$" is a name, not a formula
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
    "legend.frameon": False,
    "figure.facecolor": "none",
}
Plot = Callable[[Axes, bool], None]  # draws into axes; told whether they are for a telephone
WIDE, NARROW = 7.6, 3.7  # inches at 72 points: the page's column, and a telephone's


@dataclass(frozen=True)
class Picture:
    """One figure in two widths; the page shows whichever fits.

    Args:
        name: unique on the page; prefixes every id inside.
        alt: what the picture shows, for those who do not see it.
        wide: SVG element for screens.
        narrow: SVG element for telephones.
    """

    name: str
    alt: str
    wide: str
    narrow: str


def draw(name: str, alt: str, plot: Plot, height: float, narrow_height: float = 0) -> Picture:
    """Draw one figure in both widths.

    Args:
        name: unique on the page.
        alt: text alternative, one or two sentences.
        plot: draws into the axes it is given; told whether they are for a telephone.
        height: inches at full width.
        narrow_height: inches at telephone width; like `height` if 0.
    """
    wide = _svg(name, alt, plot, (WIDE, height))
    return Picture(name, alt, wide, _svg(f"{name}-s", alt, plot, (NARROW, narrow_height or height)))


def _svg(name: str, alt: str, plot: Plot, size: tuple[float, float]) -> str:
    buffer = io.StringIO()
    style: dict[Any, Any] = _STYLE | {"svg.hashsalt": name}
    with mpl.rc_context(style), warnings.catch_warnings():
        # Glyphs are drawn by the reader's own fonts; the one used for measuring need not have them.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained")
        plot(figure.add_subplot(), size[0] == NARROW)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    return _for_page(buffer.getvalue(), name, alt)


def _for_page(svg: str, name: str, alt: str) -> str:
    """Only the element; ids unique on the page; colours from CSS; named for screen readers."""
    body = svg[svg.index("<svg") :]
    box = re.search(r'viewBox="([^"]+)"', body)
    assert box is not None
    body = re.sub(r'\bid="', f'id="{name}-', body[body.index(">") + 1 :])
    body = re.sub(r'(url\(#|href="#)', rf"\1{name}-", body)
    for colour, variable in _CSS.items():
        body = body.replace(colour, f"var({variable})")
    body = re.sub(r"[ \t]+$", "", body, flags=re.MULTILINE)
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{_attribute(alt)}" focusable="false">{body.strip()}'


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def is_joined(row: dict[str, Any]) -> bool:
    """Whether a probe looked at several stages at once."""
    return " + " in row["stage"]


def reached(row: dict[str, Any]) -> float:
    """What a probe is compared by: its score, else its accuracy on validation, else in cross-validation."""
    values = (row.get(key) for key in ("score", "val_accuracy", "cv_accuracy"))
    return next((value for value in values if value is not None and value == value), 0.0)  # NaN is not itself


def best_per_stage(rows: Sequence[dict[str, Any]], head: str | None = None) -> dict[str, dict[str, Any]]:
    """The best probe of every stage in depth order, all joined stages together as the last one, "joined"."""
    best: dict[str, dict[str, Any]] = {}
    for row in [r for r in rows if head in (None, r["head"])]:
        place = "joined" if is_joined(row) else row["stage"]
        if place not in best or reached(row) > reached(best[place]):
            best[place] = row
    if "joined" in best:
        best["joined"] = best.pop("joined")
    return best


def depth_profile(rows: Sequence[dict[str, Any]], right: str = "right") -> Picture:
    """Accuracy of the best probe of every head, over depth; error bars are one standard error."""
    places = list(best_per_stage(rows))
    chosen = next((r for r in rows if r.get("chosen")), max(rows, key=reached))
    alt = (
        f"Accuracy of probes at {len(places)} depths. The chosen one, {chosen['head']} on "
        f"{chosen['stage']}, reaches {100 * reached(chosen):.1f} %."
    )

    def plot(axes: Axes, narrow: bool) -> None:
        heads = list(dict.fromkeys(row["head"] for row in rows))
        for i, head in enumerate(heads):
            _profile_of_head(axes, best_per_stage(rows, head), places, i, len(heads), head)
        place = "joined" if is_joined(chosen) else chosen["stage"]
        x = places.index(place) + _offset(heads.index(chosen["head"]), len(heads))
        y = 100 * reached(chosen)
        axes.plot([x], [y], "o", ms=15, mfc="none", mec=INK, mew=1.4, label="chosen")
        labels = [_shortened(place) for place in places]
        turned = {"rotation": 60 if narrow else 40, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(len(places)), labels, **turned)
        axes.set_ylabel(f"{right}, %")
        finish(axes, columns=2 if narrow else 4)

    return draw("profile", alt, plot, 4.1, 4.4)


def _shortened(name: str, most: int = 20) -> str:
    """A long name without its middle, so that labels leave room for the picture."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-most // 2 :]}"


def _offset(i: int, n: int) -> float:
    """Heads stand side by side, so that their error bars do not cover one another."""
    return 0.14 * (i - (n - 1) / 2)


def _profile_of_head(axes: Axes, best: dict[str, dict[str, Any]], places: list[str], i: int, n: int, head: str) -> None:
    shown = [place for place in places if place in best]
    x = [places.index(place) + _offset(i, n) for place in shown]
    y = [100 * reached(best[place]) for place in shown]
    errors = [100 * (best[place].get("se") or 0.0) for place in shown]
    colour = SERIES[i % len(SERIES)]
    # Lines join neighbours only: joined stages have no depth, and not every head is tried everywhere.
    depth = [100 * reached(best[p]) if p in best and p != "joined" else float("nan") for p in places]
    axes.plot([j + _offset(i, n) for j in range(len(places))], depth, color=colour, lw=1.6)
    axes.errorbar(x, y, yerr=errors, fmt=MARKERS[i % len(MARKERS)], color=colour, ms=5.5, elinewidth=1.1, label=head)


def in_words(row: dict[str, Any]) -> str:
    """What a model is, for people; its name where nothing more is said."""
    return row.get("what") or row["name"]


def controls(rows: Sequence[dict[str, Any]]) -> Picture:
    """Test accuracy of the delivered model and of every control, with 95 % intervals.

    Args:
        rows: {name, what?, accuracy, ci95?}; the first is the delivered model.
    """
    alt = "Test accuracy: " + ", ".join(f"{in_words(row)} {100 * row['accuracy']:.1f} %" for row in rows) + "."

    def plot(axes: Axes, narrow: bool) -> None:
        for i, row in enumerate(rows):
            _bar(axes, i, row)
        axes.set_xlim(min(0.0, *(100 * (row.get("ci95") or [row["accuracy"]])[0] for row in rows)), 100)
        axes.set_ylim(len(rows) - 0.6, -0.75)
        finish_rows(axes)

    height = 0.4 + 0.55 * len(rows)
    return draw("controls", alt, plot, height, height)


def _bar(axes: Axes, i: int, row: dict[str, Any]) -> None:
    """The name stands above its bar: long names then cost no width, on a telephone too."""
    value = 100 * row["accuracy"]
    axes.barh(i, value, height=0.4, color=SERIES[0] if i == 0 else MUTED, alpha=1 if i == 0 else 0.45)
    low, high = (100 * end for end in row.get("ci95") or (row["accuracy"], row["accuracy"]))
    if row.get("ci95"):
        axes.plot([low, high], [i, i], color=INK, lw=1.4, solid_capstyle="butt")
    weight = "bold" if i == 0 else "normal"
    # A long name may stand beyond the axes, where there is room; it must not squeeze them.
    axes.text(0, i - 0.27, in_words(row), va="bottom", color=INK, fontweight=weight).set_in_layout(False)
    inside = low > 30  # a short bar has its number beside it
    colour = PAGE if inside and i == 0 else INK
    x = 1.5 if inside else max(0.0, high) + 1.5
    axes.text(x, i + 0.01, f"{value:.1f} %", va="center", color=colour, fontweight="bold")


def training_curves(rows: Sequence[dict[str, Any]], right: str = "right") -> Picture:
    """Validation accuracy over updates, one line a run."""
    runs = list(dict.fromkeys(row.get("run", "") for row in rows))
    last = [f"{run or 'training'} ends at {100 * _last(rows, run):.1f} %" for run in runs]

    def plot(axes: Axes, narrow: bool) -> None:
        for i, run in enumerate(runs):
            shown = [r for r in rows if r.get("run", "") == run and r["val_accuracy"] is not None]
            x, y = [r["updates"] for r in shown], [100 * r["val_accuracy"] for r in shown]
            marker = MARKERS[i % len(MARKERS)]
            axes.plot(
                x,
                y,
                marker=marker,
                ms=3.5,
                lw=1.6,
                color=SERIES[i % len(SERIES)],
                label=textwrap.fill(run, 30 if narrow else 80) or None,
            )
        axes.set_xlabel("updates")
        axes.set_ylabel(f"{right} on validation, %")
        finish(axes, columns=1)

    wide, narrow = (3.0 + 0.22 * sum(1 + len(run) // most for run in runs) for most in (80, 30))  # names take lines
    return draw("curves", f"Validation accuracy over updates: {'; '.join(last)}.", plot, wide, narrow)


def _last(rows: Sequence[dict[str, Any]], run: str) -> float:
    values = [r["val_accuracy"] for r in rows if r.get("run", "") == run and r["val_accuracy"] is not None]
    return values[-1] if values else 0.0


def finish_rows(axes: Axes) -> None:
    """For rows that stand below one another, each with its name above it: no ordinate, and lines to read values by."""
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(axis="x", length=0, labelcolor=MUTED)
    axes.grid(axis="x", lw=0.6)


def finish(axes: Axes, columns: int) -> None:
    """Grid, margins, and a legend above the axes that names each thing once."""
    axes.grid(axis="y", lw=0.6)
    axes.margins(x=0.03, y=0.08)
    entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if entries:
        ring = {"chosen": entries.pop("chosen")} if "chosen" in entries else {}
        entries |= ring  # after the heads, which it explains
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
        axes.legend(list(entries.values()), list(entries), ncols=columns, **place)
