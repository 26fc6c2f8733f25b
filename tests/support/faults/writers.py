"""Several writers at once, and kills at any time."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from gindex.change.verify import verify
from gindex.store.layout import Layout
from gindex.store.versions import version_numbers

from .scenarios import (
    DONE,
    REFUSED,
    SCENARIOS,
    Cases,
    Workshop,
    do_add,
    do_build,
    do_delete,
    small_store,
    warm_up,
)

_PREPARED: dict[tuple[Path, str], Cases] = {}


def prepared(shop: Workshop, name: str) -> Cases:
    """Prepare a scenario once."""
    if (shop.folder, name) not in _PREPARED:
        _PREPARED[shop.folder, name] = Cases(shop, SCENARIOS[name])
    return _PREPARED[shop.folder, name]


def timed_kill(shop: Workshop, random: np.random.Generator) -> str | None:
    """SIGKILL a command at any moment, not only between storage calls; return what is wrong."""
    cases = prepared(shop, str(random.choice(["build", "add", "compact", "merge", "grow"])))
    root = cases.folder / "case"
    cases._copy(root)
    (pid,) = start(shop, [lambda: cases.scenario.command(shop, root)], cases.folder)
    time.sleep(float(random.uniform(0, 0.5)))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return cases.examine(root)


def writers_case(shop: Workshop, count: int, random: np.random.Generator) -> str | None:
    """Let `count` processes write at once, some of them killed; return what is wrong."""
    if random.random() < 0.5:
        return builders(shop, count, random)
    return adders(shop, count)


def builders(shop: Workshop, count: int, random: np.random.Generator) -> str | None:
    """All build one index, all but one of them are killed sooner or later: the one that is left must finish it."""
    cases = prepared(shop, "build")
    root = cases.folder / "case"
    cases._copy(root)
    pids = start(shop, [lambda: do_build(shop, root)] * count, cases.folder)
    for pid in pids[1:]:
        time.sleep(float(random.uniform(0, 0.2)))
        if random.random() < 0.5:
            os.kill(pid, signal.SIGKILL)
    ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if ended[0] != DONE or set(ended) - {DONE, -9}:
        return f"builders ended with {ended}"
    if version_numbers(Layout(root)) != [1]:
        return f"versions {version_numbers(Layout(root))}"
    return cases.examine(root)


def adders(shop: Workshop, count: int) -> str | None:
    """Half add the same documents, half delete the same two: one of each kind wins, the others are told why."""
    cases = prepared(shop, "add")
    root = cases.folder / "case"
    cases._copy(root)
    works = [lambda: do_add(shop, root), lambda: do_delete(shop, root)]
    pids = start(shop, [works[n % 2] for n in range(count)], cases.folder)
    ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    done = [sum(status == DONE for status in ended[kind::2]) for kind in (0, 1)]
    if set(ended) - {DONE, REFUSED} or max(done) > 1 or not any(done):
        return f"writers ended with {ended}"
    if version_numbers(Layout(root)) != list(range(1, 2 + sum(done))):
        return f"versions {version_numbers(Layout(root))} after {done}"
    for version in version_numbers(Layout(root)):
        problems = verify(Layout(root), version)["problems"]
        if problems:
            return f"version {version}: {problems}"
    return None


def start(shop: Workshop, works: list, folder: Path) -> list[int]:  # type: ignore[type-arg]
    """Start a process for each work and return their ids."""
    warm_up(shop)
    pids = []
    for number, work in enumerate(works):
        pid = os.fork()
        if pid == 0:
            with small_store(shop.config):
                os._exit(_run(work, folder / f"log{number}"))
        pids.append(pid)
    return pids


def _run(work, log: Path) -> int:  # type: ignore[no-untyped-def]
    import traceback

    from gindex.errors import GindexError

    try:
        work()
    except GindexError:
        log.write_text(traceback.format_exc())
        return REFUSED
    except BaseException:
        log.write_text(traceback.format_exc())
        return 4
    return DONE
