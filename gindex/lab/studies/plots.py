"""Drawings for the pages of studies: matplotlib's SVG, put inline, in the colours of the page.

matplotlib knows no CSS. Artists are given stand-in colours, which become the page's variables in the finished SVG, so
that a drawing is light or dark with its page.
"""

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from gindex.distribution import install_hint
from gindex.errors import MissingDependencyError

INK, FAINT, LINE, PAPER = "#010203", "#010204", "#010205", "#010206"
SERIES = ("#020201", "#020202", "#020203", "#020204")
"""Stand-ins for the colours of curves."""

VARIABLES = {INK: "ink", FAINT: "faint", LINE: "line", PAPER: "paper"} | dict(
    zip(SERIES, ("one", "two", "three", "four"), strict=True)
)

REM_AN_INCH = 7.5
"""Widest that an inch of a drawing is shown."""

SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gindex",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.edgecolor": LINE,
    "axes.labelcolor": FAINT,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "text.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "grid.alpha": 0.6,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
}


def check_plots() -> None:
    """Check, before any work, that drawings can be made.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            field="study", expected="matplotlib to be installed", found=f"none ({error})", remedy=install_hint("plots")
        ) from error


def draw(label: str, fill: Callable[[Any], None], *, width: float = 5.2, height: float = 3.2) -> str:
    """Return a drawing of one set of axes as inline SVG.

    Args:
        label: What it shows, for those who cannot see it.
        fill: Draws into the axes.
        width: Inches; text keeps 11 points, so that a narrow drawing is read on a telephone.
        height: Inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        fill(figure.add_subplot())
        written = io.StringIO()
        none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=none)
    return _inline(written.getvalue(), label, width)


def suited_scale(values: Sequence[float]) -> str:
    """Return the scale for positive values: logarithmic where they span more than a decade."""
    return "log" if min(values) > 0 and max(values) > 10 * min(values) else "linear"


def shade(axes: Any, values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], form: str) -> None:
    """Fill axes with a table whose cells are the darker, the larger their value, which stands in each.

    Args:
        axes: The axes.
        values: One sequence for each row; NaN leaves a cell empty.
        rows: Names of the rows.
        columns: Names of the columns.
        form: How values are written, as `.0%`.
    """
    from matplotlib.patches import Rectangle

    known = [value for row in values for value in row if value == value]
    low, high = min([0.0, *known]), max([0.0, *known])
    most = max(-low, high) or 1.0
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            if value != value:
                continue
            colour = SERIES[0] if value >= 0 else SERIES[1]
            axes.add_patch(
                Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, color=colour, alpha=0.6 * abs(value) / most, lw=0)
            )
            axes.text(x, y, format(value, form), ha="center", va="center", fontsize=10)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _inline(svg: str, label: str, width: float) -> str:
    """Return an SVG file as an element of a page: no header, the page's colours and fonts."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r"#0[12]020\d", lambda match: f"var(--{VARIABLES[match[0]]})", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    style = f"max-width: {REM_AN_INCH * width:.0f}rem"  # text of equal size on every wide screen
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}" style="{style}"', 1).strip()
