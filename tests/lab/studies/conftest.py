"""Runs a study and checks what every study promises of its two files."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import Result

SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "report.schema.json").read_text())
VOID = {"meta", "br", "path", "use", "rect"}


class Checker(HTMLParser):
    """Finds what a page would load, and tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loaded += [v or "" for name, v in attributes if name in ("src", "href", "xlink:href", "data", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def check_page(page: str) -> None:
    """The page is whole, is of one file, and follows the reader's colours."""
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert all(target.startswith("#") for target in checker.loaded)
    assert not checker.tags & {"script", "link", "iframe", "object", "embed", "img"}
    assert "://" not in re.sub(r"<div class=quote>.*?</div>", "", page, flags=re.DOTALL) and "@import" not in page
    assert "url(" not in page.replace("url(#", "")
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page
    assert "#0102" not in page and "gindex:" not in page  # stand-in colours that were not replaced
    assert "svg" in checker.tags


@pytest.fixture
def study(run: Callable[..., Result], tmp_path: Path) -> Callable[..., tuple[dict[str, Any], str]]:
    """Run a study from the command line; return its numbers and its page."""

    def study(name: str, *arguments: object) -> tuple[dict[str, Any], str]:
        out = tmp_path / f"{name}.html"
        result = run("study", name, *arguments, "--out", out, "--device", "cpu")
        assert result.exit_code == 0, result.output
        page, record = out.read_text(), json.loads(out.with_suffix(".json").read_text())
        check_page(page)
        jsonschema.validate(record, SCHEMA)
        assert record["report"] == name
        assert sorted(path.name for path in tmp_path.glob(f"{name}.*")) == [f"{name}.html", f"{name}.json"]
        assert all(finding in result.stdout for finding in record["findings"])
        return record, page

    return study
