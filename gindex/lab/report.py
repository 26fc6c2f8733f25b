"""What an evaluation or a study found: numbers for programs, and text, figures and tables for readers."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from gindex.distribution import VERSION
from gindex.index import GradientIndex
from gindex.statistics import Interval


@dataclass(frozen=True, kw_only=True)
class Source:
    """An index that was asked."""

    path: str
    version: int
    model: str
    weights: int
    documents: int
    parts: int

    @classmethod
    def of(cls, index: GradientIndex) -> Self:
        """What a report says of an index."""
        manifest, usable = index.manifest, index.snapshot.usable_parts
        return cls(
            path=str(index.path),
            version=manifest.version,
            model=str(manifest.model.name),
            weights=sum(layer.inputs * layer.outputs for layer in manifest.layers),
            documents=len(np.unique(index.snapshot.documents.part_documents()[usable])),
            parts=len(usable),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Figure:
    """A drawing, made when it is shown.

    Attributes:
        label: What it shows, for those who cannot see it.
        fill: Draws into matplotlib's axes, in the colours of `gindex.lab.plots`.
        caption: How to read it.
        width: Inches.
        height: Inches.
    """

    label: str
    fill: Callable[[Any], None]
    caption: str
    width: float = 5.2
    height: float = 3.2


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """A heading with what stands under it, in this order."""

    title: str
    text: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    quotes: tuple[Quote, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """The outcome of one evaluation or study.

    Attributes:
        name: Its name on the command line.
        title: What it asks, as a heading.
        findings: The answers, each one sentence or two.
        sections: What they rest on.
        caveats: What the method cannot show.
        sources: The indexes that were asked.
        settings: What was asked for.
        numbers: Everything that was measured, as plain values.
    """

    name: str
    title: str
    findings: tuple[str, ...]
    sections: tuple[Section, ...]
    caveats: tuple[str, ...]
    sources: tuple[Source, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The figures of all sections."""
        return tuple(figure for section in self.sections for figure in section.figures)

    def record(self) -> dict[str, Any]:
        """What the JSON file holds: all but what only readers need."""
        return {
            "report": self.name,
            "gindex": VERSION,
            "sources": [asdict(source) for source in self.sources],
            "settings": dict(self.settings),
            "findings": list(self.findings),
            "numbers": dict(self.numbers),
            "caveats": list(self.caveats),
        }

    def text(self) -> str:
        """Findings and tables, as a terminal shows them."""
        tables = [table for section in self.sections for table in section.tables]
        return "\n\n".join(["\n".join(self.findings), *map(_table_text, tables)])


def spread(value: Interval, form: str = ".2f") -> str:
    """A mean with its interval, for readers."""
    mean, low, high = (re.sub(r"^-(0(\.0+)?%?)$", r"\1", f"{x:{form}}") for x in (value.mean, value.low, value.high))
    return f"{mean} [{low}, {high}]"


def _table_text(table: Table) -> str:
    lines: Sequence[Sequence[str]] = [table.header, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
