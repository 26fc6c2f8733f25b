"""Reports as a terminal shows them, and their figures in a picture."""

import pytest

from gindex.errors import ConfigError
from gindex.lab.page import report_page
from gindex.lab.plots import LIGHT, NAMES, check_picture, draw_intervals, save_picture, svg
from gindex.lab.report import Figure, Report, Section, Table, spread
from gindex.statistics import Interval

VALUES = {"one": Interval(mean=0.5, low=0.25, high=0.75), "another": Interval(mean=-0.001, low=-0.1, high=0.1)}
FIGURE = Figure(label="<Values>", fill=lambda axes: draw_intervals(axes, VALUES, "value"), caption="", height=2)


def test_text_has_findings_and_tables_in_columns():
    table = Table(header=("name", "value"), rows=tuple((name, spread(value)) for name, value in VALUES.items()))
    report = Report(
        name="x",
        title="X?",
        findings=("First.", "Second."),
        sections=(Section(title="S", tables=(table,)),),
        caveats=(),
    )
    assert report.text().split("\n") == [
        "First.",
        "Second.",
        "",
        "name     value",
        "one      0.50 [0.25, 0.75]",
        "another  0.00 [-0.10, 0.10]",
    ]


def test_a_figure_takes_the_pages_colours_and_a_picture_the_light_ones(tmp_path):
    inline = svg(FIGURE)
    assert 'aria-label="&lt;Values&gt;"' in inline and "var(--one)" in inline and "var(--faint)" in inline
    save_picture([FIGURE, FIGURE], tmp_path / "both.svg")
    picture = (tmp_path / "both.svg").read_text()
    assert LIGHT["one"] in picture and LIGHT["paper"] in picture and "var(" not in picture
    assert set(NAMES) <= set(LIGHT)
    assert svg(FIGURE) == inline, "drawn in the page's colours again after a picture"


def test_a_picture_of_another_format_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"plot: expected a file ending in \.pdf, \.png, \.svg, found .*gif"):
        check_picture(tmp_path / "picture.gif")


def test_settings_on_the_page_are_words():
    settings = {"parts": None, "methods": ("index", "bm25"), "seed": 0}
    page = report_page(Report(name="x", title="X?", findings=(), sections=(), caveats=(), settings=settings))
    assert "Settings: parts all, methods index and bm25, seed 0." in page
