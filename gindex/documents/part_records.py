"""What is read of the parts in document tables: a part with its document, where a document's parts lie, totals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gindex.documents.schema import PART_COLUMNS


@dataclass(frozen=True, kw_only=True, slots=True)
class TableCounts:
    """Totals of a table.

    Attributes:
        documents: Documents.
        parts: Parts of all documents.
        tokens: Tokens of all parts, the context of later parts included.
        longest_part: Tokens of the longest part.
    """

    documents: int
    parts: int
    tokens: int
    longest_part: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PartRecord:
    """A part with its document.

    Attributes:
        ordinal: Number of the part in the table, from 0.
        document_id: Id of its document.
        part: Number of the part within the document, from 0.
        text: Its own slice of the document's text, without the context; what is masked in it is marked.
        metadata: Metadata of the document.
        token_count: Tokens of the part, context included.
        form: What its document was made of; None for plain text.
        pictures: How many pictures its document has beside its text.
    """

    ordinal: int
    document_id: str
    part: int
    text: str
    metadata: dict[str, Any]
    token_count: int
    form: str | None = None
    pictures: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """The parts of a document: its ordinal, start and stop of theirs, and their tokens, context included."""

    document: int
    start: int
    stop: int
    tokens: int

    @classmethod
    def of(cls, rows: Sequence[tuple[Any, ...]]) -> "Extent | None":
        """What the rows of all its parts in order come to, as `select_parts` gives them; None where one is missing."""
        ordinals, numbers = [row[0] for row in rows], [row[2] for row in rows]
        if numbers != list(range(len(rows))) or ordinals != list(range(ordinals[0], ordinals[0] + len(rows))):
            return None
        tokens = sum(row[PART_COLUMNS.index("token_count")] for row in rows)
        return cls(document=rows[0][1], start=ordinals[0], stop=ordinals[-1] + 1, tokens=tokens)
