"""A filter as a tree: comparisons of columns with values, and what is made of them with not, and, or.

Each knows its SQL, and what it is made of, by which the index of a field answers it (`filter_masks`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from gindex.documents.comparisons import IdColumn, MetadataColumn, Names, Sql, filled, joined
from gindex.documents.values import ORDERS, Value

NULL = "is null"
"""The operator of the only comparison without a value."""


@dataclass(frozen=True)
class Comparison:
    """A comparison of a column.

    Attributes:
        column: The column.
        operator: "=" (one of the values), "!=", "<", "<=", ">", ">=", "like", or `NULL`.
        values: What it is compared with: several for "=", none for `NULL`, else one.
    """

    column: IdColumn | MetadataColumn
    operator: str
    values: tuple[Value, ...] = ()

    @property
    def sql(self) -> Sql:
        """The condition in SQL, over `id` and `metadata`."""
        column = self.column
        if self.operator == NULL:
            return column.is_null()
        if self.operator in (*ORDERS, "like"):
            return column.has(self.operator, self.values[0])
        equal = column.equals(self.values)
        return equal if self.operator == "=" else filled("(NOT {} AND NOT {})", column.is_null(), equal)

    @property
    def fields(self) -> frozenset[Names | None]:
        """The fields that are compared; None is the id."""
        return frozenset([self.column.names])


@dataclass(frozen=True)
class Not:
    """True where a condition is false."""

    term: "Condition"

    @property
    def sql(self) -> Sql:
        """The condition in SQL."""
        return filled("(NOT {})", self.term.sql)

    @property
    def fields(self) -> frozenset[Names | None]:
        """The fields that are compared; None is the id."""
        return self.term.fields


@dataclass(frozen=True)
class _Terms:
    terms: tuple["Condition", ...]

    @cached_property
    def fields(self) -> frozenset[Names | None]:
        """The fields that are compared; None is the id."""
        return frozenset[Names | None]().union(*(term.fields for term in self.terms))


class Every(_Terms):
    """True where all conditions are."""

    @classmethod
    def of(cls, terms: Sequence["Condition"]) -> "Condition":
        """Several conditions as one; one alone as it is."""
        return terms[0] if len(terms) == 1 else cls(tuple(terms))

    @property
    def sql(self) -> Sql:
        """The condition in SQL."""
        return joined("AND", [term.sql for term in self.terms])


class Some(_Terms):
    """True where any condition is."""

    @classmethod
    def of(cls, terms: Sequence["Condition"]) -> "Condition":
        """Several conditions as one; one alone as it is."""
        return terms[0] if len(terms) == 1 else cls(tuple(terms))

    @property
    def sql(self) -> Sql:
        """The condition in SQL."""
        return joined("OR", [term.sql for term in self.terms])


Condition = Comparison | Not | Every | Some
