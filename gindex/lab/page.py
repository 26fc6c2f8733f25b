"""The page of a report: one file, which loads nothing from elsewhere."""

from html import escape
from typing import Any

from gindex.lab.plots import check_matplotlib, svg
from gindex.lab.report import Figure, Quote, Report, Section, Source, Table
from gindex.page import html_page

STYLE = """
body { max-width: 50rem } h1 { font-size: 1.5rem; line-height: 1.3 } h2 { font-size: 1.15rem }
.findings { background: var(--soft); border-left: 4px solid var(--one); padding: .6rem 1rem .6rem 2rem; margin: 1rem 0 }
.findings li + li { margin-top: .4rem }
figure { margin: 1rem 0 } figure svg { width: 100%; height: auto; display: block }
figcaption, .note { color: var(--faint); font-size: .85rem; line-height: 1.5; text-align: left }
.table { overflow-x: auto; margin: 1rem 0 0 } .table + .note { margin-top: .4rem }
table { border-collapse: collapse; font-size: .9rem; line-height: 1.4 }
th, td { text-align: right; padding: .25rem .5rem; border-bottom: 1px solid var(--line); white-space: nowrap;
         font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left; padding-left: 0 } th { color: var(--faint); font-weight: 600 }
.quote { padding: .5rem .8rem; margin: .5rem 0; background: var(--soft); border-left: 4px solid var(--line);
         overflow-wrap: anywhere; white-space: pre-wrap; font-size: .9rem }
.quote b { display: block }
footer { margin: 3rem 0 1rem; border-top: 1px solid var(--line); overflow-wrap: anywhere }
"""

LONGEST_QUOTE = 400
"""Characters of a document that are shown."""


def report_page(report: Report) -> str:
    """A report as one HTML page.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    check_matplotlib()
    findings = "".join(f"<li>{escape(finding)}</li>" for finding in report.findings)
    caveats = "".join(f"<li>{escape(caveat)}</li>" for caveat in report.caveats)
    settings = ", ".join(f"{name} {_value(value)}" for name, value in report.settings.items())
    body = (
        f"<h1>{escape(report.title)}</h1>\n<ul class=findings>{findings}</ul>\n"
        f"{''.join(map(_section, report.sections))}"
        f"<section><h2>What this does not show</h2><ul>{caveats}</ul></section>\n"
        f"<footer class=note>{''.join(map(_source, report.sources))}"
        f"<div>Settings: {escape(settings)}.</div></footer>\n"
    )
    return html_page(report.title, STYLE, body)


def _value(value: Any) -> str:
    """A setting for readers: None stands for all there is."""
    if isinstance(value, (list, tuple)):
        return " and ".join(map(str, value))
    return "all" if value is None else str(value)


def _section(section: Section) -> str:
    paragraphs = "".join(f"<p>{escape(text)}</p>\n" for text in section.text)
    figures, tables = "".join(map(_figure, section.figures)), "".join(map(_table, section.tables))
    quotes = "".join(map(_quote, section.quotes))
    return f"<section><h2>{escape(section.title)}</h2>\n{paragraphs}{figures}{tables}{quotes}</section>\n"


def _figure(figure: Figure) -> str:
    return f"<figure>{svg(figure)}<figcaption>{escape(figure.caption)}</figcaption></figure>\n"


def _table(table: Table) -> str:
    caption = f"<p class=note>{escape(table.caption)}</p>\n" if table.caption else ""  # not as wide as the table may be
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in table.rows)
    return f"<div class=table><table><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>\n{caption}"


def _quote(quote: Quote) -> str:
    text = quote.text if len(quote.text) <= LONGEST_QUOTE else f"{quote.text[:LONGEST_QUOTE].rstrip()} …"
    return f"<div class=quote><b>{escape(quote.title)}</b>{escape(text)}</div>\n"


def _source(source: Source) -> str:
    text = (
        f"Index {source.path}, version {source.version}: {source.documents:,} documents, {source.parts:,} parts; model "
        f"{source.model}, {source.weights:,} tracked weights."
    )
    return f"<div>{escape(text)}</div>"
