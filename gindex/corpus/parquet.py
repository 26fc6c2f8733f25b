"""Records of Parquet files."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from gindex.config import CorpusConfig
from gindex.corpus.arrow_values import BATCH_RECORDS, table_records
from gindex.corpus.packages import require
from gindex.corpus.records import Record
from gindex.corpus.sources import Source


def read_parquet(source: Source, config: CorpusConfig) -> Iterator[Record]:
    """Yield the records of a Parquet file, a few hundred in memory at a time.

    Raises:
        MissingDependencyError: pyarrow is not installed.
        CorpusError: See `table_records`.
    """
    return table_records(source, "a Parquet file", _batches)


def _batches(file: BinaryIO, location: str) -> Iterator[Any]:
    parquet = require("pyarrow.parquet", location)
    # As nanoseconds, the 96-bit times of Spark and Impala would wrap after the year 2262.
    with parquet.ParquetFile(file, coerce_int96_timestamp_unit="us") as table:
        yield from table.iter_batches(batch_size=BATCH_RECORDS)
