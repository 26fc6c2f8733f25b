"""Time of the scores of all documents: put together by the value of a field, and written into a file.

    python tools/benchmarks/multiply_index.py runs/jargon 50000 .cache/bench/sources/50000
    python tools/benchmarks/sources.py .cache/bench/sources/50000 letter headword

Queries are stored vectors. Each line is the better of two runs; the first reads the field, which is kept, and the
documents of the parts. The figures stand in docs/benchmarks/search.md.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torch import Tensor

from gindex import GradientIndex
from gindex.queries.query import Query
from gindex.search.score_file import write_scores
from gindex.search_options import ScoreOptions

QUERIES = (1, 8, 32)


def best_of_two(act: Callable[[int], object]) -> float:
    """Seconds of the better of two runs."""
    seconds = []
    for run in range(2):
        start = time.perf_counter()
        act(run)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(index: GradientIndex, vectors_QD: Tensor, fields: Sequence[str], folder: Path) -> None:
    """Print the times for some queries."""
    options, sweeper = ScoreOptions(), index.searcher.sweeper
    queries = [Query(prompt="", id=f"q{number}") for number in range(len(vectors_QD))]

    def write(ending: str, run: int) -> None:
        out = folder / f"{len(queries)}-{run}.{ending}"
        write_scores(index.snapshot, queries, out, options, lambda: sweeper.scores(vectors_QD, options))

    works: dict[str, Callable[[int], object]] = {"scan": lambda _run: index.search_vectors(vectors_QD, scan=True)}
    for field in fields:
        works[f"group_by {field}"] = lambda _run, field=field: index.search_vectors(vectors_QD, group_by=field)
    works |= {ending: partial(write, ending) for ending in ("npy", "parquet", "jsonl")}
    for name, work in works.items():
        seconds = best_of_two(work)
        print(f"{index.manifest.stored_parts:,} parts, {len(queries)} queries: {name} {seconds:.2f} s", flush=True)


def main() -> None:
    """Measure, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("fields", nargs="+")
    arguments = parser.parse_args()
    index = GradientIndex.open(arguments.index, device="cpu")
    with TemporaryDirectory() as folder:
        for count in QUERIES:
            drawn = np.random.default_rng(0).integers(0, index.manifest.stored_parts, count)
            measure(index, index.snapshot.vectors.decoded(drawn), arguments.fields, Path(folder))


if __name__ == "__main__":
    main()
