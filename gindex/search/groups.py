"""Groups of documents by the value of a field of their metadata, as an answer has them: which source taught it."""

from dataclasses import dataclass

from gindex.documents.values import Value

Bounds = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Group:
    """The documents that have one value of a field.

    Attributes:
        value: The value; None for the documents without one. Of a long text the beginning, of an object its JSON.
        documents: How many they are.
        sum: Sum of their scores.
        mean: Mean of their scores.
        sum_interval: 95% interval of the sum, by bootstrap over the documents, their number as it is; None for one
            document, which tells nothing of how others would score.
        mean_interval: 95% interval of the mean; likewise.
    """

    value: Value | None
    documents: int
    sum: float
    mean: float
    sum_interval: Bounds | None
    mean_interval: Bounds | None


@dataclass(frozen=True, kw_only=True)
class OtherGroups:
    """What lies between the groups that are given.

    Attributes:
        values: Number of values.
        documents: Number of documents that have them; one that has several of them counts for each.
        sum: Sum of their scores.
    """

    values: int
    documents: int
    sum: float


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The scores of all documents that the filter allows, by the value of a field.

    A document's score is the sum over its parts. A document whose field is an array has each of its elements as a
    value.

    Attributes:
        field: The field.
        documents: How many documents were scored.
        values: How many values they have.
        groups: Those with the largest sums and those with the most negative ones, largest sum first; where the most
            negative influence is looked for, smallest first.
        others: The groups that are not given; None where all are.
    """

    field: str
    documents: int
    values: int
    groups: tuple[Group, ...]
    others: OtherGroups | None
