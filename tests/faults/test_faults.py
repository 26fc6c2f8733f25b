"""Kills, power losses and failing storage calls: a share of what `tools/faults/run.py` does, on one seed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from faults.damage import damage_cases
from faults.layer import IO_ERROR, KILL, LOSE, NO_SPACE
from faults.scenarios import SCENARIOS, Cases, Workshop
from faults.tiny import make_tiny_model, tiny_config
from faults.writers import timed_kill, writers_case

SHARE = {"build": 6, "add": 6, "delete": 3, "compact": 6, "repair": 6, "merge": 8, "lists": 20, "grow": 10}
"""Every how manieth storage call is one to be killed at, over 100 in all; `tools/faults/run.py` takes each."""

RARER = 4
"""How much rarer the other faults are than kills."""


MEMORY = Path("/dev/shm")
"""A file system without a disk, where there is one: fsync costs nothing there, and its order is what is tested."""


@contextmanager
def workshop() -> Iterator[Workshop]:
    with TemporaryDirectory(prefix="gindex-faults-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Workshop(Path(name), tiny_config(make_tiny_model(Path(name, "model"))))


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    with workshop() as made:
        yield made


@pytest.fixture(scope="module")
def cases() -> Iterator[dict[str, Cases]]:
    with workshop() as made:
        yield {name: Cases(made, scenario) for name, scenario in SCENARIOS.items()}


def wrong(cases: Cases, mode: str, step: int) -> tuple[int, list[str]]:
    """Run every `step`-th case; return how many, and how to repeat those that fail."""
    calls = cases.calls(mode)
    some = range(1, len(calls) + 1, step)
    found = [(at, cases.run(mode, at)) for at in some]
    name = cases.scenario.name
    return len(some), [f"--only {name}:{mode}:{at}  # {calls[at - 1]}: {what}" for at, what in found if what]


def test_sigkill_at_storage_calls(cases):
    results = [wrong(cases[name], KILL, step) for name, step in SHARE.items()]
    assert [failure for _, failures in results for failure in failures] == []
    assert sum(count for count, _ in results) >= 100


@pytest.mark.parametrize("mode", [LOSE, NO_SPACE, IO_ERROR])
def test_other_faults_at_storage_calls(cases, mode):
    results = [wrong(cases[name], mode, RARER * step) for name, step in SHARE.items()]
    assert [failure for _, failures in results for failure in failures] == []


def test_sigkill_at_any_moment(shop):
    random = np.random.default_rng(0)
    assert [problem for problem in (timed_kill(shop, random) for _ in range(8)) if problem] == []


@pytest.mark.parametrize("count", [2, 8])
def test_several_writers(shop, count):
    random = np.random.default_rng(count)
    assert [problem for problem in (writers_case(shop, count, random) for _ in range(3)) if problem] == []


def test_every_damaged_byte_and_length(shop):
    random = np.random.default_rng(0)
    kinds = [(what, problem) for _, problem, what in damage_cases(shop, 100, random)]
    assert [entry for entry in kinds if entry[1] is not None] == [] and len(kinds) > 10_000
