"""Add, delete, replace, merge, compact and search at once for a while, every answer checked against a scan.

    python tools/faults/soak.py --minutes 60
    python tools/faults/soak.py --minutes 60 --kill 30

Two processes write to one small index, others search it. With `--kill`, a writer is killed every so many seconds and
starts again. What must hold stands in `tests/support/faults/soak.py`. Prints what was done and how much was checked.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))  # for `faults`

from faults.soak import Ledger, make_index, search, write

from gindex.change.verify import verify
from gindex.store.layout import Layout

WRITERS = 2


def main() -> int:
    """Soak, and print the counts; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="How long.")
    parser.add_argument("--searchers", type=int, default=1, help="Processes that search.")
    parser.add_argument("--kill", type=float, default=0.0, help="Kill a writer every so many seconds; 0 never.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of what is drawn.")
    parser.add_argument("--folder", type=Path, help="Where to work; a memory file system is quickest.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gindex-soak-", dir=arguments.folder) as folder:
        return soak(arguments, Path(folder))


def soak(arguments: argparse.Namespace, folder: Path) -> int:
    """Run the processes until the time is over."""
    make_index(folder)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gindex.index", "gindex.build.run", "faults.soak"])
    start, seed, kills = time.time(), arguments.seed, 0
    until = start + 60 * arguments.minutes

    def begin(target, number: int):  # type: ignore[no-untyped-def]
        nonlocal seed
        seed += 1
        process = context.Process(target=target, args=(folder, number, seed, until))
        process.start()
        return process

    for number in range(WRITERS):
        Ledger(folder / f"ledger{number}").note(begin="start", texts={})
        Ledger(folder / f"ledger{number}").note(end="done")
    writers = [begin(write, number) for number in range(WRITERS)]
    searchers = [begin(search, number) for number in range(arguments.searchers)]
    while any(process.is_alive() for process in [*writers, *searchers]) and time.time() < until + 60:
        time.sleep(min(arguments.kill or 10.0, 10.0, max(0.1, until - time.time())))
        if arguments.kill and time.time() - start > (kills + 1) * arguments.kill and time.time() < until:
            number = kills % WRITERS
            writers[number].kill()
            writers[number].join()
            writers[number] = begin(write, number)
            kills += 1
    for process in [*writers, *searchers]:
        process.join()
    return report(folder, [process.exitcode for process in [*writers, *searchers]], kills, time.time() - start)


def report(folder: Path, ended: list[int | None], kills: int, seconds: float) -> int:
    """Print what was done and checked, and verify the index as it is left."""
    changes: Counter[str] = Counter()
    for path in folder.glob("changes*.json"):
        changes += Counter(json.loads(path.read_text()))
    path = folder / "problems"
    problems = path.read_text().splitlines() if path.exists() else []
    problems += [
        entry["problem"] for path in folder.glob("ledger*") for entry in Ledger(path).entries() if "problem" in entry
    ]
    problems += verify(Layout(folder / "index"), deep=True)["problems"]
    problems += [f"a process ended with {code}" for code in ended if code]
    print(f"{seconds:.0f} s, {kills} writers killed")
    print("changes:", json.dumps(dict(sorted(changes.items()))))
    for path in sorted(folder.glob("answers*.json")):
        print("checked:", path.read_text())
    print("\n".join(problems[:50]))
    print(f"{len(problems)} failures")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
