"""Records of single files: JSON lines, Parquet, plain text."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

from gindex.config import CorpusConfig
from gindex.corpus.packages import require
from gindex.corpus.records import Record
from gindex.corpus.sources import Source
from gindex.errors import CorpusError

_BOM = b"\xef\xbb\xbf"
_PARQUET_BATCH = 256


def read_text(source: Source, config: CorpusConfig) -> Iterator[Record]:
    """Yield a text file as one record; its id is the source's name."""
    with open(source.location, "rb") as stream:
        text = _decode(stream.read(), source.location, 0)
    yield Record(fields={config.text_field: text}, place=source.location, default_id=source.name)


def read_lines(source: Source, config: CorpusConfig) -> Iterator[Record]:
    """Yield one record per line that is not blank, from a plain or gzip-compressed file.

    Raises:
        CorpusError: A line is not UTF-8 or not JSON.
    """
    offset = number = 0
    compressed = source.location.lower().endswith(".gz")
    with gzip.open(source.location) if compressed else open(source.location, "rb") as stream:
        for line_number, line in enumerate(stream, 1):
            text = _decode(line, source.location, offset)
            offset += len(line)
            if text.strip():
                number += 1
                place = f"{source.location}:{line_number}"
                yield Record(fields=_parse(text, place), place=place, default_id=f"{source.name}:{number}")


def read_parquet(source: Source, config: CorpusConfig) -> Iterator[Record]:
    """Yield the records of a Parquet file, a few hundred in memory at a time.

    Raises:
        MissingDependencyError: pyarrow is not installed.
        CorpusError: The file is not Parquet, is damaged, or holds a string that is not UTF-8.
    """
    parquet = require("pyarrow.parquet", source.location)
    for number, fields in enumerate(_parquet_records(parquet, source.location), 1):
        place = f"{source.location}: record {number}"
        yield Record(fields=fields, place=place, default_id=f"{source.name}:{number}")


def _parquet_records(parquet: Any, location: str) -> Iterator[object]:
    arrow_error = require("pyarrow", location).ArrowException
    count = 0
    try:
        with parquet.ParquetFile(location) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH):
                records = batch.to_pylist()
                yield from records
                count += len(records)
    except UnicodeDecodeError as error:
        found = _bad_byte(error, 0)
        raise CorpusError(
            f"{location}: expected UTF-8 strings, found {found} of a string past record {count}; write it as UTF-8"
        ) from error
    except arrow_error as error:
        raise CorpusError(
            f"{location}: expected a Parquet file, found one that cannot be read ({one_line(error)}); write it again"
        ) from error


def one_line(error: BaseException) -> str:
    """Return the message of `error` on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _decode(data: bytes, location: str, offset: int) -> str:
    skipped = len(_BOM) if offset == 0 and data.startswith(_BOM) else 0
    try:
        return data[skipped:].decode()
    except UnicodeDecodeError as error:
        found = _bad_byte(error, offset + skipped)
        raise CorpusError(f"{location}: expected UTF-8, found {found}; convert the file to UTF-8") from error


def _bad_byte(error: UnicodeDecodeError, offset: int) -> str:
    return f"byte 0x{error.object[error.start]:02x} at byte offset {offset + error.start}"


def _parse(line: str, place: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorpusError(
            f"{place}: expected one JSON object per line, found malformed JSON ({one_line(error)}); correct the line"
        ) from error
