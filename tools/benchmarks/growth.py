"""What each operation on an index costs, and how that grows with the number of parts.

    python tools/benchmarks/growth.py make .cache/bench/growth 10000 100000
    python tools/benchmarks/growth.py run .cache/bench/growth 10000 100000
    python tools/benchmarks/growth.py run .cache/bench/growth 10000 100000 --python ../before/.venv/bin/python
    python tools/benchmarks/growth.py adds .cache/bench/growth/10000 200

`make` builds an index of a random Llama, and larger ones from it (see `multiply_index.py`). `run` measures each
operation on a copy, in a process of its own: processor seconds after all imports, bytes that the process read and wrote
by system calls (mapped files apart), the growth of its peak memory, and the exponents of the first two from the first
size to the last.
`adds` adds documents one by one and compares the index with the same one compacted. With `--python`, the operations are
those of another checkout of gindex, which must read the format.
"""

import argparse
import json
import math
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).resolve().parents[2] / "tests" / "support"
WORDS = ["compiler", "kernel", "stack", "heap", "lock", "thread", "race", "cache", "page", "file", "disk", "the", "a"]
REPEATS = 5
"""Later searches, of which the median is taken."""

Measures = dict[str, float]


def io_counts() -> dict[str, int]:
    """Bytes of this process's system calls so far."""
    pairs = (line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return {name: int(value) for name, value in pairs}


def measured(work: Callable[[], Any]) -> Measures:
    """Run some work; its processor seconds, megabytes read and written, and what it adds to the peak of memory."""
    before, start, peak = io_counts(), time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    seconds, after = time.process_time() - start, io_counts()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": seconds,
        "read": (after["rchar"] - before["rchar"]) / 1e6,
        "written": (after["wchar"] - before["wchar"]) / 1e6,
        "memory": (most - peak) / 1e3,
    }


def operate(folder: Path, name: str) -> Measures:
    """Do one operation on an index; called in a process of its own, whatever version of gindex that has."""
    import torch

    from gindex import GradientIndex
    from gindex.change.compact import compact
    from gindex.change.delete import delete_documents
    from gindex.change.verify import verify
    from gindex.store.layout import Layout

    layout, warm = Layout(folder), folder.parent / "warm"
    ask = {"k": 10}
    if name.startswith("where"):
        ask |= {"where": {"where one": "id = 'd7#1'", "where half": "id < 'd5'"}[name]}
    query = torch.randn(1, GradientIndex.open(folder).manifest.projection.dimension)
    texts = folder.parent / "one.jsonl"
    texts.write_text(json.dumps({"id": f"new {time.time()}", "text": " ".join(WORDS)}) + "\n")

    def search(index: GradientIndex) -> Any:
        return index.search_vectors(query, **ask)

    if name in ("add", "delete"):  # whatever is imported and set up by the first of them
        shutil.rmtree(warm, ignore_errors=True)
        shutil.copytree(folder.parent / "small", warm)
        GradientIndex.open(warm, device="cpu").add([str(texts)])
        delete_documents(Layout(warm), ["d1"])
    else:
        search(GradientIndex.open(folder.parent / "small"))
    index = GradientIndex.open(folder, device="cpu")
    if name == "open":
        return measured(lambda: GradientIndex.open(folder))
    if name in ("first search", "where one", "where half"):
        return measured(lambda: search(index))
    if name == "later search":
        search(index)
        each = [measured(lambda: search(index)) for _ in range(REPEATS)]
        return {key: statistics.median(of[key] for of in each) for key in each[0]}
    works: dict[str, Callable[[], Any]] = {
        "add": lambda: index.add([str(texts)]),
        "delete": lambda: delete_documents(layout, ["d3#1"]),
        "words": lambda: index.lexical("compiler kernel", 10),
        "outliers": lambda: index.outliers(10),
        "verify": lambda: verify(layout),
        "verify deep": lambda: verify(layout, deep=True),
        "compact": lambda: compact(layout),
    }
    return measured(works[name])


OPERATIONS = [
    "open", "first search", "later search", "where one", "where half", "words", "outliers", "verify", "verify deep",
    "add", "add again", "delete", "compact",
]  # fmt: skip


def run(folder: Path, sizes: list[int], python: str, operations: list[str]) -> None:
    """Measure and print a table."""
    rows: dict[str, list[Measures]] = {name: [] for name in operations}
    for size in sizes:
        copy = folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder / str(size), copy)
        for name in operations:
            command = [python, __file__, "operate", str(copy), name.removesuffix(" again")]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{name} of {size:,}: {done.stderr[-2000:]}")
            rows[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{size:,} {name}: {rows[name][-1]}", file=sys.stderr, flush=True)
    print("| operation | " + " | ".join(f"{size:,}: s, MB read, written, memory" for size in sizes) + " | exponents |")
    print("|---|" + "---|" * (len(sizes) + 1))
    for name, each in rows.items():
        cells = [f"{m['seconds']:.3f}, {m['read']:,.1f}, {m['written']:,.1f}, {m['memory']:,.0f}" for m in each]
        print(f"| {name} | " + " | ".join(cells) + f" | {exponents(sizes, each)} |")


def exponents(sizes: list[int], each: list[Measures]) -> str:
    """Of seconds and bytes read: the power of the number of parts with which they rise from the first to the last."""
    ratio = math.log(sizes[-1] / sizes[0]) if len(sizes) > 1 else 1.0
    first, last = each[0], each[-1]
    found = [math.log(max(last[key], 1e-3) / max(first[key], 1e-3)) / ratio for key in ("seconds", "read")]
    return ", ".join(f"{exponent:.2f}" for exponent in found)


def make(folder: Path, sizes: list[int], dimension: int) -> None:
    """Build the small index, and the others from it."""
    import numpy as np

    sys.path.insert(0, str(SUPPORT))
    from faults.tiny import make_tiny_model
    from multiply_index import multiply_index

    from gindex import GradientIndex
    from gindex.config import BuildConfig, CorpusConfig, CurvatureConfig, FidelityConfig, ModelConfig, VectorConfig
    from gindex.progress import Silent

    folder.mkdir(parents=True, exist_ok=True)
    corpus, random = folder / "corpus.jsonl", np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, 24)) for _ in range(500)]
    corpus.write_text("".join(json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    config = BuildConfig(
        model=ModelConfig(name=str(make_tiny_model(folder / "model", 64, 2).resolve()), device="cpu"),
        corpus=CorpusConfig(max_tokens=32),
        curvature=CurvatureConfig(fit_documents=100, index_damping=1.0),
        vectors=VectorConfig(dimension=dimension, rank_fraction=0.5, bits=1),
        fidelity=FidelityConfig(queries=0),
    )
    if not (folder / "small").is_dir():
        GradientIndex.build([str(corpus)], folder / "small", config)
    for size in sizes:
        multiply_index(folder / "small", size, folder / str(size), Silent())


def adds(source: Path, count: int) -> None:
    """Add documents one by one, and compare with the same index compacted."""
    import torch

    from gindex import GradientIndex
    from gindex.change.compact import compact
    from gindex.change.history import prune
    from gindex.store.layout import Layout

    folder, texts = source.parent / "grown", source.parent / "one.jsonl"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    layout, each, most = Layout(folder), [], 0
    for number in range(count):
        texts.write_text(json.dumps({"id": f"new {number}", "text": " ".join(WORDS[number % 13 :] + WORDS)}) + "\n")
        index = GradientIndex.open(folder, device="cpu")
        each.append(measured(lambda index=index: index.add([str(texts)])))  # type: ignore[misc]
        most = max(most, len(list(Path("/proc/self/fd").iterdir())))
    queries = torch.randn(20, 1, index.manifest.projection.dimension)

    def search() -> Measures:
        opened = GradientIndex.open(folder)
        opened.search_vectors(queries[0])
        times = [measured(lambda q=q: opened.search_vectors(q))["seconds"] for q in queries]  # type: ignore[misc]
        return {"volumes": len(opened.manifest.volumes), "median": statistics.median(times), "disk": size_of(folder)}

    for key in ("seconds", "read", "written"):
        ordered = sorted(of[key] for of in each)
        print(f"an add, {key}: median {ordered[count // 2]:.3f}, mean {statistics.mean(ordered):.3f}, "
              f"most {ordered[-1]:.3f}")  # fmt: skip
    prune(layout)
    grown = search()
    compact(layout)
    prune(layout)
    print(f"{count} adds: {grown}; compacted: {search()}; most open files {most}")


def size_of(folder: Path) -> float:
    """Megabytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("--dimension", type=int, default=30720)
    running = commands.add_parser("run")
    running.add_argument("--python", default=sys.executable, help="The interpreter of the checkout to measure.")
    running.add_argument("--operation", action="append", choices=OPERATIONS, help="Only some; give it again for more.")
    for command in (making, running):
        command.add_argument("folder", type=Path)
        command.add_argument("sizes", type=int, nargs="+")
    for name in ("operate", "adds"):
        command = commands.add_parser(name)
        command.add_argument("folder", type=Path)
        command.add_argument("what")
    arguments = parser.parse_args()
    if arguments.command == "make":
        make(arguments.folder, arguments.sizes, arguments.dimension)
    elif arguments.command == "run":
        run(arguments.folder, arguments.sizes, arguments.python, arguments.operation or OPERATIONS)
    elif arguments.command == "operate":
        print(json.dumps(operate(arguments.folder, arguments.what)))
    else:
        adds(arguments.folder, int(arguments.what))


if __name__ == "__main__":
    main()
