"""Filters over metadata: a small language, parsed here and handed to SQLite as a statement with parameters.

    kind = 'function' and (line >= 100 or not package in ('os', 'sys')) and name like 'get%' and author is not null

    filter      = conjunction { "or" conjunction }
    conjunction = term { "and" term }
    term        = "not" term | "(" filter ")" | comparison
    comparison  = field ( operator value | ["not"] "like" text | ["not"] "in" "(" value { "," value } ")"
                | "is" ["not"] "null" )
                | value ["not"] "in" field
    operator    = "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">="
    value       = text in ' or ", its quote doubled inside | number | "true" | "false"
    field       = name { "." name }, a name in backticks where it holds other characters; `id` is the document's id

A filter is a tree of `conditions`. No part of it enters the SQL text: fields and values are parameters, and
`comparisons` writes the rest. Which comparisons hold is defined in `values`. A comparison with a field that a document
lacks is false, `!=` too; `not` is true where what follows it is false. docs/filters.md explains filters to users.
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache

from gindex.documents.comparisons import IdColumn, MetadataColumn, Names, refusal
from gindex.documents.conditions import NULL, Comparison, Condition, Every, Not, Some
from gindex.documents.values import ORDERS, Value
from gindex.errors import FilterError

MAX_COMPARISONS = 200
"""SQLite bounds the depth of an expression at 1,000."""

MAX_DEPTH = 50
"""Most terms within each other; how many brackets within each other SQLite takes depends on what else is in them."""

MAX_VALUES = 20_000
"""SQLite bounds the parameters of a statement at 32,766, and a value may be one."""

MAX_CHARACTERS = 1_000_000
"""Most characters of a filter."""

MAX_TEXT = 10_000
"""Most characters of a text that a filter compares with."""

MAX_PATTERN = 1_000
"""Most characters of a pattern; SQLite bounds its bytes at 50,000, and the time it takes grows with them."""

MAX_NUMBER = 400
"""Most characters of a number."""

SHOWN_CHARACTERS = 30
"""Most characters of a filter that an error shows before a position, or at it."""

_LATER = r"(?:(?!\s)[\w\x80-\U0010ffff])+"  # \w alone lacks the vowel signs of many scripts
_NAME = rf"(?!\d){_LATER}"
_QUOTED = r"`(?:[^`]|``)*`"
_FIELD = rf"(?:{_NAME}|{_QUOTED})(?:\.(?:{_LATER}|{_QUOTED}))*"
_TOKEN = re.compile(
    rf"""\s*(?:
        (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
      | (?P<number>(?>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.]))
      | (?P<name>{_FIELD})
      | (?P<symbol><=|>=|<>|!=|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)
_NAMES = re.compile(rf"{_QUOTED}|{_LATER}")
_OPERATORS = {"=": "=", "==": "=", "!=": "!=", "<>": "!=", **{order: order for order in ORDERS}}
_KEYWORDS = {"and", "or", "not", "in", "like", "is", "null", "true", "false"}


@dataclass(frozen=True, kw_only=True)
class FieldUse:
    """A metadata field that a filter names.

    Attributes:
        name: As it is written.
        position: Where in the filter, from 0.
        names: The names of fields within fields.
    """

    name: str
    position: int
    names: Names


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A parsed filter.

    Attributes:
        text: The filter as written.
        condition: What a document must meet.
        sql: An expression over the columns `id` and `metadata` of the table `documents`, 0 or 1, with `?` marks; it
            calls functions of `values`.
        parameters: Their values.
        fields: The metadata fields in it.
    """

    text: str
    condition: Condition
    sql: str
    parameters: tuple[str | int | float, ...]
    fields: tuple[FieldUse, ...]


@lru_cache(maxsize=8)
def parse_filter(text: str) -> Filter:
    """Parse a filter.

    Raises:
        FilterError: It is not one, or too large; shows the position.
    """
    return _Parser(text).parse()


def written_name(name: str) -> str:
    """Return the name of a metadata field as a filter writes it."""
    plain = re.fullmatch(_NAME, name) is not None and name.lower() not in _KEYWORDS and name != "id"
    return name if plain else "`" + name.replace("`", "``") + "`"


def field_column(text: str) -> MetadataColumn | None:
    """Return the column of a field that is written as in a filter, `source` or `origin.site`; None where it is none."""
    names = field_names(text)
    return None if names is None else MetadataColumn(names)


def path_text(names: Names) -> str:
    """Return names of fields within fields as a filter writes them."""
    return ".".join(map(written_name, names))


def field_names(text: str) -> Names | None:
    """Return the names of fields within fields that a field is written with; None where it is none of the metadata."""
    return _names(text) if re.fullmatch(_FIELD, text) and text != "id" else None


def filter_error(text: str, position: int, expected: str, found: str) -> FilterError:
    """Return an error that names a position of a filter, its first character being 1, and what stands before it."""
    before = text[:position].rstrip()
    shown = before if len(before) <= SHOWN_CHARACTERS else f"...{before[-SHOWN_CHARACTERS:]}"
    where = f"after {shown!r}" if before else "at the beginning"
    return FilterError(field=f"where, position {position + 1}", expected=expected, found=f"{found} {where}")


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int

    @property
    def keyword(self) -> str:
        """The keyword or symbol that this is; empty for anything else."""
        lowered = self.text.lower()
        return lowered if self.kind == "symbol" or (self.kind == "name" and lowered in _KEYWORDS) else ""


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        if len(text) > MAX_CHARACTERS:
            raise filter_error(text, MAX_CHARACTERS, f"at most {MAX_CHARACTERS:,} characters", f"{len(text):,}")
        for position, character in enumerate(text):
            if "\ud800" <= character <= "\udfff":
                raise filter_error(text, position, "Unicode text", "half a surrogate pair")
        self._tokens = self._tokenize()
        self._next = 0
        self._depth = 0
        self._fields: list[FieldUse] = []
        self._comparisons = 0
        self._values = 0

    def parse(self) -> Filter:
        condition = self._filter()
        if self._peek().kind != "end":
            raise self._error("'and', 'or' or the end")
        sql = condition.sql
        if (said := refusal(sql)) is not None:
            raise filter_error(self._text, 0, "a filter that SQLite takes, with fewer brackets", said)
        fields = tuple(self._fields)
        return Filter(text=self._text, condition=condition, sql=sql.text, parameters=sql.parameters, fields=fields)

    def _filter(self) -> Condition:
        terms = [self._conjunction()]
        while self._take("or"):
            terms.append(self._conjunction())
        return Some.of(terms)

    def _conjunction(self) -> Condition:
        terms = [self._term()]
        while self._take("and"):
            terms.append(self._term())
        return Every.of(terms)

    def _term(self) -> Condition:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"at most {MAX_DEPTH} nested terms")
        if self._take("not"):
            condition: Condition = Not(self._term())
        elif self._take("("):
            condition = self._filter()
            self._require(")")
        else:
            condition = self._comparison()
        self._depth -= 1
        return condition

    def _comparison(self) -> Condition:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise self._error(f"at most {MAX_COMPARISONS} comparisons")
        if self._at_value():
            return self._containment()
        column = self._field()
        if self._take("is"):
            negated = self._take("not")
            self._require("null")
            return _negated(Comparison(column, NULL), negated)
        negated = self._take("not")
        if self._take("like"):
            return _negated(Comparison(column, "like", (self._pattern(),)), negated)
        if self._take("in"):
            return _negated(Comparison(column, "=", tuple(self._list(column))), negated)
        operator = _OPERATORS.get(self._peek().keyword)
        if negated or operator is None:
            raise self._error("'like' or 'in'" if negated else "a comparison (=, !=, <, <=, >, >=, like, in, is null)")
        self._next += 1
        return Comparison(column, operator, (self._value(column, ordered=operator in ORDERS),))

    def _containment(self) -> Condition:
        """Parse a value in a field, `'x' in tags`: the field equals it, or has it as an element."""
        token, value = self._peek(), self._value()
        negated = self._take("not")
        self._require("in")
        column = self._field()
        if isinstance(column, IdColumn) and not isinstance(value, str):
            raise filter_error(self._text, token.position, "text in quotes, as ids are", token.text)
        return _negated(Comparison(column, "=", (value,)), negated)

    def _field(self) -> IdColumn | MetadataColumn:
        token = self._peek()
        if token.kind != "name" or token.keyword:
            raise self._error("a field, 'not' or '('")
        self._next += 1
        if token.text == "id":
            return IdColumn()
        names = _names(token.text)
        column = MetadataColumn(names)
        self._fields.append(FieldUse(name=token.text, position=token.position, names=names))
        return column

    def _list(self, column: IdColumn | MetadataColumn) -> list[Value]:
        self._require("(")
        values = [self._value(column)]
        while self._take(","):
            values.append(self._value(column))
        self._require(")")
        return values

    def _pattern(self) -> str:
        token = self._peek()
        if token.kind != "text":
            raise self._error("text in quotes")
        self._next += 1
        return self._unquoted(token, MAX_PATTERN)

    def _at_value(self) -> bool:
        token = self._peek()
        return token.kind in ("text", "number") or token.keyword in ("true", "false")

    def _value(self, column: IdColumn | MetadataColumn | None = None, *, ordered: bool = False) -> Value:
        """Parse a value: of ids text alone; for an order text or a number."""
        token = self._peek()
        self._values += 1
        if self._values > MAX_VALUES:
            raise self._error(f"at most {MAX_VALUES:,} values")
        if isinstance(column, IdColumn) and token.kind != "text":
            raise self._error("text in quotes, as ids are")
        if ordered and token.keyword in ("true", "false"):
            raise self._error("text in quotes or a number, which have an order")
        if not self._at_value():
            raise self._error("text in quotes, a number, true or false")
        self._next += 1
        if token.kind == "text":
            return self._unquoted(token, MAX_TEXT)
        return self._number(token) if token.kind == "number" else token.keyword == "true"

    def _unquoted(self, token: "_Token", most: int) -> str:
        text = token.text[1:-1].replace(token.text[0] * 2, token.text[0])
        if len(text) > most:
            expected, found = f"text of at most {most:,} characters", f"{len(text):,}"
            raise filter_error(self._text, token.position, expected, found)
        return text

    def _number(self, token: "_Token") -> int | float:
        """Read an integer as it is, of any size; anything with a point or an exponent is a 64-bit float, as in JSON."""
        if len(token.text) > MAX_NUMBER:
            expected, found = f"a number of at most {MAX_NUMBER} characters", f"{len(token.text):,}"
            raise filter_error(self._text, token.position, expected, found)
        if re.fullmatch(r"[-+]?\d+", token.text):
            return int(token.text)
        number = float(token.text)
        if math.isinf(number):
            raise filter_error(self._text, token.position, "a number that a 64-bit float holds", token.text)
        return number

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, keyword: str) -> bool:
        taken = self._peek().keyword == keyword
        self._next += taken
        return taken

    def _require(self, keyword: str) -> None:
        if not self._take(keyword):
            raise self._error(f"'{keyword}'")

    def _error(self, expected: str) -> FilterError:
        token = self._peek()
        found = token.text if len(token.text) <= SHOWN_CHARACTERS else f"{token.text[:SHOWN_CHARACTERS]}..."
        return filter_error(self._text, token.position, expected, "the end" if token.kind == "end" else found)

    def _tokenize(self) -> list[_Token]:
        tokens, position = [], 0
        stripped = self._text.rstrip()
        while position < len(stripped):
            match = _TOKEN.match(stripped, position)
            if match is None:
                start = position + len(stripped[position:]) - len(stripped[position:].lstrip())
                raise filter_error(
                    self._text, start, "a field, a value, a comparison or a bracket", repr(stripped[start])
                )
            kind = str(match.lastgroup)
            tokens.append(_Token(kind, match.group(kind), match.start(kind)))
            position = match.end()
        return [*tokens, _Token("end", "", len(self._text))]


def _negated(condition: Condition, negated: bool) -> Condition:
    return Not(condition) if negated else condition


def _names(field: str) -> Names:
    return tuple(n[1:-1].replace("``", "`") if n.startswith("`") else n for n in _NAMES.findall(field))
