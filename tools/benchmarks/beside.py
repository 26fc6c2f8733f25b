"""What a build and its eigendecompositions take beside a busy process on every core, and alone.

    python tools/data/fetch_model.py
    python tools/benchmarks/beside.py examples/jargon/lexicon.jsonl --model .cache/models/SmolLM2-135M-Instruct

Alone and beside take turns, and each figure is the least of its rounds: other work on the machine only adds. A matrix
is decomposed in two ways: side by side, one thread each, as gindex does, and in turn on all threads, as torch would.
With `--spinning` a build is also timed whose threads wait as GNU OpenMP lets them where nothing is said. What comes
after `--` goes to `gindex build`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

MATRICES = """
import sys, time, torch
from gindex.curvature.eigenbasis import decomposed
size, count, beside = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "side by side"
x = torch.randn(size, 2 * size, dtype=torch.float64, device="cpu")
pieces = [x @ x.T / size] * count
act = decomposed if beside else lambda decompose, pieces, *_: map(decompose, pieces)
list(act(torch.linalg.eigh, pieces[:1], size, x.device))
began = time.perf_counter()
list(act(torch.linalg.eigh, pieces, size, x.device))
print((time.perf_counter() - began) / count)
"""

WAITS = {"asleep": {"OMP_WAIT_POLICY": "PASSIVE"}, "spinning": {"GOMP_SPINCOUNT": "300000"}}
"""GNU's OpenMP spins so often where nothing is said; a command of gindex says that it shall not."""


@contextmanager
def busy() -> Iterator[None]:
    """Keep every core busy with a process, and end those."""
    forever = f"import os\nwhile os.getppid() == {os.getpid()}: pass"  # or until this process is gone
    loops = [subprocess.Popen([sys.executable, "-c", forever]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def decomposition(size: int, count: int, way: str, environment: dict[str, str]) -> float:
    """Return the seconds that a matrix takes."""
    command = [sys.executable, "-c", MATRICES, str(size), str(count), way]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    return float(done.stdout)


def build(corpus: str, model: str, options: list[str], environment: dict[str, str]) -> float:
    """Return the seconds that a build takes."""
    gindex = Path(sys.executable).with_name("gindex")
    with tempfile.TemporaryDirectory() as folder:
        command = [gindex, "build", corpus, "--model", model, "--out", f"{folder}/index", *options]
        began = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True, env=os.environ | environment)
        return time.perf_counter() - began


def compare(name: str, measure: Callable[[], float], rounds: int) -> None:
    """Print a row: alone, beside, and their ratio."""
    alone, beside = [], []
    for _ in range(rounds):
        alone.append(measure())
        with busy():
            beside.append(measure())
    print(f"| {name} | {min(alone):.3f} | {min(beside):.3f} | {min(beside) / min(alone):.2f} |", flush=True)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spinning", action="store_true", help="also build with threads that spin while they wait")
    given = [*sys.argv[1:], "--"]
    asked, options = parser.parse_args(given[: given.index("--")]), given[given.index("--") + 1 : -1]
    print(f"{os.cpu_count()} cores, seconds, the least of {asked.rounds} rounds")
    print("\n| | alone | beside a busy process on each core | ratio |\n|---|---|---|---|", flush=True)
    for size, count in ((576, 8), (1536, 2)):
        for way, wait in (("side by side", "asleep"), ("in turn", "spinning")):
            measure = partial(decomposition, size, count, way, WAITS[wait])
            compare(f"a matrix of {size}, {way}", measure, asked.rounds)
    for wait in list(WAITS)[: 1 + asked.spinning]:
        measure = partial(build, asked.corpus, asked.model, options, WAITS[wait])
        compare(f"gindex build, threads wait {wait}", measure, asked.rounds)


if __name__ == "__main__":
    main()
