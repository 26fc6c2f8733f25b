"""Filters over metadata: a small language, parsed here and handed to SQLite as a statement with parameters.

    kind = 'function' and (line >= 100 or not package in ('os', 'sys')) and name like 'get%' and author is not null

    filter      = conjunction { "or" conjunction }
    conjunction = term { "and" term }
    term        = "not" term | "(" filter ")" | comparison
    comparison  = field ( operator value | ["not"] "like" text | ["not"] "in" "(" value { "," value } ")"
                | "is" ["not"] "null" )
    operator    = "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">="
    value       = text in ' or ", its quote doubled inside | number | "true" | "false"
    field       = name { "." name }, a name in backticks where it holds other characters; `id` is the document's id

No part of a filter enters the SQL text: fields and values are parameters, and what is left is made here. A comparison
with a field that a document lacks is false, so its negation is true. Text compares with text, numbers with numbers;
`like` takes % for any characters and _ for one, without regard to the case of ASCII letters.
"""

import re
from dataclasses import dataclass

from gindex.errors import FilterError

MAX_COMPARISONS = 200
"""SQLite bounds the depth of an expression at 1,000 and its parameters at 32,766."""

MAX_DEPTH = 50

SHOWN = 30
"""Most characters of a filter that an error about it shows."""

Value = str | int | float

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
      | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
      | (?P<name>(?:[^\W\d]\w*|`[^`]+`)(?:\.(?:\w+|`[^`]+`))*)
      | (?P<symbol><=|>=|<>|!=|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)
_OPERATORS = {"=": "=", "==": "=", "!=": "<>", "<>": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_KEYWORDS = {"and", "or", "not", "in", "like", "is", "null", "true", "false"}


@dataclass(frozen=True, kw_only=True)
class FieldUse:
    """A metadata field that a filter names: as written, as a JSON path, and where in the filter (from 0)."""

    name: str
    path: str
    position: int


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A parsed filter.

    Attributes:
        text: The filter as written.
        sql: An expression over the columns `id` and `metadata` of the table `documents`, 0 or 1, with `?` marks.
        parameters: Their values.
        fields: The metadata fields in it.
    """

    text: str
    sql: str
    parameters: tuple[Value, ...]
    fields: tuple[FieldUse, ...]


def parse_filter(text: str) -> Filter:
    """Parse a filter.

    Raises:
        FilterError: It is not one; shows the position.
    """
    return _Parser(text).parse()


def filter_error(text: str, position: int, expected: str, found: str) -> FilterError:
    """Return an error that names a position of a filter, its first character being 1, and what stands before it."""
    before = text[:position].rstrip()
    shown = before if len(before) <= SHOWN else f"...{before[-SHOWN:]}"
    where = f"after {shown!r}" if before else "at the beginning"
    return FilterError(f"--where, position {position + 1}: expected {expected}, found {found} {where}")


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
        for position, character in enumerate(text):
            if "\ud800" <= character <= "\udfff":
                raise filter_error(text, position, "Unicode text", "half a surrogate pair")
        self._tokens = self._tokenize()
        self._next = 0
        self._depth = 0
        self._parameters: list[Value] = []
        self._fields: list[FieldUse] = []
        self._comparisons = 0

    def parse(self) -> Filter:
        sql = self._filter()
        if self._peek().kind != "end":
            raise self._error("'and', 'or' or the end")
        return Filter(text=self._text, sql=sql, parameters=tuple(self._parameters), fields=tuple(self._fields))

    def _filter(self) -> str:
        terms = [self._conjunction()]
        while self._take("or"):
            terms.append(self._conjunction())
        return f"({' OR '.join(terms)})"

    def _conjunction(self) -> str:
        terms = [self._term()]
        while self._take("and"):
            terms.append(self._term())
        return f"({' AND '.join(terms)})"

    def _term(self) -> str:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"at most {MAX_DEPTH} nested terms")
        if self._take("not"):
            sql = f"(NOT {self._term()})"
        elif self._take("("):
            sql = self._filter()
            self._require(")")
        else:
            sql = self._comparison()
        self._depth -= 1
        return sql

    def _comparison(self) -> str:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise self._error(f"at most {MAX_COMPARISONS} comparisons")
        column = self._field()
        if self._take("is"):
            negated = self._take("not")
            self._require("null")
            return f"({column} IS {'NOT ' if negated else ''}NULL)"
        negated = self._take("not")
        if self._take("like"):
            sql = f"COALESCE({column} LIKE {self._value(text_only=True)}, 0)"
        elif self._take("in"):
            sql = f"COALESCE({column} IN ({self._values()}), 0)"
        elif not negated and (operator := _OPERATORS.get(self._peek().keyword)):
            self._next += 1
            sql = f"COALESCE({column} {operator} {self._value()}, 0)"
        else:
            raise self._error("'like' or 'in'" if negated else "a comparison (=, !=, <, <=, >, >=, like, in, is null)")
        return f"(NOT {sql})" if negated else sql

    def _field(self) -> str:
        token = self._peek()
        if token.kind != "name" or token.keyword:
            raise self._error("a field, 'not' or '('")
        self._next += 1
        if token.text == "id":
            return "id"
        names = [name.strip("`") for name in re.findall(r"`[^`]+`|\w+", token.text)]
        if any('"' in name for name in names):
            raise filter_error(self._text, token.position, "a field without a double quote in its name", token.text)
        path = "$" + "".join(f'."{name}"' for name in names)
        self._fields.append(FieldUse(name=token.text, path=path, position=token.position))
        self._parameters.append(path)
        return "json_extract(metadata, ?)"

    def _values(self) -> str:
        self._require("(")
        marks = [self._value()]
        while self._take(","):
            marks.append(self._value())
        self._require(")")
        return ", ".join(marks)

    def _value(self, *, text_only: bool = False) -> str:
        token = self._peek()
        value: Value
        if token.kind == "text":
            value = token.text[1:-1].replace(token.text[0] * 2, token.text[0])
        elif text_only:
            raise self._error("text in quotes")
        elif token.kind == "number":
            value = self._number(token.text)
        elif token.keyword in ("true", "false"):
            value = int(token.keyword == "true")  # as SQLite reads JSON's
        else:
            raise self._error("text in quotes, a number, true or false")
        self._next += 1
        self._parameters.append(value)
        return "?"

    def _number(self, text: str) -> Value:
        if re.fullmatch(r"[-+]?\d{1,18}", text):  # what SQLite holds as an integer; longer ones are rounded
            return int(text)
        return float(text)

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
        return filter_error(self._text, token.position, expected, "the end" if token.kind == "end" else token.text)

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
