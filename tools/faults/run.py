"""Hurt an index in every way a machine can, and check that nothing is lost and nothing wrong is returned.

    python tools/faults/run.py --cases 3000 --seed 0

Kinds of cases: SIGKILL and power loss at a storage call of a command, ENOSPC and EIO at one, SIGKILL after some time,
every byte of every file flipped and every file cut, several writers at once. A failure prints how to repeat it.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))  # for `faults`

from faults.damage import damage_cases
from faults.layer import IO_ERROR, KILL, LOSE, NO_SPACE
from faults.scenarios import SCENARIOS, Cases, Workshop
from faults.tiny import make_tiny_model, tiny_config
from faults.writers import timed_kill, writers_case

MODES = (LOSE, NO_SPACE, IO_ERROR, KILL)


def main() -> int:
    """Run the cases and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=3000, help="How many cases at storage calls to run at least.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the corpora and of what is drawn.")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, help="Faults at storage calls.")
    parser.add_argument("--commands", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), help="Commands to hurt.")
    parser.add_argument("--only", help="One case: SCENARIO:MODE:CALL, as a failure prints it.")
    parser.add_argument("--timed", type=int, default=50, help="Kills after some time.")
    parser.add_argument("--writers", type=int, default=20, help="Rounds of several writers.")
    parser.add_argument(
        "--flips", type=int, default=2000, help="Damaged files that are searched, of all that are checked."
    )
    parser.add_argument("--folder", type=Path, help="Where to work; a memory file system is quickest.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gindex-faults-", dir=arguments.folder) as folder:
        return run(arguments, Path(folder))


def run(arguments: argparse.Namespace, folder: Path) -> int:
    """Run what was asked for; return the exit code."""
    model = make_tiny_model(folder / "model")
    counts: Counter[str] = Counter()
    failures: list[str] = []
    start, seed, done = time.monotonic(), arguments.seed, 0

    def report(kind: str, problem: str | None, repeat: str) -> None:
        counts[kind] += 1
        if problem is not None:
            failures.append(kind)
            print(f"FAILED {kind}: {problem.strip()[-1500:]}\n  repeat: {repeat}", flush=True)

    while True:
        shop = Workshop(folder / f"seed{seed}", tiny_config(model, seed), seed)
        shop.folder.mkdir()
        for name, scenario in SCENARIOS.items():
            chosen = [arguments.only.split(":")[0]] if arguments.only else arguments.commands
            if name not in chosen:
                continue
            cases = Cases(shop, scenario)
            for mode in arguments.modes:
                calls = cases.calls(mode)
                for at in range(1, len(calls) + 1):
                    if arguments.only in (None, f"{name}:{mode}:{at}"):
                        options = f"--seed {seed} --only {name}:{mode}:{at}"
                        repeat = f"python tools/faults/run.py {options}  # {calls[at - 1]}"
                        report(f"{name} {mode}", cases.run(mode, at), repeat)
                        done += 1
                print(f"seed {seed}, {name} {mode}: {len(calls)} calls, {time.monotonic() - start:.0f} s", flush=True)
            print(f"seed {seed}, {name}: {done} cases, {time.monotonic() - start:.0f} s", flush=True)
        if arguments.only or done >= arguments.cases:
            break
        seed += 1
    if not arguments.only:
        random = np.random.default_rng(arguments.seed)
        shop = Workshop(folder / "more", tiny_config(model, arguments.seed), arguments.seed)
        shop.folder.mkdir()
        for n in range(arguments.timed):
            report("timed kill", timed_kill(shop, random), f"the {n + 1}. of --timed with --seed {arguments.seed}")
        for n in range(arguments.writers):
            problem = writers_case(shop, 2 + n % 7, random)
            report(f"{2 + n % 7} writers", problem, f"the {n + 1}. of --writers with --seed {arguments.seed}")
        for kind, problem, what in damage_cases(shop, arguments.flips, random):
            report(kind, problem, what)
    print("\n".join(f"{count:>8,}  {kind}" for kind, count in counts.items()))
    print(f"{sum(counts.values()):,} cases, {len(failures)} failed, {time.monotonic() - start:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
