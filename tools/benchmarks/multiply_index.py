"""Make a large index out of a small one, to measure searches on: more documents, parts and vectors, the same factors.

    python tools/benchmarks/multiply_index.py runs/corpus 1000000 .cache/bench/search/1000000

Documents are repeated. Each vector is made of a real one, drawn with replacement, of whose signs a share of 1/32 to
1/4, drawn too, is turned: those where another real vector, drawn too, differs from it within a random half or less of
the coordinates. Its scales are the two vectors' mixed likewise, times the exponential of a normal number of deviation
SPREAD. So similarities vary without steps, and the norms keep their heavy tail. Needs an index of one bit a coordinate
that was built at once. What is there already is kept, so the command can be given again.
"""

import argparse
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from gindex_cli.progress import Lines

from gindex import GradientIndex
from gindex.documents.schema import index_words
from gindex.documents.table import DocumentTable
from gindex.documents.table_writer import new_table
from gindex.progress import Progress
from gindex.search.search_index import deriving
from gindex.store.files import FileRecord
from gindex.store.layout import Layout, VolumeLayout
from gindex.store.reader import VectorReader
from gindex.store.records import Operation, OperationKind
from gindex.store.vectors import CodedVectors, SegmentRecord, VectorSpec, VectorWriter
from gindex.store.volume_records import volume_files, volume_record
from gindex.store.writer import write_version

SPREAD = 0.1
SEGMENT_PARTS = 16384

POOL_BYTES = 1 << 24
"""Random bytes that masks are put together from: each row of one takes its bits from a place of its own."""


def mask(shape: tuple[int, int], sixteenths: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return bytes of random bits, of which a share of sixteenths [rows] / 16 is set in each row."""
    pool = np.frombuffer(generator.bytes(POOL_BYTES), np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(pool, shape[1])
    bits = np.zeros(shape, np.uint8)
    for digit in range(4):  # from the lowest binary digit of the share: or doubles towards 1, and towards 0
        drawn = windows[generator.integers(0, len(windows), size=shape[0])]
        up = ((sixteenths >> digit) & 1).astype(bool)
        bits[up] |= drawn[up]
        bits[~up] &= drawn[~up]
    return bits


def mixed(real: VectorReader, rows: int, generator: np.random.Generator) -> CodedVectors:
    """Make some vectors of real ones."""
    one, other = (real.stored(generator.integers(real.spec.parts, size=rows)) for _ in range(2))
    sixteenths = generator.integers(1, 9, size=rows)
    codes = one.codes ^ ((one.codes ^ other.codes) & mask(one.codes.shape, sixteenths, generator))
    spread = np.exp(SPREAD * generator.standard_normal(rows))
    scales = (one.scales + (other.scales - one.scales) * (sixteenths[:, None] / 16)) * spread[:, None]
    return CodedVectors(
        codes=codes,
        scales=scales.astype(np.float32),
        self_influence=(one.self_influence * spread**2).astype(np.float32),
    )


def write_vectors(
    real: VectorReader, volume: VolumeLayout, spec: VectorSpec, progress: Progress
) -> dict[int, SegmentRecord]:
    """Make the vectors of a volume, segment by segment."""
    writer, segments = VectorWriter(volume, spec), {}
    with progress.phase("vectors", spec.parts, "parts") as phase:
        for number in range(spec.segments):
            rows = len(spec.segment_range(number))
            found = writer.finished(number)
            segments[number] = found or writer.write(number, mixed(real, rows, np.random.default_rng(number)), {})
            phase.advance(rows)
    return segments


def write_documents(source: Path, target: Path, parts: int, progress: Progress) -> None:
    """Repeat the documents of a table, with ids of their own, until there are so many parts."""
    if target.is_file():
        return
    with new_table(target) as connection, progress.phase("documents", parts, "parts") as phase:
        connection.execute("ATTACH ? AS source", (str(source),))
        ((documents,),) = connection.execute("SELECT COUNT(*) FROM source.documents")
        ((size,),) = connection.execute("SELECT COUNT(*) FROM source.parts")
        for copy in range(-(-parts // size)):
            values = {"copy": copy, "documents": copy * documents, "parts": copy * size, "left": parts - copy * size}
            with connection:
                connection.execute(
                    "INSERT INTO documents SELECT ordinal + :documents, id || '#' || :copy, text, metadata FROM "
                    "source.documents WHERE ordinal IN (SELECT document FROM source.parts WHERE ordinal < :left)",
                    values,
                )
                connection.execute(
                    'INSERT INTO parts SELECT ordinal + :parts, document + :documents, part, start, "end", tokens, '
                    "token_count FROM source.parts WHERE ordinal < :left",
                    values,
                )
            phase.advance(min(size, parts - copy * size))
        with connection:
            for ordinal, text in connection.execute("SELECT ordinal, text FROM documents"):
                index_words(connection, ordinal, text)
        connection.execute("DETACH source")


def copied(source: Layout, target: Layout) -> Iterator[Path]:
    """Copy the factors and yield their files."""
    target.factors.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.factors.iterdir()):
        shutil.copyfile(path, target.factors / path.name)
        yield target.factors / path.name


def multiply_index(path: Path, parts: int, out: Path, progress: Progress) -> None:
    """Make an index of so many parts at `out`, unless it is there already."""
    layout, opened = Layout(out), GradientIndex.open(path)
    if layout.manifest(1).is_file():
        return
    source, manifest, volume = opened.snapshot.layout, opened.manifest, layout.volume(0)
    write_documents(source.volume(0).documents, volume.documents, parts, progress)
    real = opened.snapshot.vectors
    spec = VectorSpec(
        parts=parts,
        segment_parts=SEGMENT_PARTS,
        dimension=real.spec.dimension,
        bits=1,
        slices=real.spec.slices,
    )
    segments = write_vectors(real, volume, spec, progress)
    plain = list(copied(source, layout))
    with DocumentTable.open(volume.documents) as table:
        record = volume_record(0, 0, 0, table.counts(), spec, segments, manifest.sources)
    name = str(Path(manifest.model.name).resolve()) if os.path.isdir(manifest.model.name) else None
    draft = replace(
        manifest,
        model=replace(manifest.model, name=name or manifest.model.name),
        volumes=[record],
        files=[FileRecord.of(layout.root, path) for path in plain] + volume_files(layout, layout.volume(0), segments),
    )
    write_version(layout, draft, Operation(kind=OperationKind.BUILD, documents=record.documents), deriving(progress))


def main() -> None:
    """Make the index."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("parts", type=int)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    multiply_index(arguments.index, arguments.parts, arguments.out, Lines())


if __name__ == "__main__":
    main()
