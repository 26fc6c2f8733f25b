"""What every report promises of the files that it is written to."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text())
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
    assert "#0102" not in page and "gindex:" not in page  # colours that were not replaced
    assert "svg" in checker.tags


def read_report(out: Path, name: str) -> tuple[dict[str, Any], str]:
    """Check the two files of a report; return its numbers and its page."""
    page, record = out.read_text(), json.loads(out.with_suffix(".json").read_text())
    check_page(page)
    jsonschema.validate(record, SCHEMA)
    assert record["report"] == name
    assert sorted(path.name for path in out.parent.glob(f"{out.stem}.*")) == [f"{out.stem}.html", f"{out.stem}.json"]
    return record, page
