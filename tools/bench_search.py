"""Measure searches: time, recall against a full scan, and bytes read, at real and at multiplied sizes.

    python tools/bench_search.py runs/corpus --parts 100000 --work .cache/bench/search

A larger store is made from the real vectors: each part is a real one, drawn with replacement, of whose signs a share
of FLIPPED is turned and whose scales are multiplied by the exponential of a normal number of deviation SPREAD. So a
part keeps its direction to a cosine of 1 - 2 FLIPPED, and the norms keep their heavy tail. Queries are real stored
vectors with as many signs turned. Needs an index of one bit a coordinate.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from gindex import GradientIndex
from gindex.gradient.codes import decode
from gindex.search.faiss_index import FaissIndex, build_faiss
from gindex.search.faiss_types import import_faiss
from gindex.search.funnel import Funnel
from gindex.search.scan import scan
from gindex.store.layout import Layout
from gindex.store.vectors import CodedVectors, VectorReader, VectorSpec, VectorWriter

FLIPPED, SPREAD = 0.2, 0.1
QUERIES = 32


def turned(codes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Turn a share of the signs; at 8 random bits a sign, FLIPPED is rounded to 1/256."""
    noise = np.zeros_like(codes)
    threshold = round(FLIPPED * 256)
    for bit in range(8):
        drawn = np.frombuffer(generator.bytes(codes.size), np.uint8).reshape(codes.shape)
        noise |= (drawn < threshold).astype(np.uint8) << np.uint8(bit)
    return codes ^ noise


def multiply(reader: VectorReader, parts: int, folder: Path, generator: np.random.Generator) -> VectorReader:
    """Make a store of `parts` vectors from the real ones, or open the one that is there."""
    spec = VectorSpec(
        parts=parts, segment_parts=16384, dimension=reader.spec.dimension, bits=1, slices=reader.spec.slices
    )
    layout = Layout(folder)
    folder.mkdir(parents=True, exist_ok=True)
    writer = VectorWriter(layout, spec)
    for number in range(spec.segments):
        if writer.is_finished(number):
            continue
        drawn = generator.integers(reader.spec.parts, size=len(spec.segment_range(number)))
        codes, scales = (tensor.numpy() for tensor in reader.coded(drawn))
        spread = np.exp(SPREAD * generator.standard_normal((len(drawn), 1))).astype(np.float32)
        norms = np.zeros(len(drawn), np.float32)
        writer.write(
            number, CodedVectors(codes=turned(codes, generator), scales=scales * spread, self_influence=norms), {}
        )
    return VectorReader(layout, spec)


def milliseconds(act: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the first call's time and the median of the others'."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        act()
        times.append(1000 * (time.perf_counter() - start))
    return times[0], statistics.median(times[1:])


def bandwidth() -> float:
    """Return the bytes a second that one thread reads: the best of five sums over 512 MB."""
    values = np.ones(1 << 26)
    return max(values.nbytes / (milliseconds(values.sum, 1)[1] / 1000) for _ in range(5))


def measure(reader: VectorReader, funnel: Funnel, index: FaissIndex, queries: torch.Tensor, repeats: int) -> None:
    """Print a table: threads, queries, first call, median, recall."""
    faiss = import_faiss()
    best, _ = scan(reader, queries, 100)
    recall = {}
    for k in (10, 100):
        found = [scored.ordinals for scored in funnel.search(queries, k)]
        recall[k] = np.mean([np.isin(row[:k], f).mean() for row, f in zip(best, found, strict=True)])
    print(f"recall@10 {recall[10]:.3f}, recall@100 {recall[100]:.3f} of a full scan\n")
    print("| threads | queries | first, ms | median, ms | ms a query | coarse alone, ms |\n|---|---|---|---|---|---|")
    for threads in (1, 2):
        faiss.omp_set_num_threads(threads)
        torch.set_num_threads(threads)
        for count in (1, 8, QUERIES):
            some = queries[:count]
            first, median = milliseconds(lambda some=some: funnel.search(some, 10), repeats)
            _, coarse = milliseconds(lambda some=some: index.candidates(some, 200), repeats)
            each = median / count
            print(f"| {threads} | {count} | {first:.1f} | {median:.1f} | {each:.2f} | {coarse:.1f} |", flush=True)


def baselines(reader: VectorReader, queries: torch.Tensor, rows: int, repeats: int) -> None:
    """Print what whole vectors cost FAISS Flat, numpy and torch, for as many rows as given."""
    faiss = import_faiss()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
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
        medians = [milliseconds(act, repeats)[1] for act in ways.values()]
        print(f"| {count} | {' | '.join(f'{median:.1f}' for median in medians)} |", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--parts", type=int, help="size of the store; that of the index where it isn't given")
    parser.add_argument("--work", type=Path, default=Path(".cache/bench/search"))
    parser.add_argument("--type", default="auto")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    opened = GradientIndex.open(arguments.index)
    real, generator = opened._vectors_reader, np.random.default_rng(0)
    folder = arguments.work / str(arguments.parts or "real")
    reader = real if arguments.parts is None else multiply(real, arguments.parts, folder, generator)
    codes, scales = real.coded(np.sort(generator.choice(real.spec.parts, QUERIES, replace=False)))
    turned_codes = torch.from_numpy(turned(codes.numpy(), np.random.default_rng(1)))
    queries = decode(turned_codes, scales, 1, real.spec.slices)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "search.faiss"
    start = time.perf_counter()
    spec = build_faiss(path, reader, opened._projection, kind=arguments.type)
    built = time.perf_counter() - start
    start = time.perf_counter()
    index = FaissIndex(path, spec, opened._projection, reader.spec.parts)
    opening = 1000 * (time.perf_counter() - start)
    size = path.stat().st_size
    once = 1000 * size / bandwidth()
    print(f"{reader.spec.parts:,} parts, {spec.kind} halved {spec.folds} times, {size / 1e6:,.0f} MB,")
    print(f"built in {built:.0f} s,", end=" ")
    print(f"opened in {opening:.1f} ms; one thread reads as many bytes in {once:.1f} ms;")
    measure(reader, Funnel(index, reader, ()), index, queries, arguments.repeats)
    baselines(reader, queries, min(reader.spec.parts, 4000), arguments.repeats)


if __name__ == "__main__":
    main()
