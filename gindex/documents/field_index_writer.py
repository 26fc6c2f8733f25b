"""The writing of the index of a table's fields, from the metadata of its documents; see `field_index`."""

import json
import sqlite3
from array import array
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gindex.documents.comparisons import Names
from gindex.documents.field_index import BLOCK, SCHEMA
from gindex.documents.field_keys import keys_of
from gindex.documents.schema import connect, translated_errors
from gindex.documents.table_writer import new_table
from gindex.errors import CorruptStoreError


def write_field_index(table: Path, path: Path, fields: Sequence[Names], first_document: int) -> None:
    """Publish the index of some fields of a finished table. Memory is bounded by a block of documents.

    Args:
        table: The table.
        path: The index.
        fields: The fields.
        first_document: Ordinal of the table's first document.

    Raises:
        CorruptStoreError: The table cannot be read.
        StoreError: The index cannot be written.
    """
    with closing(connect(table)) as documents, translated_errors(table):
        (count,) = documents.execute("SELECT COUNT(*) FROM documents").fetchone()
        with new_table(path, SCHEMA) as connection:
            with connection:
                connection.executemany("INSERT INTO fields VALUES (?, ?)", enumerate(map(json.dumps, fields)))
            for block in range(-(-count // BLOCK)):
                start = first_document + block * BLOCK
                with connection:
                    _write_block(connection, documents, fields, block, range(start, start + BLOCK))


def is_field_index(path: Path, table: Path, fields: Sequence[Names], first_document: int) -> bool:
    """Whether a file is the index of some fields of a table.

    Raises:
        CorruptStoreError: One of them cannot be read.
    """
    with TemporaryDirectory(prefix="gindex-fields-") as folder:
        again = Path(folder) / path.name
        write_field_index(table, again, fields, first_document)
        with closing(connect(path)) as found, closing(connect(again)) as expected, translated_errors(path):
            names = ("fields", "field_values", "part_counts")
            pairs = ([each.execute(f"SELECT * FROM {name}") for each in (found, expected)] for name in names)
            return all(row == wanted for rows in pairs for row, wanted in zip_longest(*rows))


def _write_block(
    connection: sqlite3.Connection, documents: sqlite3.Connection, fields: Sequence[Names], block: int, ordinals: range
) -> None:
    """Write what is to be known of some documents."""
    bounds = (ordinals.start, ordinals.stop)
    found: dict[tuple[int, bytes], array[int]] = defaultdict(lambda: array("H"))
    stored = "SELECT ordinal, metadata FROM documents WHERE ordinal >= ? AND ordinal < ? ORDER BY ordinal"
    read = documents.execute(stored, bounds).fetchall()
    for ordinal, metadata in read:
        for field, keys in enumerate(keys_of(metadata, fields)):
            for key in keys:
                found[field, key].append(ordinal - ordinals.start)
    rows = ((field, key, block, np.array(places, "<u2").tobytes()) for (field, key), places in sorted(found.items()))
    connection.executemany("INSERT INTO field_values VALUES (?, ?, ?, ?)", rows)
    counted = "SELECT COUNT(*) FROM parts WHERE document >= ? AND document < ? GROUP BY document ORDER BY document"
    counts = np.fromiter((count for (count,) in documents.execute(counted, bounds)), "<u4")
    if len(counts) != len(read):
        raise CorruptStoreError(
            field="documents",
            expected=f"parts of {len(read):,} documents from document {ordinals.start}",
            found=f"those of {len(counts):,}",
            remedy="restore the table",
        )
    connection.execute("INSERT INTO part_counts VALUES (?, ?)", (block, counts.tobytes()))
