"""Records of Arrow's own files: .arrow and .feather, in the form of a file or of a stream."""

import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from gindex.config import CorpusConfig
from gindex.corpus.arrow_values import table_records
from gindex.corpus.packages import require
from gindex.corpus.records import Record
from gindex.corpus.sources import Source
from gindex.errors import CorpusError

_FILE, _FEATHER_1 = b"ARROW1", b"FEA1"
# A stream ends with a message of no length.
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"


def read_arrow(source: Source, config: CorpusConfig) -> Iterator[Record]:
    """Yield the records of an Arrow or Feather file; one of its record batches is in memory at a time.

    Raises:
        MissingDependencyError: pyarrow is not installed.
        CorpusError: It is of Feather's first version, or a stream that is cut short; and see `table_records`.
    """
    return table_records(source, "an Arrow file", _batches)


def _batches(file: BinaryIO, location: str) -> Iterator[Any]:
    ipc = require("pyarrow.ipc", location)
    begin = file.read(len(_FILE))
    if begin.startswith(_FEATHER_1):
        raise CorpusError(
            field=location,
            expected="Feather of version 2, or Arrow",
            found="Feather of version 1",
            remedy="write it again with a newer pyarrow",
        )
    is_stream = begin != _FILE
    if is_stream:
        _check_end(file, location)
    file.seek(0)
    for batch in _stream(ipc, file) if is_stream else _file(ipc, file):
        batch.validate(full=True)  # offsets that lead out of their buffers would be followed
        yield batch


def _file(ipc: Any, file: BinaryIO) -> Iterator[Any]:
    with ipc.open_file(file) as reader:
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def _stream(ipc: Any, file: BinaryIO) -> Iterator[Any]:
    with ipc.open_stream(file) as reader:
        yield from reader


def _check_end(file: BinaryIO, location: str) -> None:
    """Refuse a stream without its end: pyarrow takes one that is cut between two batches for a whole one."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - len(_STREAM_END)))
    if file.read() != _STREAM_END:
        raise CorpusError(
            field=location,
            expected="an Arrow file, or a whole Arrow stream",
            found="no end of a stream: it is something else, or cut short",
            remedy="fetch or write it again",
        )
