"""How fast the stored vectors are read and written, and how many documents a table takes in how much memory.

    python tools/benchmarks/store.py --parts 40000 --documents 1000000

Reads are compared with zarr, with a plain numpy memmap of the same rows, and with the page cache: every byte once.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import zarr

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))  # for `faults`

from faults.scenarios import WORDS
from faults.tiny import make_tiny_model

from gindex.config import CorpusConfig
from gindex.corpus.encoding import DocumentEncoder
from gindex.corpus.records import Document
from gindex.documents.selection import lexical_documents
from gindex.documents.table import DocumentTable
from gindex.documents.table_writer import fill_table
from gindex.progress import Silent
from gindex.store.layout import VolumeLayout
from gindex.store.reader import VectorReader
from gindex.store.vectors import CodedVectors, VectorSpec, VectorWriter, VolumeReader, choose_segment_parts

DIMENSION, SLICES = 30720, 30
ROW = DIMENSION // 8
RANDOM_ROWS = 100


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=40_000, help="Stored vectors of 30,720 one-bit coordinates.")
    parser.add_argument("--documents", type=int, default=1_000_000, help="Documents for the table; 0 leaves it out.")
    parser.add_argument("--folder", type=Path, help="Where to work.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gindex-bench-", dir=arguments.folder) as folder:
        vectors(Path(folder), arguments.parts)
        if arguments.documents:
            documents(Path(folder), arguments.documents)


def vectors(folder: Path, parts: int) -> None:
    """Write and read vectors."""
    slices = tuple((n * DIMENSION // SLICES, (n + 1) * DIMENSION // SLICES) for n in range(SLICES))
    spec = VectorSpec(
        parts=parts, segment_parts=choose_segment_parts(parts, ROW), dimension=DIMENSION, bits=1, slices=slices
    )
    volume, random = VolumeLayout(folder / "volume"), np.random.default_rng(0)
    codes = random.integers(0, 256, (parts, ROW), np.uint8)
    scales, norms = random.random((parts, SLICES), np.float32), random.random(parts, np.float32)
    writer, start = VectorWriter(volume, spec), time.perf_counter()
    for number in range(spec.segments):
        rows = slice(spec.segment_range(number).start, spec.segment_range(number).stop)
        writer.write(number, CodedVectors(codes=codes[rows], scales=scales[rows], self_influence=norms[rows]), {})
    seconds, net = time.perf_counter() - start, codes.nbytes + scales.nbytes + norms.nbytes
    used = sum(path.stat().st_size for path in volume.folder.rglob("*") if path.is_file())
    print(f"{parts:,} vectors of {DIMENSION:,} bits, {spec.segments} segments, {net / 1e6:.0f} MB")
    print(f"write, synced: {net / seconds / 1e6:.0f} MB/s; overhead {used - net:,} bytes, {(used - net) / net:.3%}")
    flat = folder / "flat"
    codes.tofile(flat)
    array = zarr.open_group(str(volume.vectors), mode="r")["codes"]
    picked = random.integers(0, parts, RANDOM_ROWS)
    segments = [np.array(spec.segment_range(n), np.int64) for n in range(spec.segments)]

    def ours() -> VectorReader:
        return VectorReader([VolumeReader(volume, spec)])

    def scan(reader: VectorReader) -> None:
        for ordinals in segments:
            reader._read("codes", ordinals)

    warm, plain = ours(), np.memmap(flat, np.uint8, mode="r", shape=(parts, ROW))
    scan(warm)
    scans: dict[str, Callable[[], object]] = {
        "page cache (sum of 64-bit words)": lambda: np.memmap(flat, np.uint64, mode="r").sum(),
        "numpy memmap, copied": lambda: [np.array(plain[s[0] : s[-1] + 1]) for s in segments],
        "gindex": lambda: scan(warm),
        "gindex, newly opened, checksums compared": lambda: scan(ours()),
        "zarr": lambda: [array[s[0] : s[-1] + 1] for s in segments],
    }
    for name, read in scans.items():
        print(f"scan, {name}: {codes.nbytes / fastest(read) / 1e9:.2f} GB/s")
    rows: dict[str, Callable[[], object]] = {
        "numpy memmap": lambda: plain[picked],
        "gindex": lambda: warm._read("codes", picked),
        "gindex, newly opened, checksums compared": lambda: ours()._read("codes", picked),
        "zarr": lambda: array.get_orthogonal_selection((picked, slice(None))),
    }
    for name, read in rows.items():
        print(f"{RANDOM_ROWS} random rows, {name}: {fastest(read) * 1000:.2f} ms")


def fastest(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of five runs."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def documents(folder: Path, count: int) -> None:
    """Fill a table in a process of its own, and print its peak memory above that at its start."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_tiny_model(folder / "model"))
    path = folder / "documents.sqlite"
    for some in (count // 10, count):
        pid = os.fork()
        if pid == 0:
            before, start = memory(), time.perf_counter()
            fill_table(path, texts(some), DocumentEncoder(tokenizer, CorpusConfig(max_tokens=32)), Silent())
            seconds = time.perf_counter() - start
            size = path.stat().st_size / 1e6
            print(
                f"{some:,} documents: {seconds:.0f} s, {some / seconds:,.0f} a second, {size:.0f} MB, "
                f"peak memory {(memory() - before) / 1e6:.0f} MB above the start",
                flush=True,
            )
            os._exit(0)
        os.waitpid(pid, 0)
    with DocumentTable.open(path) as table:
        start = time.perf_counter()
        found = lexical_documents(table, "stack heap", 10)
        print(f"full-text search: {(time.perf_counter() - start) * 1000:.0f} ms for {len(found)} hits")


def texts(count: int) -> Iterator[Document]:
    """Yield small documents."""
    random = np.random.default_rng(0)
    for number in range(count):
        text = " ".join(WORDS[n] for n in random.integers(0, len(WORDS), 12))
        yield Document(document_id=f"d{number}", text=text, metadata={"number": number})


def memory() -> int:
    """Return the peak resident memory in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
