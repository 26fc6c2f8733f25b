"""Figures of reports, drawn by matplotlib: inline in a page as SVG, in the page's colours, or into a picture file.

matplotlib knows no CSS. Artists are given named colours. In a page these are stand-ins, which become the page's
variables in the finished SVG, so that a drawing is light or dark with its page; in a picture they are the page's light
colours.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

from gindex.distribution import install_hint
from gindex.errors import ConfigError, MissingDependencyError
from gindex.lab.report import Figure
from gindex.page import PALETTE
from gindex.statistics import Interval

NAMES = ("ink", "faint", "line", "paper", "one", "two", "three", "four")
"""The page's colours, as its variables call them."""

INK, FAINT, LINE, PAPER, *SERIES = (f"gindex:{name}" for name in NAMES)
"""The same as matplotlib is told of them; `SERIES` are those of curves."""

STAND_INS = {name: f"#0102{number:02}" for number, name in enumerate(NAMES)}

LIGHT = dict(re.findall(r"--(\w+): (#\w+)", PALETTE.partition("@media")[0]))

FORMATS = (".pdf", ".png", ".svg")

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


def check_matplotlib() -> None:
    """Check, before any work, that figures can be drawn.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            field="figures",
            expected="matplotlib to be installed",
            found=f"none ({error})",
            remedy=install_hint("plots"),
        ) from error


def check_picture(path: Path) -> None:
    """Check, before any work, that a picture can be written.

    Raises:
        ConfigError: The format is unknown, or there is no such folder.
        MissingDependencyError: matplotlib is not installed.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(field="plot", expected=f"a file ending in {', '.join(FORMATS)}", found=path)
    if not path.absolute().parent.is_dir():
        raise ConfigError(field="plot", expected="an existing folder", found=f"none at {path.parent}")
    check_matplotlib()


def svg(figure: Figure) -> str:
    """A figure as inline SVG. Text keeps its size, so that a narrow drawing is read on a telephone."""
    from matplotlib import figure as drawing

    with _colours(STAND_INS):
        whole = drawing.Figure(figsize=(figure.width, figure.height), layout="constrained")
        figure.fill(whole.add_subplot())
        written = io.StringIO()
        none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        whole.savefig(written, format="svg", transparent=True, metadata=none)
    return _inline(written.getvalue(), figure.label, figure.width)


def save_picture(figures: Sequence[Figure], path: Path) -> None:
    """Write figures side by side into one picture; its name says the format."""
    from matplotlib import figure as drawing

    with _colours(LIGHT):
        size = sum(figure.width for figure in figures), max(figure.height for figure in figures)
        whole = drawing.Figure(figsize=size, layout="constrained")
        for axes, figure in zip(whole.subplots(1, len(figures), squeeze=False)[0], figures, strict=True):
            figure.fill(axes)
            axes.set_title(figure.label, wrap=True)
        whole.savefig(path, dpi=150, facecolor=PAPER)


def suited_scale(values: Sequence[float]) -> str:
    """The scale for positive values: logarithmic where they span more than a decade."""
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


def curve_style(number: int) -> dict[str, str]:
    """Colour and dashes of one of many curves: the colours come again with other dashes."""
    dashes = ("-", "--", "-.", ":")
    return {"color": SERIES[number % len(SERIES)], "linestyle": dashes[number // len(SERIES) % len(dashes)]}


def draw_intervals(axes: Any, values: Mapping[str, Interval], label: str) -> None:
    """Fill axes with means and their intervals, one line for each name, the first on top."""
    for y, interval in enumerate(values.values()):
        axes.plot([interval.low, interval.high], [y, y], color=SERIES[0], linewidth=1.2)
        axes.plot(interval.mean, y, "o", color=SERIES[0], markersize=5)
    axes.axvline(0, color=LINE, linewidth=1)
    axes.set(xlabel=label, ylim=(len(values) - 0.5, -0.5))
    axes.set_yticks(range(len(values)), list(values))
    axes.grid(False, axis="y")


def draw_detection(axes: Any, inspected: Sequence[float], curves: Mapping[str, Sequence[float]], what: str) -> None:
    """Fill axes with the share of what is looked for among the documents that are looked at first."""
    for number, (name, curve) in enumerate(curves.items()):
        axes.plot(inspected, curve, label=name, **curve_style(number))
    axes.plot([0, 1], [0, 1], "--", color=FAINT, label="by chance")
    axes.set(xlabel="share of documents inspected", ylabel=f"share of {what} found", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="lower right")


@contextmanager
def _colours(values: Mapping[str, str]) -> Iterator[None]:
    """Draw within the block in the common style, with these colours by name."""
    import matplotlib
    from matplotlib.colors import get_named_colors_mapping

    known = get_named_colors_mapping()
    for name, value in values.items():
        known[f"gindex:{name}"] = value
    with matplotlib.rc_context(SETTINGS):
        yield


def _inline(written: str, label: str, width: float) -> str:
    """An SVG file as an element of a page: no header, the page's colours and fonts."""
    written = re.sub(r"<metadata>.*?</metadata>", "", written[written.index("<svg") :], flags=re.DOTALL)
    for name, stand_in in STAND_INS.items():
        written = written.replace(stand_in, f"var(--{name})")
    written = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", written)
    written = re.sub(r' (width|height)="[\d.]+pt"', "", written, count=2)
    written = re.sub(r' xmlns(:xlink)?="[^"]*"', "", written).replace("xlink:href", "href")
    style = f"max-width: {REM_AN_INCH * width:.0f}rem"  # text of equal size on every wide screen
    return written.replace("<svg", f'<svg role="img" aria-label="{escape(label)}" style="{style}"', 1).strip()
