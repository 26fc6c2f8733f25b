"""What a study found: numbers for programs, and sections of text, figures and tables for readers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gindex.distribution import VERSION


@dataclass(frozen=True, kw_only=True)
class Source:
    """An index that was studied."""

    path: str
    version: int
    model: str
    weights: int
    documents: int
    parts: int


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing, as inline SVG, and what it shows."""

    svg: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of plain text; the first column names them."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Quote:
    """A document or query, shown as it is."""

    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with what stands under it, in this order."""

    title: str
    text: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    quotes: tuple[Quote, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of one study.

    Attributes:
        study: Its name on the command line.
        title: What it asks, as a heading.
        findings: The answers, each one sentence or two.
        sections: What they rest on.
        caveats: What the method cannot show.
        sources: The indexes.
        settings: What was asked for.
        numbers: Everything that was measured, as plain values.
    """

    study: str
    title: str
    findings: tuple[str, ...]
    sections: tuple[Section, ...]
    caveats: tuple[str, ...]
    sources: tuple[Source, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return what the JSON file holds: all but figures and texts."""
        return {
            "study": self.study,
            "gindex": VERSION,
            "sources": [asdict(source) for source in self.sources],
            "settings": dict(self.settings),
            "findings": list(self.findings),
            "numbers": dict(self.numbers),
            "caveats": list(self.caveats),
        }
