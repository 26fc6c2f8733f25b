"""What an explanation says: plain values, which a client of a service makes too without torch."""

from dataclasses import dataclass

from gindex.queries.query import Query


@dataclass(frozen=True, kw_only=True)
class TokenInfluence:
    """One token of a part.

    Attributes:
        text: The characters of the document that it stands for, and white space that none stands for before them.
        influence: Its share of the part's influence.
        context: Whether it is repeated from the end of the part before, where it has a share of its own.
    """

    text: str
    influence: float
    context: bool


@dataclass(frozen=True, kw_only=True)
class PartExplanation:
    """One part of the document: its influence, and that of its tokens, which add up to it.

    Attributes:
        part: Its number, from 0.
        influence: Its influence.
        tokens: Its tokens; none of a picture or tensors.
        pictures: Of tokens with pictures, the share of the layers that pictures alone go through, which the tokens
            leave out; None without pictures.
    """

    part: int
    influence: float
    tokens: tuple[TokenInfluence, ...]
    pictures: float | None = None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The exact influence of a document on a query.

    Attributes:
        document_id: The document.
        query: The query.
        influence: Sum over the parts; not divided by the number of documents.
        parts: The parts with their tokens.
        layers: Influence by layer name, in forward order; adds up to `influence`.
        groups: Influence by layer group (transformer block); adds up to `influence`.
        notes: What is to be told of how the query became tokens; see `SearchResult`.
    """

    document_id: str
    query: Query
    influence: float
    parts: tuple[PartExplanation, ...]
    layers: dict[str, float]
    groups: dict[str, float]
    notes: tuple[str, ...] = ()
