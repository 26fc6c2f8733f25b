"""The comparisons of a filter as SQL that is 0 or 1, never NULL.

`values.holds` defines their result. SQL is the fast path to the same: SQLite compares where its reading of a value is
exact, and calls `gindex_holds` elsewhere. Metadata are the ASCII that `json.dumps` writes, so a value has few written
forms, and equality compares these without reading them.
"""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from gindex.documents.values import Value, forms, register

ARROW = sqlite3.sqlite_version_info >= (3, 38)
"""Whether SQLite has `->`, which gives a value of JSON as it is written."""

MAX_LISTED = 8
"""Most values that a statement takes one by one; more are given as a list in JSON."""

Names = tuple[str, ...]
"""The names of fields within fields that lead to a field of the metadata."""

INT64 = range(-(2**63), 2**63)

# SQLite's reading of decimals is off by a few units of 2^-52 at most, and by an absolute error among the smallest.
_RELATIVE, _ABSOLUTE = 2.0**-48, 1e-290
_LARGEST = 1.7e308


@dataclass(frozen=True)
class Sql:
    """An expression with `?` marks, and their values in order."""

    text: str
    parameters: tuple[str | int | float, ...] = ()


def filled(template: str, *pieces: Sql) -> Sql:
    """Return a template whose `{}` are replaced by expressions, in order."""
    parameters = tuple(parameter for piece in pieces for parameter in piece.parameters)
    return Sql(template.format(*(piece.text for piece in pieces)), parameters)


def joined(word: str, terms: Sequence[Sql]) -> Sql:
    """Return expressions with a word between them, in brackets; one alone as it is, since SQLite bounds brackets."""
    if len(terms) == 1:
        return terms[0]
    return filled(f"({f' {word} '.join('{}' for _ in terms)})", *terms)


def refusal(sql: Sql) -> str | None:
    """Return SQLite's words on an expression that it refuses, such as one nested too deeply; None where it takes it.

    The limits are those that SQLite was compiled with; the statement tried is larger than any that gindex makes.
    """
    statement = (
        "SELECT -1 FROM documents WHERE id = ? AND ordinal IN (SELECT ordinal FROM documents WHERE ordinal IN {})"
    )
    with closing(sqlite3.connect(":memory:")) as connection:
        register(connection)
        connection.execute("CREATE TABLE documents(ordinal INTEGER PRIMARY KEY, id TEXT UNIQUE, metadata TEXT)")
        whole = filled(statement, filled("(SELECT ordinal FROM documents WHERE {})", sql))
        try:
            connection.execute(whole.text, ("", *whole.parameters))
        except sqlite3.Error as error:
            return str(error)
    return None


class IdColumn:
    """The ids of documents: texts, never NULL."""

    names: Names | None = None
    """No names: ids are no field of the metadata."""

    def is_null(self) -> Sql:
        """Return the condition that the field is missing or null."""
        return Sql("0")

    def equals(self, wanted: Sequence[Value]) -> Sql:
        """Return the condition that the field has one of the values."""
        return filled("(id IN ({}))", _marks([str(value) for value in wanted]))

    def has(self, comparison: str, wanted: Value) -> Sql:
        """Return the condition that the field has a value for which an order or `like` holds."""
        mark = _mark(str(wanted))
        if comparison != "like":
            return filled(f"(id {comparison} {{}})", mark)
        exact = _exactly(Sql("CAST(id AS BLOB)"), comparison, wanted)
        if "\0" in str(wanted):  # LIKE ends both at a NUL
            return exact
        return filled("(CASE WHEN instr(id, {}) THEN {} ELSE id LIKE {} END)", _mark("\0"), exact, mark)


class MetadataColumn:
    """A field of the metadata."""

    def __init__(self, names: Sequence[str]) -> None:
        """Take the names of fields within fields that lead to it."""
        self.names: Names | None = tuple(names)
        steps = _mark(json.dumps(list(names)))
        written = filled("(gindex_value(metadata, {}))", steps)
        if all(name and '"' not in name for name in names):  # others have no path in SQLite
            path = _mark("$" + "".join(f".{json.dumps(name)}" for name in names))
            self._json = filled("(metadata -> {})", path) if ARROW else written
            self._type = filled("json_type(metadata, {})", path)
            self._value = filled("json_extract(metadata, {})", path)
        else:
            self._json = written
            self._type = filled("json_type({})", written)
            self._value = filled("json_extract({}, '$')", written)

    @property
    def json(self) -> Sql:
        """The value as JSON; NULL where the document lacks the field."""
        return self._json

    @property
    def known(self) -> Sql:
        """The condition that the document has the field, null or not."""
        return filled("{} IS NOT NULL", self._type)

    def is_null(self) -> Sql:
        """Return the condition that the field is missing or null."""
        return filled("({} IS NULL)", self._value)

    def equals(self, wanted: Sequence[Value]) -> Sql:
        """Return the condition that the field has one of the values."""
        written = list(dict.fromkeys(form for value in wanted for form in forms(value)))
        template = "(CASE {} WHEN 'array' THEN {} ELSE COALESCE({} IN ({}), 0) END)"
        return filled(template, self._type, self._element_of(written), self._json, _marks(written))

    def _element_of(self, written: Sequence[str]) -> Sql:
        """Return the condition that an element of the array has one of the written forms."""
        element = "{} -> element.key" if ARROW else "gindex_value({}, json_array(element.key))"
        exists = filled(
            f"EXISTS (SELECT 1 FROM json_each({{}}) AS element WHERE ({element}) IN ({{}}))",
            self._json, self._json, _marks(written),
        )  # fmt: skip
        if len(written) > MAX_LISTED:
            return exists
        anywhere = joined("OR", [filled("instr({}, {})", self._json, _mark(form)) for form in written])
        return filled("CASE WHEN {} THEN {} ELSE 0 END", anywhere, exists)

    def has(self, comparison: str, wanted: Value) -> Sql:
        """Return the condition that the field has a value for which an order or `like` holds."""
        exact = _exactly(self._json, comparison, wanted)
        if isinstance(wanted, str):
            text = self._text(comparison, wanted, exact)
            return filled("(CASE {} WHEN 'text' THEN {} WHEN 'array' THEN {} ELSE 0 END)", self._type, text, exact)
        near = self._near(comparison, wanted, exact)
        integer = near if int(wanted) not in INT64 else filled(f"{{}} {comparison} {{}}", self._value, _mark(wanted))
        template = "(CASE {} WHEN 'integer' THEN {} WHEN 'real' THEN {} WHEN 'array' THEN {} ELSE 0 END)"
        return filled(template, self._type, integer, near, exact)

    def _text(self, comparison: str, wanted: str, exact: Sql) -> Sql:
        if comparison == "like" and "\0" in wanted:
            return exact
        compared = filled(f"{{}} {comparison.upper()} {{}}", self._value, _mark(wanted))
        return filled("CASE WHEN instr({}, '\\u0000') THEN {} ELSE {} END", self._json, exact, compared)

    def _near(self, comparison: str, wanted: int | float, exact: Sql) -> Sql:
        """Compare with a number; values so near that SQLite may round them past it are compared by `exact`."""
        below, above = _bounds(wanted)
        less, more = ("1", "0") if comparison in ("<", "<=") else ("0", "1")
        equal = int(comparison in ("<=", ">="))
        cases = f"WHEN {{}} < {{}} THEN {less} WHEN {{}} > {{}} THEN {more} WHEN {{}} IN ({{}}) THEN {equal}"
        return filled(
            f"CASE {cases} ELSE {{}} END",
            self._value, _mark(below), self._value, _mark(above), self._json, _marks(forms(wanted)), exact,
        )  # fmt: skip


def _bounds(wanted: int | float) -> tuple[float, float]:
    """Return the floats around a number between which SQLite's rounding may misplace a value."""
    try:
        near = float(wanted)
    except OverflowError:
        near = _LARGEST if wanted > 0 else -_LARGEST
    slack = abs(near) * _RELATIVE + _ABSOLUTE
    below = -float("inf") if near < -_LARGEST * (1 - _RELATIVE) else near - slack
    above = float("inf") if near > _LARGEST * (1 - _RELATIVE) else near + slack
    return below, above


def _exactly(column: Sql, comparison: str, wanted: Value) -> Sql:
    return filled(f"gindex_holds({{}}, '{comparison}', {{}})", column, _mark(json.dumps(wanted)))


def _mark(value: str | int | float) -> Sql:
    return Sql("?", (value,))


def _marks(values: Sequence[str]) -> Sql:
    """Return the inside of `IN (...)` for texts: many as a list in JSON, unless SQLite would cut one short at a NUL."""
    if len(values) <= MAX_LISTED or any("\0" in value for value in values):
        return Sql(", ".join("?" * len(values)), tuple(values))
    return Sql("SELECT value FROM json_each(?)", (json.dumps(values),))
