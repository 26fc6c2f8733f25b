"""Measure searches: time, recall against a full scan, and bytes read, at real and at multiplied sizes.

    python tools/bench_search.py runs/corpus --parts 100000 --work .cache/bench/search

A larger store is made from the real vectors. Each part is a real one, drawn with replacement, of whose signs a share of
1/32 to 1/4, drawn too, is turned: those where another real vector, drawn too, differs from it within a random half or
less of the coordinates. Its scales are the two vectors' mixed likewise, times the exponential of a normal number of
deviation SPREAD. So similarities vary without steps, and the norms keep their heavy tail. Queries are real stored
vectors of whose signs three sixteenths are turned at random. Needs an index of one bit a coordinate.

Wall-clock and processor time are both given: where other work shares the cores, only the second is the search's own.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gindex import GradientIndex
from gindex.gradient.codes import decode
from gindex.gradient.projection import ProjectionSpec
from gindex.search.faiss_index import FaissIndex, build_faiss
from gindex.search.faiss_types import FaissSpec, import_faiss
from gindex.search.funnel import Funnel
from gindex.search.scan import scan
from gindex.store.layout import VolumeLayout
from gindex.store.reader import VectorReader
from gindex.store.vectors import CodedVectors, VectorSpec, VectorWriter, VolumeReader

SPREAD = 0.1
QUERIES = 32


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


def turned(codes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Turn three sixteenths of the signs."""
    return codes ^ mask(codes.shape, np.full(len(codes), 3), generator)


def multiply(reader: VectorReader, parts: int, folder: Path, generator: np.random.Generator) -> VectorReader:
    """Make a store of `parts` vectors from the real ones, or open the one that is there."""
    spec = VectorSpec(
        parts=parts, segment_parts=16384, dimension=reader.spec.dimension, bits=1, slices=reader.spec.slices
    )
    volume = VolumeLayout(folder)
    folder.mkdir(parents=True, exist_ok=True)
    writer = VectorWriter(volume, spec)
    for number in range(spec.segments):
        rows = len(spec.segment_range(number))
        if writer.finished(number) is not None:
            continue
        (one, one_scales), (other, other_scales) = (
            [tensor.numpy() for tensor in reader.coded(generator.integers(reader.spec.parts, size=rows))]
            for _ in range(2)
        )
        sixteenths = generator.integers(1, 9, size=rows)
        codes = one ^ ((one ^ other) & mask(one.shape, sixteenths, generator))
        scales = one_scales + (other_scales - one_scales) * (sixteenths[:, None] / 16)
        spread = np.exp(SPREAD * generator.standard_normal((rows, 1)))
        coded = CodedVectors(
            codes=codes, scales=(scales * spread).astype(np.float32), self_influence=np.zeros(rows, np.float32)
        )
        writer.write(number, coded, {})
    return VectorReader([VolumeReader(volume, spec)])


def milliseconds(act: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return medians of wall-clock and processor time, after one call to warm up."""
    act()
    walls, used = [], []
    for _ in range(repeats):
        start, busy = time.perf_counter(), time.process_time()
        act()
        walls.append(1000 * (time.perf_counter() - start))
        used.append(1000 * (time.process_time() - busy))
    return statistics.median(walls), statistics.median(used)


def bandwidth() -> float:
    """Return the bytes a second that one thread reads: the best of nine sums over 512 MB."""
    values = torch.ones(1 << 26, dtype=torch.float64)
    return max(8 * len(values) / (milliseconds(values.sum, 1)[0] / 1000) for _ in range(9))


def set_threads(count: int) -> None:
    """Let FAISS and torch use so many threads."""
    import_faiss().omp_set_num_threads(count)
    torch.set_num_threads(count)


def forget(folder: Path) -> None:
    """Ask the system to drop the files of a folder from memory."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def recall(reader: VectorReader, funnel: Funnel, queries: torch.Tensor, best: np.ndarray) -> str:
    """Return recall@10 and @100 of the funnel at its default settings against a full scan."""
    shares = []
    for k in (10, 100):
        found = [scored.ordinals for scored in funnel.search(queries, k)]
        shares.append(np.mean([np.isin(row[:k], f).mean() for row, f in zip(best, found, strict=True)]))
    return f"recall@10 {shares[0]:.3f}, recall@100 {shares[1]:.3f}"


def measure(bench: "Bench", queries: torch.Tensor, repeats: int) -> None:
    """Print a table: threads, queries, cold and warm time, and the coarse stage's."""
    print("\n| threads | queries | cold, ms | warm, ms | a query, ms | processor, ms a query | coarse alone, ms |")
    print("|---|---|---|---|---|---|---|")
    for threads in (1, 2):
        set_threads(threads)
        for count in (1, 8, QUERIES):
            some, times = queries[:count], []
            for _ in range(3):
                forget(bench.folder)
                funnel = bench.open()[1]
                start = time.perf_counter()
                funnel.search(some, 10)
                times.append(1000 * (time.perf_counter() - start))
            index, funnel = bench.open()
            wall, used = milliseconds(lambda some=some, funnel=funnel: funnel.search(some, 10), repeats)
            coarse, _ = milliseconds(lambda some=some, index=index: index.candidates(some, 200), repeats)
            cold = statistics.median(times)
            each = f"{wall / count:.2f} | {used / count:.2f}"
            print(f"| {threads} | {count} | {cold:.1f} | {wall:.1f} | {each} | {coarse:.1f} |", flush=True)


@dataclass(frozen=True)
class Bench:
    """A store with a FAISS index over it."""

    folder: Path
    store: Callable[[], VectorReader]
    spec: FaissSpec
    projection: ProjectionSpec

    def open(self) -> tuple[FaissIndex, Funnel]:
        """Open both anew."""
        reader = self.store()
        index = FaissIndex(self.folder / "search.faiss", self.spec, self.projection, reader.spec.parts)
        return index, Funnel(index, reader, ())


def baselines(reader: VectorReader, queries: torch.Tensor, rows: int, repeats: int) -> None:
    """Print what whole vectors cost FAISS Flat, numpy and torch, for as many rows as given."""
    faiss = import_faiss()
    set_threads(1)
    codes, scales = reader.coded(np.arange(rows))
    vectors = decode(codes, scales, 1, reader.spec.slices)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors.numpy())
    half = vectors.bfloat16()
    print(
        f"\nWhole vectors, {rows:,} parts, one thread, ms:\n\n| queries | FAISS Flat | numpy | torch | torch bfloat16 |"
    )
    print("|---|---|---|---|---|")
    for count in (1, 8, QUERIES):
        q = queries[:count]
        ways = {
            "flat": lambda q=q: flat.search(q.numpy(), 10),
            "numpy": lambda q=q: q.numpy() @ vectors.numpy().T,
            "torch": lambda q=q: q @ vectors.T,
            "bf16": lambda q=q: q.bfloat16() @ half.T,
        }
        medians = [milliseconds(act, repeats)[0] for act in ways.values()]
        print(f"| {count} | {' | '.join(f'{median:.1f}' for median in medians)} |", flush=True)


def resident() -> float:
    """Return the megabytes of memory that this process has of its own, mapped files apart."""
    fields = Path("/proc/self/status").read_text().split()
    return int(fields[fields.index("RssAnon:") + 1]) / 1000


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--parts", type=int, help="size of the store; that of the index where it isn't given")
    parser.add_argument("--work", type=Path, default=Path(".cache/bench/search"))
    parser.add_argument("--type", action="append", help="type of FAISS index; of further ones, recall alone")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    opened = GradientIndex.open(arguments.index)
    real, generator = opened._vectors_reader, np.random.default_rng(0)
    folder = arguments.work / str(arguments.parts or "real")
    folder.mkdir(parents=True, exist_ok=True)

    def store() -> VectorReader:
        return (
            opened._version.vectors() if arguments.parts is None else multiply(real, arguments.parts, folder, generator)
        )

    codes, scales = real.coded(np.sort(np.random.default_rng(2).choice(real.spec.parts, QUERIES, replace=False)))
    turned_codes = torch.from_numpy(turned(codes.numpy(), np.random.default_rng(1)))
    queries = decode(turned_codes, scales, 1, real.spec.slices)
    reader, projection = store(), opened._projection
    set_threads(2)
    start = time.perf_counter()
    best, _ = scan(reader, queries, 100)
    print(f"{reader.spec.parts:,} parts; a full scan for {QUERIES} queries takes {time.perf_counter() - start:.1f} s")
    speed = bandwidth()
    for number, kind in enumerate(arguments.type or ["auto"]):
        set_threads(2)
        start = time.perf_counter()
        spec = build_faiss(folder / "search.faiss", reader, projection, kind=kind)
        built, size = time.perf_counter() - start, (folder / "search.faiss").stat().st_size
        bench = Bench(folder, store, spec, projection)
        start, before = time.perf_counter(), resident()
        funnel = bench.open()[1]
        funnel.search(queries[:1], 10)
        opening, grown = 1000 * (time.perf_counter() - start), resident() - before
        print(
            f"\n{spec.kind}, halved {spec.folds} times, {size / 1e6:,.0f} MB, built in {built:.0f} s; opened and first"
        )
        print(
            f"searched in {opening:.0f} ms with {grown:.0f} MB of memory; one thread reads its bytes once in", end=" "
        )
        print(f"{1000 * size / speed:.1f} ms ({speed / 1e9:.1f} GB/s); {recall(reader, funnel, queries, best)}")
        if number == 0:
            measure(bench, queries, arguments.repeats)
    baselines(reader, queries, min(reader.spec.parts, 4000), arguments.repeats)


if __name__ == "__main__":
    main()
