"""What becomes of a report, and of what is noticed while a corpus is read."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .render import json_text

if TYPE_CHECKING:
    from gindex.lab.report import Report


def check_report(given: Mapping[str, Any]) -> None:
    """Check, before any work, that the report can be written where the command was asked to.

    Raises:
        click.BadParameter: The page has another ending, or there is no such folder.
        ConfigError: The same of a picture.
        MissingDependencyError: There are figures to draw, and matplotlib is not installed.
    """
    from gindex.lab.plots import check_matplotlib, check_picture

    out, plot = given["out"], given.get("plot")
    if out is not None:
        if out.suffix not in (".html", ".htm"):
            raise click.BadParameter(f"expected a file ending in .html, found {out}", param_hint="--out")
        if not out.absolute().parent.is_dir():
            raise click.BadParameter(f"expected an existing folder, found none at {out.parent}", param_hint="--out")
        check_matplotlib()
    if plot is not None:
        check_picture(plot)


def deliver(report: "Report", given: Mapping[str, Any]) -> None:
    """Write a report to the files that the command was asked for, and print it as text, or its numbers as JSON."""
    from gindex.files.atomic import publish
    from gindex.lab.page import report_page
    from gindex.lab.plots import save_picture

    out, plot = given["out"], given.get("plot")
    written = []
    if out is not None:
        numbers = json.dumps(report.record(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        for path, content in ((out, report_page(report)), (out.with_suffix(".json"), numbers)):
            publish(path, partial(_put, content))
        written = [f"{out} and {out.with_suffix('.json')}"]
    if plot is not None:
        save_picture(report.figures, plot)
    if given["as_json"]:
        click.echo(json_text(report.numbers, indent=1, allow_nan=False))
    else:
        click.echo("\n\n".join([report.text(), *written]))


def _put(content: str, path: Path) -> None:
    path.write_text(content, encoding="utf-8")


@contextmanager
def corpus_notes() -> Iterator[list[str]]:
    """Collect what is told about the corpus while it is read, beside the lines on standard error."""
    notes: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: notes.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("gindex.corpus")
    logger.addHandler(handler)
    try:
        yield notes
    finally:
        logger.removeHandler(handler)
