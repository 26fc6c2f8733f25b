"""Records of Arrow's tables, whatever file they came from; values beyond the range of Python's types become text."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, BinaryIO

import numpy as np

from gindex.corpus.packages import require
from gindex.corpus.records import Record
from gindex.corpus.sources import Source
from gindex.corpus.text_files import bad_byte, one_line
from gindex.errors import CorpusError

BATCH_RECORDS = 256
"""Records that become Python's values at once."""

_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY = 86_400


def table_records(source: Source, form: str, batches: Callable[[BinaryIO, str], Iterator[Any]]) -> Iterator[Record]:
    """Yield the records of a file that holds a table.

    Args:
        source: The file.
        form: What it is, for messages.
        batches: Opens the content at a location and yields its record batches, of one schema.

    Raises:
        MissingDependencyError: pyarrow is not installed.
        CorpusError: The file is of another form or damaged, holds a string that is not UTF-8, a value that cannot be
            written out, or fields of the same name.
    """
    arrow = require("pyarrow", source.location)
    count = 0
    try:
        with source.open(seekable=True) as file:
            for batch in batches(file, source.location):
                for fields in _rows(arrow, batch, source.location, count):
                    count += 1
                    place = f"{source.location}: record {count}"
                    yield Record(fields=fields, place=place, default_id=f"{source.name}:{count}")
    except UnicodeDecodeError as error:
        found = bad_byte(error, 0)
        raise CorpusError(
            field=source.location,
            expected="UTF-8 strings",
            found=f"{found} of a string past record {count}",
            remedy="write it as UTF-8",
        ) from error
    except (arrow.ArrowException, MemoryError) as error:  # damage may ask for any amount of memory
        raise CorpusError(
            field=source.location,
            expected=form,
            found=f"one that cannot be read ({one_line(error)})",
            remedy="write it again",
        ) from error


def _rows(arrow: Any, batch: Any, location: str, count: int) -> Iterator[dict[str, Any]]:
    if count == 0:
        _check_names(arrow, batch.schema, location)
    names = batch.schema.names
    for begin in range(0, len(batch), BATCH_RECORDS):
        piece = batch.slice(begin, BATCH_RECORDS)
        columns = [_values(arrow, piece.column(n), name, location, count + begin) for n, name in enumerate(names)]
        for values in zip(*columns, strict=True):
            yield dict(zip(names, values, strict=True))


def _check_names(arrow: Any, schema: Any, location: str) -> None:
    """Refuse equal names of columns, or of fields of a structure: Python's dictionaries would keep one of them."""
    waiting = [("", list(schema))]
    while waiting:
        path, fields = waiting.pop()
        seen: set[str] = set()
        for field in fields:
            if field.name in seen:
                raise CorpusError(
                    field=f"{location}: record 1",
                    expected="fields whose names differ",
                    found=f"{path + field.name!r} twice",
                    remedy="rename one",
                )
            seen.add(field.name)
            if inner := _fields_of(arrow, field.type):
                waiting.append((f"{path}{field.name}.", inner))


def _fields_of(arrow: Any, kind: Any) -> list[Any]:
    while arrow.types.is_dictionary(kind):
        kind = kind.value_type
    return [kind.field(n) for n in range(kind.num_fields)]


def _values(arrow: Any, column: Any, name: str, location: str, count: int) -> list[Any]:
    """Return the values of a column in Python's types; one by one where some value is beyond them."""
    if not _has_nanosecond_times(arrow, column.type):
        try:
            whole: list[Any] = column.to_pylist()
            return whole
        except UnicodeDecodeError:
            raise
        except (ArithmeticError, ValueError, TypeError):  # some value is out of the range of Python's type
            pass
    values = []
    for number, scalar in enumerate(column, count + 1):
        try:
            values.append(_value(arrow, scalar))
        except UnicodeDecodeError:
            raise
        except (ArithmeticError, ValueError, TypeError) as error:
            raise CorpusError(
                field=f"{location}: record {number}",
                expected=f"a value that can be written out in the field {name!r}",
                found=f"one of type {scalar.type} ({one_line(error)})",
                remedy="convert or remove the field",
            ) from error
    return values


def _has_nanosecond_times(arrow: Any, kind: Any) -> bool:
    """Say whether a type holds times of day in nanoseconds, which pyarrow silently cuts to Python's microseconds."""
    if arrow.types.is_dictionary(kind):
        return _has_nanosecond_times(arrow, kind.value_type)
    if kind == arrow.time64("ns"):
        return True
    return any(_has_nanosecond_times(arrow, kind.field(n).type) for n in range(kind.num_fields))


def _value(arrow: Any, scalar: Any) -> Any:
    if not scalar.is_valid:
        return None
    types, kind = arrow.types, scalar.type
    if types.is_dictionary(kind) or isinstance(kind, arrow.BaseExtensionType):
        return _value(arrow, scalar.value)
    if types.is_struct(kind):
        return {kind.field(n).name: _value(arrow, scalar[n]) for n in range(kind.num_fields)}
    if types.is_map(kind):
        return [[_value(arrow, entry[0]), _value(arrow, entry[1])] for entry in scalar.values]
    if types.is_nested(kind):
        return [_value(arrow, item) for item in scalar.values]
    if kind == arrow.time64("ns"):
        return scalar.cast(arrow.string()).as_py()
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        if types.is_duration(kind):
            return _duration(scalar)
        if types.is_date(kind) or types.is_timestamp(kind):
            return _date(scalar)
        raise


def _date(scalar: Any) -> str:
    """Return a date or timestamp as text in the calendar of Python's dates, which end with the year 9999."""
    kind = str(scalar.type)
    unit: Any = {"date32[day]": "D", "date64[ms]": "ms"}.get(kind) or scalar.type.unit
    written = np.datetime64(scalar.value, unit)
    if np.isnat(written):
        raise OverflowError(f"{scalar.value} is beyond the calendar")
    if kind == "date64[ms]":
        written = written.astype("datetime64[D]")
    sign, year, rest = re.fullmatch(r"(-?)(\d+)(.*)", str(written)).groups()  # type: ignore[union-attr]
    zone = "+00:00" if getattr(scalar.type, "tz", None) else ""
    return f"{sign}{year:0>4}{rest}{zone}"


def _duration(scalar: Any) -> str:
    """Return a duration as text, in the form of Python's own, which end earlier."""
    days, rest = divmod(scalar.value, _DAY * _UNITS[scalar.type.unit])
    seconds, fraction = divmod(rest, _UNITS[scalar.type.unit])
    digits = len(str(_UNITS[scalar.type.unit])) - 1
    return f"{days} days, {timedelta(seconds=seconds)}" + (f".{fraction:0{digits}d}" if fraction else "")
