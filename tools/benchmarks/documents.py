"""What reading a document table costs: columns, filters, words, ids; at several sizes.

    python tools/benchmarks/documents.py --documents 10000 100000 1000000

Documents are 90 words of a Zipf distribution with random ids and some metadata, each one part of 120 tokens. Every read
is done by a process of its own, first and again; the table is in the page cache. Whole-file checksums are left out.
"""

import argparse
import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from gindex.corpus.records import Document
from gindex.documents.field_index import FieldIndex
from gindex.documents.field_index_writer import write_field_index
from gindex.documents.filters import parse_filter
from gindex.documents.selection import filtered_parts, lexical_documents
from gindex.documents.table import DocumentTable
from gindex.documents.table_writer import add_document, add_part, new_table

WORDS, VOCABULARY, TOKENS, BATCH = 90, 50_000, 120, 1000

BY_INDEX = ", by index"
"""What the names of reads with indexed fields end with."""

FIELDS = [("share",), ("serial",)]
"""What is indexed: a field of a hundred values, and one of a value for each document."""

Read = Callable[[DocumentTable], object]


def reads() -> dict[str, Read]:
    """What is measured, by its name."""

    def where(text: str) -> Read:
        return lambda table: filtered_parts(table, parse_filter(text))

    def words(text: str) -> Read:
        return lambda table: lexical_documents(table, text, 100)

    return {
        "lengths, targets and documents of all parts": lambda table: (
            table.part_lengths(), table.part_targets(), table.part_documents()
        ),
        "totals": lambda table: table.counts(),
        "id = one": where(f"id = '{identifier(0)}'"),
        "where of 1%": where("share = 7"),
        "where of half": where("share < 50"),
        "where of all": where("share >= 0"),
        "where of one serial number": where("serial = 0.0"),
        "where of half of the serial numbers": where("serial < 0.5"),
        "words, the most common": words("w0"),
        "words, five common ones": words("w0 w1 w2 w3 w4"),
        "words, a rare one": words("w20000"),
    }  # fmt: skip


def main() -> None:
    """Fill tables, read them, and print a line for each read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[10_000, 100_000], help="Sizes of tables.")
    parser.add_argument("--folder", type=Path, help="Where to work.")
    arguments = parser.parse_args()
    found: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="gindex-bench-", dir=arguments.folder) as folder:
        for documents in arguments.documents:
            path = Path(folder) / f"{documents}.sqlite"
            found.setdefault("fill", []).append(apart("", lambda path=path, count=documents: fill(path, count)))
            names = list(reads())
            index = found.setdefault("index two fields", [])
            index.append(apart("", lambda path=path: write_field_index(path, index_of(path), FIELDS, 0)))
            for name in names + [f"{name}{BY_INDEX}" for name in names if name.startswith("where")]:
                found.setdefault(name, []).append(apart(name, None, path))
            sizes = [file.stat().st_size / 1e6 for file in (path, index_of(path))]
            print(f"{documents:,} documents, {sizes[0]:,.0f} MB, indexed fields {sizes[1]:,.1f} MB", flush=True)
            path.unlink()
    print("read | " + " | ".join(f"{count:,}: first s, later s, MB" for count in arguments.documents) + " | exponent")
    for name, figures in found.items():
        cells = [f"{first:.3f}, {later:.3f}, {megabytes:,.1f}" for first, later, megabytes in figures]
        grown = math.log(max(figures[-1][0], 1e-4) / max(figures[0][0], 1e-4))
        span = math.log(arguments.documents[-1] / arguments.documents[0]) or math.nan
        print(f"{name} | " + " | ".join(cells) + f" | {grown / span:.2f}")


def index_of(path: Path) -> Path:
    """The index of a table's fields."""
    return path.with_suffix(".fields")


def apart(name: str, work: Callable[[], None] | None, path: Path | None = None) -> tuple[float, float, float]:
    """Processor seconds of a process of its own that does something, and again, and megabytes that it read at first."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        if work is not None:
            sender.send((*measured(work), math.nan))
            return
        index = FieldIndex(index_of(path), lambda: None, 0, 0) if name.endswith(BY_INDEX) else None
        with DocumentTable.open(path, fields=[index]) as table:
            read = reads()[name.removesuffix(BY_INDEX)]
            seconds, megabytes = measured(lambda: read(table))
            sender.send((seconds, megabytes, measured(lambda: read(table))[0]))

    process = context.Process(target=run)
    process.start()
    seconds, megabytes, later = receiver.recv()
    process.join()
    return seconds, later, megabytes


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Processor seconds and megabytes read, from the page cache too."""
    began, read = time.process_time(), bytes_read()
    work()
    return time.process_time() - began, (bytes_read() - read) / 1e6


def bytes_read() -> int:
    """Bytes that this process asked the kernel for."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def fill(path: Path, count: int) -> None:
    """Write a table."""
    with new_table(path) as connection:
        for start in range(0, count, BATCH):
            with connection:
                for ordinal, document in enumerate(documents(start, min(BATCH, count - start)), start):
                    add_document(connection, ordinal, document)
                    tokens = np.full(TOKENS, ordinal, "<u4").tobytes()
                    add_part(connection, (ordinal, ordinal, 0, 0, len(document.text), tokens, TOKENS), None)


def documents(start: int, count: int) -> Iterator[Document]:
    """Documents of random words."""
    random = np.random.default_rng(start)
    weights = 1 / np.arange(1, VOCABULARY + 1)
    drawn = random.choice(VOCABULARY, (count, WORDS), p=weights / weights.sum())
    for number, row in enumerate(drawn.tolist(), start):
        serial = (number * 0x9E3779B9 % 2**32) / 2**32
        metadata = {"share": number % 100, "source": f"s{number % 7}", "serial": serial}
        yield Document(document_id=identifier(number), text=" ".join(f"w{word}" for word in row), metadata=metadata)


def identifier(number: int) -> str:
    """An id in no order."""
    return f"{(number * 0x9E3779B97F4A7C15 + 1) % 2**64:016x}"


if __name__ == "__main__":
    main()
