"""Commands on a small index, each in a process of its own, and what must be true of the index afterwards.

The model is loaded once; every command runs in a fork, so that a case takes a fraction of a second.
"""

import json
import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from gindex.build import run as run_module
from gindex.build.run import run_build
from gindex.change import add as add_module
from gindex.change import merge as merge_module
from gindex.change.add import run_add
from gindex.change.compact import compact
from gindex.change.delete import delete_documents
from gindex.change.merge import merge_due, merge_volumes
from gindex.change.reindex import reindex
from gindex.change.repair import repair
from gindex.change.verify import verify
from gindex.config import BuildConfig
from gindex.errors import GindexError, NotAnIndexError
from gindex.model.tracked_model import TrackedModel
from gindex.progress import Silent
from gindex.search.funnel import Funnel
from gindex.search.search_index import index_files
from gindex.store import vectors
from gindex.store.layout import Layout
from gindex.store.snapshot import Snapshot
from gindex.store.values import values_of
from gindex.store.versions import latest_version, version_numbers

from .layer import Fault, installed

WORDS = ["the", "a", "compiler", "kernel", "stack", "heap", "lock", "thread", "race", "cache", "page", "file", "disk"]

DONE, REFUSED, BROKEN = 0, 3, 4
"""How a fork ends: well, with an error of gindex's, with any other error."""


@dataclass(frozen=True)
class Workshop:
    """A folder for cases, with a corpus and settings; `seed` varies the texts."""

    folder: Path
    config: BuildConfig
    seed: int = 0

    @property
    def corpus(self) -> Path:
        """The corpus that is built over."""
        return self._write("corpus.jsonl", "d", 10, self.seed)

    @property
    def last(self) -> Path:
        """One more document."""
        return self._write("last.jsonl", "l", 1, self.seed + 2)

    @property
    def more(self) -> Path:
        """Documents to add; one has the id of a document of the index."""
        return self._write("more.jsonl", "m", 5, self.seed + 1)

    def _write(self, name: str, prefix: str, count: int, seed: int) -> Path:
        path, random = self.folder / name, np.random.default_rng(seed)
        if not path.exists():
            lengths = random.integers(3, 9, count)
            texts = [" ".join(random.choice(WORDS, length)) for length in lengths]
            lines = [json.dumps({"id": f"{prefix}{n}", "text": text}) for n, text in enumerate(texts)]
            path.write_text("\n".join(lines) + "\n")
        return path


def in_fork(work: Callable[[], None], log: Path) -> int:
    """Run in a fork and return how it ended: DONE, REFUSED, BROKEN, or minus the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        status = DONE
        try:
            work()
        except GindexError as error:
            status = REFUSED
            log.write_text(f"{type(error).__name__}: {error}")
        except BaseException:
            status = BROKEN
            log.write_text(traceback.format_exc())
        os._exit(status)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


@cache
def engine_of(name: str) -> TrackedModel:
    """Load the model once; forks inherit it."""
    from gindex.config import ModelConfig

    torch.set_num_threads(1)
    return TrackedModel.load(ModelConfig(name=name, device="cpu"))


@cache
def warm_up(shop: "Workshop") -> None:
    """Build once in this process: what is imported and set up at the first use, forks inherit."""
    with small_store(shop.config):
        do_build(shop, shop.folder / "warm")


@contextmanager
def small_store(config: BuildConfig) -> Iterator[None]:
    """Several segments in a small index, the model as it is loaded already, and no estimate of the time."""
    engine = engine_of(config.model.name)
    with (
        mock.patch.object(vectors, "CHUNK_ROWS", 4),
        mock.patch.object(run_module, "load_tracked", lambda *_args, **_more: engine),
        mock.patch.object(add_module, "load_tracked", lambda *_args, **_more: engine),
        mock.patch.object(run_module, "make_plan", lambda *_args: None),
    ):
        yield


def do_build(shop: Workshop, root: Path) -> None:
    """`gindex build`."""
    run_build([str(shop.corpus)], root, shop.config)


def do_add(shop: Workshop, root: Path) -> None:
    """`gindex add`."""
    run_add(Layout(root), [str(shop.more)], shop.config)


def do_merge(_shop: Workshop, root: Path) -> None:
    """Merge all volumes, as `merge_due` does those that are due."""
    merge_volumes(Layout(root), lambda manifest: range(2) if len(manifest.volumes) > 1 else None, Silent())


def do_grow(shop: Workshop, root: Path) -> None:
    """`gindex add`, after which all volumes are merged: two versions."""
    with mock.patch.object(merge_module, "FANOUT", 4):
        run_add(Layout(root), [str(shop.last)], shop.config)


def do_merge_due(_shop: Workshop, root: Path) -> None:
    """What is left of it where it ended after the first version."""
    with mock.patch.object(merge_module, "FANOUT", 4):
        merge_due(Layout(root))


def do_reindex(_shop: Workshop, root: Path) -> None:
    """`gindex reindex` with lists, which are then merged with what is added."""
    reindex(Layout(root), "ivf")


def do_delete(_shop: Workshop, root: Path) -> None:
    """`gindex delete`."""
    delete_documents(Layout(root), ["d1", "d7"])


def do_compact(_shop: Workshop, root: Path) -> None:
    """`gindex compact`."""
    compact(Layout(root))


def do_repair(_shop: Workshop, root: Path) -> None:
    """`gindex repair`."""
    repair(Layout(root))


def damage_faiss(root: Path) -> None:
    """Lose what `repair` rebuilds, and a segment."""
    for path in (root / "search").iterdir():
        path.unlink()
    (root / "volumes/00000/vectors/codes/c/1/0").write_bytes(b"lost")


@dataclass(frozen=True)
class Scenario:
    """A command, the state that it starts from, and whether that state is whole.

    Attributes:
        name: Its name.
        start: Scenarios whose commands make that state.
        command: The command.
        damage: What is done to the state.
        rest: Of a command that makes two versions, what makes the second one alone.
    """

    name: str
    start: tuple[str, ...]
    command: Callable[[Workshop, Path], None]
    damage: Callable[[Path], None] | None = None
    rest: Callable[[Workshop, Path], None] | None = None


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("build", (), do_build),
        Scenario("add", ("build",), do_add),
        Scenario("delete", ("build", "add"), do_delete),
        Scenario("compact", ("build", "add", "delete"), do_compact),
        Scenario("repair", ("build", "add"), do_repair, damage_faiss),
        Scenario("merge", ("build", "add", "delete"), do_merge),
        Scenario("reindex", ("build",), do_reindex),
        Scenario("lists", ("build", "reindex", "add"), do_merge),
        Scenario("grow", ("build", "add"), do_grow, rest=do_merge_due),
    )
}


class Cases:
    """Runs cases of one scenario: a fault, then a look at the index, the same command again, and a comparison."""

    def __init__(self, shop: Workshop, scenario: Scenario) -> None:
        """Prepare the state that the command starts from, and what it comes to without a fault."""
        self.shop, self.scenario = shop, scenario
        self.folder = shop.folder / scenario.name
        self.folder.mkdir()
        self.log = self.folder / "log"
        self.start, self.expected = self.folder / "start", self.folder / "expected"
        for name in scenario.start:
            self._must(lambda name=name: SCENARIOS[name].command(shop, self.start))  # type: ignore[misc]
        if scenario.damage is not None:
            scenario.damage(self.start)
        self._copy(self.expected)
        self._must(lambda: scenario.command(shop, self.expected))
        self.before = self._state(self.start) if scenario.start and scenario.damage is None else None
        self.after = self._state(self.expected)

    def calls(self, mode: str) -> list[str]:
        """Return the storage calls of the command."""
        root, listing = self.folder / "counted", self.folder / "calls"

        def count() -> None:
            with installed(Fault(mode=mode, root=root)) as fault:
                self.scenario.command(self.shop, root)
            listing.write_text("\n".join(fault.calls))

        self._copy(root)
        self._must(count)
        return listing.read_text().splitlines()

    def run(self, mode: str, at: int) -> str | None:
        """Run the command with a fault at a call; return what is wrong, None where all is well."""
        root, survivors = self.folder / "case", self.folder / "survivors"
        self._copy(root)
        shutil.rmtree(survivors, ignore_errors=True)

        def command() -> None:
            with installed(Fault(mode=mode, at=at, root=root, survivors=survivors)):
                self.scenario.command(self.shop, root)

        ended = self._fork(command)
        if ended not in (DONE, REFUSED, -9):
            return f"ended with {ended}: {self.log.read_text() if self.log.exists() else ''}"
        if survivors.exists() or (mode == "lose" and ended == -9):
            shutil.rmtree(root, ignore_errors=True)
            if survivors.exists():
                survivors.rename(root)
        return self.examine(root)

    def examine(self, root: Path) -> str | None:
        """Look at the index in a new process, run the command again, and compare with what it comes to unhurt."""
        ended = self._fork(lambda: self._examine(root))
        return None if ended == DONE else self.log.read_text() if self.log.exists() else f"ended with {ended}"

    def _examine(self, root: Path) -> None:
        versions = version_numbers(Layout(root))
        first = len(self.scenario.start)
        found = len(versions) > first
        partly = found and len(versions) < len(version_numbers(Layout(self.expected)))
        if versions and self.scenario.damage is None:
            state = self._state(root)
            if not partly:
                self._same(state, self.after if found else self.before, "after the fault")
        if not versions:
            with suppress(NotAnIndexError):
                Snapshot.open(Layout(root))
        if not found:
            self.scenario.command(self.shop, root)
        if partly:
            assert self.scenario.rest is not None, f"versions {versions}"
            self.scenario.rest(self.shop, root)
        self._same(self._state(root), self.after, "after the same command again")

    def _state(self, root: Path) -> dict[str, Any]:
        """Everything that an index is: every file that the newest manifest names, and the manifest but for the time."""
        box: dict[str, Any] = {}
        layout = Layout(root)
        report = verify(layout)
        expected = [] if self.scenario.damage is None else ["lost"]
        wrong = [problem for problem in report["problems"] if not any(word in problem for word in expected)]
        if wrong and self.scenario.damage is None:
            raise AssertionError(f"verify: {wrong}")
        manifest = Snapshot.open(layout, allow_degraded=self.scenario.damage is not None).manifest
        box["manifest"] = values_of(manifest) | {"created": None}
        for file in manifest.files:
            path = root / file.path
            box[file.path] = path.read_bytes() if path.exists() else None
        if len(self.scenario.start) > 0:
            box["first version"] = layout.manifest(1).read_bytes()
            box["versions"] = latest_version(layout)
        return box

    def _same(self, got: dict[str, Any], wanted: dict[str, Any] | None, when: str) -> None:
        assert wanted is not None, f"{when}: a version that must not be there"
        ignored = {"first version"}
        differing = [
            key for key in sorted(got.keys() | wanted.keys()) if key not in ignored and got.get(key) != wanted.get(key)
        ]
        assert not differing, f"{when}: {differing} differ"

    def _copy(self, root: Path) -> None:
        shutil.rmtree(root, ignore_errors=True)
        if self.start.exists():
            shutil.copytree(self.start, root)

    def _fork(self, work: Callable[[], None]) -> int:
        self.log.unlink(missing_ok=True)

        def prepared() -> None:
            with small_store(self.shop.config):
                work()

        warm_up(self.shop)
        return in_fork(prepared, self.log)

    def _must(self, work: Callable[[], None]) -> None:
        if self._fork(work) != DONE:
            raise RuntimeError(self.log.read_text() if self.log.exists() else "killed")


def search_all(root: Path, allow_degraded: bool = False) -> list[tuple[int, float]]:
    """Search with fixed query vectors, without the model, and return ordinals and scores."""
    version = Snapshot.open(Layout(root), allow_degraded=allow_degraded)
    reader = version.vectors
    funnel = Funnel(index_files(version, check=version.checked), reader, version.excluded)
    version.check_factors()
    queries = torch.randn(2, version.projection.dimension, generator=torch.Generator().manual_seed(0))
    hits = []
    with version.table() as table:
        for found in funnel.search(queries, 5):
            parts = table.parts(found.ordinals.tolist())
            reader.decoded(found.ordinals)
            hits += [
                (part.document_id, part.text, round(float(score), 5))
                for part, score in zip(parts, found.scores, strict=True)
            ]
    return hits
