"""Measure searches of an index: time, recall against a full scan, bytes read, opening, and the exact re-rank.

    python tools/benchmarks/multiply_index.py runs/corpus 100000 .cache/bench/search/100000
    python tools/benchmarks/search.py .cache/bench/search/100000
    python tools/benchmarks/search.py runs/corpus --type fp16 --type ivf --exact

Queries are stored vectors of whose signs three sixteenths are turned at random; the full scan that recall is measured
against is kept in --work. Cold is an index that was just opened and whose files the system was asked to drop from
memory. Wall-clock and processor time are both given: where other work shares the cores, only the second is the search's
own. Needs an index of one bit a coordinate, and for --exact its model.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from multiply_index import mask

from gindex import GradientIndex
from gindex.ann.build import build_faiss
from gindex.ann.index import FaissIndex
from gindex.ann.index_files import IndexFiles
from gindex.ann.library import import_faiss
from gindex.ann.spec import FaissSpec, spec_of
from gindex.corpus.batches import TokenBatch
from gindex.exact.fidelity import sample_queries
from gindex.model.tracked_model import TrackedModel
from gindex.progress import Phase, Silent
from gindex.search.funnel import Funnel
from gindex.search.scan import scan
from gindex.store.reader import VectorReader
from gindex.vectors import product_format
from gindex.vectors.codes import decode
from gindex.vectors.held_gradients import Hold, RoundedGradients, whole
from gindex.vectors.projection import ProjectionSpec

QUERIES = 32
COUNTS = (1, 8, QUERIES)
THREADS = (1, 2)
DEPTHS = (10, 100)

OPEN = """
import sys, time
start = time.perf_counter()
from gindex import GradientIndex
imported = time.perf_counter()
import torch, faiss
libraries = time.perf_counter()
def resident(name):
    return next(int(line.split()[1]) / 1000 for line in open("/proc/self/status") if line.startswith(name))
before = resident("RssAnon:"), resident("RssFile:")
started = time.perf_counter()
index = GradientIndex.open(sys.argv[1])
index.warm(model=False)
opened = time.perf_counter()
after = resident("RssAnon:"), resident("RssFile:")
vectors = index.snapshot.vectors.decoded(torch.tensor([0]).numpy())
searching = time.perf_counter()
index.search_vectors(vectors, k=10)
done = time.perf_counter()
last = resident("RssAnon:"), resident("RssFile:")
print(
    f"{1000 * (opened - started):.0f} | {after[0] - before[0]:.0f} | {after[1] - before[1]:.0f} | "
    f"{1000 * (done - searching):.0f} | {last[0] - before[0]:.0f} | {last[1] - before[1]:.0f}"
)
"""
"""Opens an index in a process of its own and prints times in ms and megabytes: own ones, and mapped ones."""


def turned(codes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Turn three sixteenths of the signs."""
    return codes ^ mask(codes.shape, np.full(len(codes), 3), generator)


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


def set_threads(count: int) -> None:
    """Let FAISS and torch use so many threads."""
    import_faiss().omp_set_num_threads(count)
    torch.set_num_threads(count)


def bandwidth() -> float:
    """Return the bytes a second that torch's threads read: the best of nine sums over 512 MB."""
    values = torch.ones(1 << 26, dtype=torch.float64)
    return max(8 * len(values) / (milliseconds(values.sum, 1)[0] / 1000) for _ in range(9))


def forget(folder: Path) -> None:
    """Ask the system to drop the files of a folder from memory."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def recall(found: Sequence[np.ndarray], best: np.ndarray, depth: int) -> float:
    """Return the share of the best that were found."""
    return float(np.mean([np.isin(row[:depth], of).mean() for row, of in zip(best, found, strict=True)]))


@dataclass(frozen=True)
class Bench:
    """An index that is measured, or its vectors with another FAISS index."""

    path: Path
    faiss: Path
    spec: FaissSpec
    projection: ProjectionSpec

    def open(self) -> tuple[FaissIndex, Funnel, VectorReader]:
        """Open all anew."""
        reader = GradientIndex.open(self.path).snapshot.vectors
        index = FaissIndex(self.faiss, self.spec, self.projection, reader.spec.parts)
        return index, Funnel(IndexFiles([index]), reader, ()), reader

    def describe(self, queries: torch.Tensor, best: np.ndarray, repeats: int) -> str:
        """Return a line of a table: type, size, recall of a batch and of single queries, time of one query."""
        funnel = self.open()[1]
        shares = []
        for depth in DEPTHS:
            together = [scored.ordinals for scored in funnel.search(queries, depth)]
            alone = [funnel.search(query[None], depth)[0].ordinals for query in queries]
            shares.append(f"{recall(together, best, depth):.3f} | {recall(alone, best, depth):.3f}")
        wall, used = milliseconds(lambda: funnel.search(queries[:1], 10), repeats)
        halved = f", halved {self.spec.folds} times" if self.spec.folds else ""
        size = f"{self.faiss.stat().st_size / 1e6:,.0f}"
        return f"| {self.spec.kind}{halved} | {size} | {' | '.join(shares)} | {wall:.1f} | {used:.1f} |"


def truth(reader: VectorReader, queries: torch.Tensor, kept: Path) -> np.ndarray:
    """Return the best parts by a full scan, computed once."""
    if not kept.is_file():
        start = time.perf_counter()
        best, _ = scan(reader, queries, max(DEPTHS))
        print(f"a full scan for {len(queries)} queries took {time.perf_counter() - start:.1f} s")
        np.save(kept, best)
    return np.asarray(np.load(kept))


def times(bench: Bench, queries: torch.Tensor, repeats: int) -> None:
    """Print a table: threads, queries, cold and warm time, time of each query and its share of a single one's."""
    print(
        "\n| threads | queries | cold, ms | warm, ms | a query, ms | of a single one's | processor, ms a query "
        "| coarse alone, ms a query | its codes, GB/s |\n|---|---|---|---|---|---|---|---|---|"
    )
    size = bench.faiss.stat().st_size
    for threads in THREADS:
        set_threads(threads)
        single = 0.0
        for count in COUNTS:
            some, cold = queries[:count], []
            for _ in range(3):
                forget(bench.path)
                funnel = bench.open()[1]
                start = time.perf_counter()
                funnel.search(some, 10)
                cold.append(1000 * (time.perf_counter() - start))
            index, funnel, _ = bench.open()
            wall, used = milliseconds(partial(funnel.search, some, 10), repeats)
            coarse, _ = milliseconds(partial(index.candidates, some, 200), repeats)
            single = single or wall
            print(
                f"| {threads} | {count} | {statistics.median(cold):.1f} | {wall:.1f} | {wall / count:.2f} "
                f"| {wall / count / single:.2f} | {used / count:.2f} | {coarse / count:.2f} "
                f"| {size * count / coarse / 1e6:.1f} |",
                flush=True,
            )


def baselines(reader: VectorReader, queries: torch.Tensor, rows: int, repeats: int) -> None:
    """Print what whole vectors cost FAISS Flat, numpy and torch, for as many rows as given."""
    faiss = import_faiss()
    set_threads(1)
    vectors = reader.decoded(np.arange(rows))
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors.numpy())
    half = vectors.bfloat16()
    print(f"\nWhole vectors, {rows:,} parts, one thread, ms:\n")
    print("| queries | FAISS Flat | numpy | torch | torch bfloat16 |\n|---|---|---|---|---|")
    for count in COUNTS:
        q = queries[:count]
        ways: list[Callable[[], object]] = [
            partial(flat.search, q.numpy(), 10),
            partial(np.matmul, q.numpy(), vectors.numpy().T),
            partial(torch.matmul, q, vectors.T),
            partial(torch.matmul, q.bfloat16(), half.T),
        ]
        medians = [milliseconds(act, repeats)[0] for act in ways]
        print(f"| {count} | {' | '.join(f'{median:.1f}' for median in medians)} |", flush=True)


def opening(path: Path) -> None:
    """Print what it takes to open the index in a process of its own, and to search it for the first time."""
    print("\nOpening, in a process of its own; MB of its own memory, and of files that it has mapped:\n")
    print(
        "| files | open, ms | own MB | mapped MB | first search, ms | own MB | mapped MB |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name in ("dropped from memory", "in memory"):
        if name != "in memory":
            forget(path)
        result = subprocess.run([sys.executable, "-c", OPEN, str(path)], capture_output=True, text=True, check=True)
        print(f"| {name} | {result.stdout.strip()} |", flush=True)


class Stopwatch:
    """A progress that adds up wall-clock and processor seconds of each phase by its name."""

    def __init__(self) -> None:
        """Begin with none."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.used: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str, total: int | None, unit: str) -> Iterator[Phase]:
        """Time a phase."""
        wall, used = time.perf_counter(), time.process_time()
        with Silent().phase(name, total, unit) as phase:
            yield phase
        self.seconds[name] += time.perf_counter() - wall
        self.used[name] += time.process_time() - used


def resident(name: str) -> float:
    """Return the memory of this process, `VmRSS` or its peak `VmHWM`, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1e6


def frozen_pass(engine: TrackedModel, batches: Sequence[TokenBatch]) -> None:
    """Pass forward and backward with frozen weights."""
    for batch in batches:
        embedded = engine.loaded.model.get_input_embeddings()
        hook = embedded.register_forward_hook(lambda _m, _i, out: out.requires_grad_())
        try:
            engine.task.losses(batch).sum().backward()
        finally:
            hook.remove()


def exact(index: GradientIndex, repeats: int, count: int) -> None:
    """Print what the exact re-rank costs beside a frozen pass forward and backward over the same parts, one thread.

    Both take turns, and the ratio is of processor time. Peak memory is what the process takes beside the model, some of
    which an allocator may keep from one line to the next.
    """
    set_threads(1)
    engine, reranker = index.model.tracked, index.reranker
    everything, loaded = index.snapshot.usable_parts, resident("VmRSS")
    ordinals = np.sort(np.random.default_rng(0).choice(everything, min(len(everything), count), replace=False))
    batches = engine.batches(index.snapshot.documents.objectives(ordinals), ordinals, 0)
    print(
        f"\n{len(ordinals)} candidates of {sum(int(batch.lengths.sum()) for batch in batches)} tokens\n\n"
        "| queries | blocks | held | frozen pass, s of the processor | exact influence | ratio | query curvature "
        "| peak, GB |\n|---|---|---|---|---|---|---|---|"
    )
    for queries in COUNTS:
        asked = sample_queries(index.snapshot.documents, queries, index.snapshot.usable, 0).tokens
        blocks, watch, most = reranker.blocks(len(asked)), Stopwatch(), 0.0
        for _ in range(repeats):
            with watch.phase("frozen pass", None, "parts"):
                frozen_pass(engine, batches)
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            reranker.influence(asked, [ordinals] * len(asked), watch)
            most = max(most, resident("VmHWM") - loaded)
        plain, ranked, curvature = (
            watch.used[name] / repeats for name in ("frozen pass", "exact influence", "query curvature")
        )
        print(
            f"| {len(asked)} | {len(blocks.slices)} | {'whole' if blocks.hold is whole else 'rounded'} | {plain:.1f} "
            f"| {ranked:.1f} | {ranked / plain:.2f} | {curvature:.1f} | {most:.2f} |",
            flush=True,
        )
    errors(index, ordinals)


def errors(index: GradientIndex, ordinals: np.ndarray, queries: int = 4) -> None:
    """Print how far influence is from that of whole queries in float32, own documents left out."""
    reranker, documents = index.reranker, index.snapshot.documents
    asked = sample_queries(documents, queries, index.snapshot.usable, 0)
    objectives = documents.objectives(ordinals)
    wanted_QN = asked.documents[:, None] != documents.part_documents()[ordinals]

    def influence(hold: Hold) -> np.ndarray:
        with Silent().phase("exact influence", None, "parts") as phase:
            held = reranker.precondition(asked.tokens, Silent(), hold)
            return reranker.influence_of(held, objectives, wanted_QN, phase)

    found = {"whole": influence(whole), "rounded": influence(RoundedGradients.of)}
    fast = product_format.multiplies_bfloat16
    product_format.multiplies_bfloat16 = lambda: False
    exact_QN = influence(whole)
    product_format.multiplies_bfloat16 = fast
    print("\n| tokens of the query | held | error, of the scores' spread | largest error of one |\n|---|---|---|---|")
    for number, query in enumerate(asked.tokens):
        own, exact_N = wanted_QN[number], exact_QN[number]
        for name, found_QN in found.items():
            error_N, spread = (found_QN[number] - exact_N)[own], exact_N[own].std()
            deviation, largest = error_N.std() / spread, abs(error_N).max() / spread
            print(f"| {len(query.objective)} | {name} | {deviation:.5f} | {largest:.5f} |", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--work", type=Path, default=Path(".cache/bench/search"))
    parser.add_argument("--type", action="append", default=[], help="another type of FAISS index to build and compare")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--exact", action="store_true", help="measure the exact re-rank, and nothing else")
    parser.add_argument("--candidates", type=int, default=100, help="of each query, for --exact")
    parser.add_argument("--prepare", action="store_true", help="make what is kept in --work, and stop")
    arguments = parser.parse_args()
    index = GradientIndex.open(arguments.index)
    if arguments.exact:
        exact(index, arguments.repeats, arguments.candidates)
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    reader = index.snapshot.vectors
    drawn = np.sort(np.random.default_rng(2).choice(reader.spec.parts, QUERIES, replace=False))
    codes, scales = reader.coded(drawn)
    turned_codes = torch.from_numpy(turned(codes.numpy(), np.random.default_rng(1)))
    queries = decode(turned_codes, scales, 1, reader.spec.slices)
    name = f"{arguments.index.name}-{index.manifest.projection.fingerprint[:12]}"
    best = truth(reader, queries, arguments.work / f"{name}.npy")
    main = index.manifest.search.main
    place = index.snapshot.root / main.file
    benches = [Bench(arguments.index, place, spec_of(main), index.snapshot.projection)]
    for kind in arguments.type:
        path = arguments.work / f"{name}.{kind}.faiss"
        benches.append(
            Bench(
                arguments.index,
                path,
                build_faiss(path, reader, index.snapshot.projection, kind=kind),
                index.snapshot.projection,
            )
        )
    if arguments.prepare:
        return
    for threads in THREADS:
        set_threads(threads)
        print(f"{threads} threads read {bandwidth() / 1e9:.1f} GB/s")
    print(
        f"\n{reader.spec.parts:,} parts; recall of 32 queries together, and of each alone; one query on two threads:\n"
    )
    print(
        "| type | MB | @10, batch | @10, alone | @100, batch | @100, alone | ms | processor ms |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for bench in benches:
        print(bench.describe(queries, best, arguments.repeats), flush=True)
    times(benches[0], queries, arguments.repeats)
    opening(arguments.index)
    baselines(reader, queries, min(reader.spec.parts, 4000), arguments.repeats)


if __name__ == "__main__":
    main()
