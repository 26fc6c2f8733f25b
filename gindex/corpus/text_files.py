"""Records of text files: JSON lines, CSV and TSV, plain text; each may be compressed."""

import csv
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from gindex.config import CorpusConfig
from gindex.corpus.compression import decompressed
from gindex.corpus.json_values import EqualKeysError, parse_json
from gindex.corpus.records import Record
from gindex.corpus.sources import Source, SourceKind
from gindex.errors import CorpusError

LONGEST_RECORD = 1_000_000_000
"""Most bytes of a record: SQLite takes no longer value."""

_BOM = b"\xef\xbb\xbf"
_DELIMITERS = {SourceKind.CSV: ",", SourceKind.TSV: "\t"}
_LOOKED_AT = 512


def read_text(source: Source, config: CorpusConfig) -> Iterator[Record]:
    """Yield a text file as one record; its id is the source's name.

    Raises:
        CorpusError: It is not UTF-8, or longer than a document can be.
    """
    with decompressed(source.open(), source.location) as stream:
        data = stream.read(LONGEST_RECORD + 1)
    _check_length(data, source.location)
    text = decode(data, source.location, 0)
    begin = text[:_LOOKED_AT]
    if len(begin) > 1 and (not begin[::2].strip("\0") or not begin[1::2].strip("\0")):
        raise CorpusError(
            field=source.location,
            expected="UTF-8",
            found="every other character to be NUL, as in UTF-16 without a byte order mark",
            remedy="convert the file to UTF-8",
        )
    yield Record(fields={config.text_field: text}, place=source.location, default_id=source.name)


def read_lines(source: Source, config: CorpusConfig) -> Iterator[Record]:
    """Yield one record per line that is not blank.

    Raises:
        CorpusError: A line is not UTF-8 or not JSON, or an object in it has the same key twice.
    """
    number = 0
    with decompressed(source.open(), source.location) as stream:
        for line_number, text in enumerate(lines_of(stream, source.location), 1):
            if text.strip():
                number += 1
                place = f"{source.location}:{line_number}"
                yield Record(fields=_parse(text, place), place=place, default_id=f"{source.name}:{number}")


def read_delimited(source: Source, config: CorpusConfig) -> Iterator[Record]:
    """Yield the records of a CSV or TSV file; all values are text, and the first line names the fields.

    Quotes are those of RFC 4180, in both. Blank lines are no records.

    Raises:
        CorpusError: The file is malformed, two fields have the same name, or a record has more or fewer values than
            there are fields.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_RECORD))
    with decompressed(source.open(), source.location) as stream:
        lines = lines_of(stream, source.location)
        names: list[str] | None = None
        number = 0
        for place, values in _rows(lines, source):
            if names is None:
                names = _field_names(values, place)
                continue
            if len(values) != len(names):
                raise CorpusError(
                    field=place,
                    expected=f"{len(names)} values, as the first line has names",
                    found=len(values),
                    remedy="correct the record, or quote what holds the delimiter",
                )
            number += 1
            fields = dict(zip(names, values, strict=True))
            yield Record(fields=fields, place=place, default_id=f"{source.name}:{number}")


def lines_of(stream: BinaryIO, location: str) -> Iterator[str]:
    r"""Yield the lines of UTF-8 text with their ends, which are \n alone.

    Raises:
        CorpusError: The text is not UTF-8, or a line is longer than a record can be.
    """
    offset = 0
    for line in iter(partial(stream.readline, LONGEST_RECORD + 1), b""):
        _check_length(line, location)
        yield decode(line, location, offset)
        offset += len(line)


def decode(data: bytes, location: str, offset: int) -> str:
    """Decode UTF-8 that begins at a byte offset of a file; a byte order mark at the file's beginning is dropped.

    Raises:
        CorpusError: It is not UTF-8; says at which byte of the file.
    """
    skipped = len(_BOM) if offset == 0 and data.startswith(_BOM) else 0
    try:
        return data[skipped:].decode()
    except UnicodeDecodeError as error:
        found = bad_byte(error, offset + skipped)
        raise CorpusError(field=location, expected="UTF-8", found=found, remedy="convert the file to UTF-8") from error


def bad_byte(error: UnicodeDecodeError, offset: int) -> str:
    """Return the byte that is not UTF-8 and its offset, in words."""
    return f"byte 0x{error.object[error.start]:02x} at byte offset {offset + error.start}"


def one_line(error: BaseException) -> str:
    """Return the message of `error` on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def equal_keys(error: EqualKeysError, place: str) -> CorpusError:
    """Return the error of an object with the same key twice, at a place of the corpus."""
    return CorpusError(
        field=place,
        expected="keys that differ in every object",
        found=f"{error.key!r} twice in one",
        remedy="rename or remove one",
    )


def _check_length(data: bytes, location: str) -> None:
    if len(data) > LONGEST_RECORD:
        raise CorpusError(
            field=location,
            expected=f"records of at most {LONGEST_RECORD:,} bytes",
            found="a longer one",
            remedy="divide it into documents",
        )


def _parse(line: str, place: str) -> object:
    try:
        return parse_json(line)
    except EqualKeysError as error:
        raise equal_keys(error, place) from error
    except (ValueError, RecursionError) as error:
        raise CorpusError(
            field=place,
            expected="one JSON object per line",
            found=f"malformed JSON ({one_line(error)})",
            remedy="correct the line",
        ) from error


def _rows(lines: Iterator[str], source: Source) -> Iterator[tuple[str, list[str]]]:
    """Yield the place where each record begins, and its values."""
    reader = csv.reader(lines, delimiter=_DELIMITERS[source.kind], strict=True)
    while True:
        place = f"{source.location}:{reader.line_num + 1}"
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise CorpusError(
                field=place,
                expected=f"a record of {source.kind.value}",
                found=f"a malformed one ({one_line(error)})",
                remedy="put values that hold quotes or the delimiter in quotes, and double the quotes in them",
            ) from error
        if values is None:
            return
        if values:
            yield place, values


def _field_names(names: list[str], place: str) -> list[str]:
    for position, name in enumerate(names):
        if name in names[:position]:
            raise CorpusError(
                field=place,
                expected="names of fields that differ",
                found=f"{name!r} twice",
                remedy="rename one in the first line",
            )
    return names
