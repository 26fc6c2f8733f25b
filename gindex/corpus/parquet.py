"""Records of Parquet files; values that Python has no type for become text, as far as they can be written."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np

from gindex.config import CorpusConfig
from gindex.corpus.files import bad_byte, one_line
from gindex.corpus.packages import require
from gindex.corpus.records import Record
from gindex.corpus.sources import Source
from gindex.errors import CorpusError

_BATCH = 256
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY = 86_400


def read_parquet(source: Source, config: CorpusConfig) -> Iterator[Record]:
    """Yield the records of a Parquet file, a few hundred in memory at a time.

    Raises:
        MissingDependencyError: pyarrow is not installed.
        CorpusError: The file is not Parquet, is damaged, holds a string that is not UTF-8, a value that cannot be
            written out, or fields of the same name.
    """
    parquet = require("pyarrow.parquet", source.location)
    for number, fields in enumerate(_records(parquet, source.location), 1):
        place = f"{source.location}: record {number}"
        yield Record(fields=fields, place=place, default_id=f"{source.name}:{number}")


def _records(parquet: Any, location: str) -> Iterator[object]:
    arrow = require("pyarrow", location)
    count = 0
    try:
        # As nanoseconds, the 96-bit times of Spark and Impala would wrap after the year 2262.
        with parquet.ParquetFile(location, coerce_int96_timestamp_unit="us") as file:
            _check_names(arrow, file.schema_arrow, location)
            for batch in file.iter_batches(batch_size=_BATCH):
                names = batch.schema.names
                columns = [_values(arrow, batch.column(n), name, location, count) for n, name in enumerate(names)]
                for values in zip(*columns, strict=True):
                    yield dict(zip(names, values, strict=True))
                count += len(batch)
    except UnicodeDecodeError as error:
        found = bad_byte(error, 0)
        raise CorpusError(
            field=location,
            expected="UTF-8 strings",
            found=f"{found} of a string past record {count}",
            remedy="write it as UTF-8",
        ) from error
    except arrow.ArrowException as error:
        raise CorpusError(
            field=location,
            expected="a Parquet file",
            found=f"one that cannot be read ({one_line(error)})",
            remedy="write it again",
        ) from error


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
    """Return the values of a column in Python's types; one by one where some cannot be had together."""
    if not _has_nanosecond_times(arrow, column.type):
        try:
            found: list[Any] = column.to_pylist()
            return found
        except UnicodeDecodeError:
            raise
        except (OverflowError, ValueError, TypeError):  # some value is out of the range of Python's type
            pass
    values = []
    for number, scalar in enumerate(column, count + 1):
        try:
            values.append(_value(arrow, scalar))
        except UnicodeDecodeError:
            raise
        except (OverflowError, ValueError, TypeError) as error:
            raise CorpusError(
                field=f"{location}: record {number}",
                expected=f"a value that can be written out in the field {name!r}",
                found=f"one of type {scalar.type} ({one_line(error)})",
                remedy="convert or remove the field",
            ) from error
    return values


def _has_nanosecond_times(arrow: Any, kind: Any) -> bool:
    """Python's times of day end at microseconds, and pyarrow cuts the rest off without a word."""
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
    """Return a date or a time with one as text, in the calendar of Python's dates, on into years that they have not."""
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
    """Return a length of time as text, in the form that Python has for shorter ones."""
    days, rest = divmod(scalar.value, _DAY * _UNITS[scalar.type.unit])
    seconds, fraction = divmod(rest, _UNITS[scalar.type.unit])
    digits = len(str(_UNITS[scalar.type.unit])) - 1
    return f"{days} days, {timedelta(seconds=seconds)}" + (f".{fraction:0{digits}d}" if fraction else "")
