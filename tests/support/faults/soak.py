"""An index that processes write to, merge and search at once, and what must be true of every answer.

Writers note each change before they begin it and once it is acknowledged, each in a ledger of its own. A searcher opens
the newest version again and again, and compares its documents with the ledgers and its answers with a scan, in float64,
of the vectors that the version itself has stored.

Axes: N parts, D dimension.
"""

import json
import os
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex import GradientIndex
from gindex.change.compact import compact
from gindex.change.delete import delete_documents
from gindex.change.history import prune
from gindex.change.merge import merge_due
from gindex.change.reindex import reindex
from gindex.config import BuildConfig, CorpusConfig, CurvatureConfig, FidelityConfig, ModelConfig, VectorConfig
from gindex.errors import BusyError, CorruptStoreError
from gindex.progress import Silent
from gindex.store.layout import Layout
from gindex.store.versions import latest_version, version_numbers

from .scenarios import WORDS
from .tiny import make_tiny_model

CHANGES = {
    "add": 0.5, "replace": 0.12, "delete": 0.22, "merge": 0.08, "prune": 0.04, "reindex": 0.025, "compact": 0.015,
}  # fmt: skip
"""Kinds of changes and their shares."""

MOST_DOCUMENTS = 400
"""Documents of a writer from which on it adds no more than it deletes."""

LOSSY_RECALL = 0.5
"""Least share of the best k that an index of signs alone must find; the mean is reported."""

ROUNDING = 1e-5
"""Largest error of a score in float32, relative to the product of the two norms."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a ledger says of a document: its text, None where it is deleted; the change that it comes of, and whether
    that was acknowledged."""

    text: str | None
    change: int
    sure: bool


class Ledger:
    """The changes of one writer: each is noted before it begins, and when it has ended."""

    def __init__(self, path: Path) -> None:
        """Go on with a ledger, or begin one."""
        self._path = path

    def note(self, **entry: Any) -> None:
        """Add a line, in one write."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(descriptor, (json.dumps(entry) + "\n").encode())
        finally:
            os.close(descriptor)

    def entries(self) -> list[dict[str, Any]]:
        """All lines so far."""
        return [json.loads(line) for line in self._path.read_text().splitlines()] if self._path.exists() else []

    def known(self) -> dict[str, Known]:
        """What is known of every document."""
        known: dict[str, Known] = {}
        begun: dict[str, Known | None] = {}
        for number, entry in enumerate(self.entries()):
            if "begin" in entry:
                begun = {name: known.get(name) for name in entry["texts"]}
                for name, text in entry["texts"].items():
                    known[name] = Known(text=text, change=number, sure=False)
            elif entry["end"] == "done":
                known |= {name: Known(text=known[name].text, change=number, sure=True) for name in begun}
            else:  # refused: as it was before
                for name, before in begun.items():
                    known[name] = Known(text=before and before.text, change=number, sure=True)
        return known


class Writer:
    """Changes an index at random, for ever."""

    def __init__(self, folder: Path, number: int, seed: int) -> None:
        """Take the soak's folder, and which of the writers it is."""
        self.folder, self.number = folder, number
        self.layout = Layout(folder / "index")
        self.ledger = Ledger(folder / f"ledger{number}")
        self.random = np.random.default_rng(seed)
        self.made = len(self.ledger.entries())

    def settle(self) -> None:
        """After a kill: see whether the change that was under way came to be, whole or not at all."""
        unsure = {name: known.text for name, known in self.ledger.known().items() if not known.sure}
        if not unsure:
            return
        ids = set(GradientIndex.open(self.layout.root).ids())
        entry = self.ledger.entries()[-1]
        come = {(name in ids) == (text is not None) for name, text in unsure.items()}
        if entry["begin"] == "replace":  # the id is there either way: the text tells
            index = GradientIndex.open(self.layout.root)
            come = {index.document(name).text == text for name, text in unsure.items()}
        if len(come) > 1:
            self.ledger.note(problem=f"half of a killed {entry['begin']} was committed: {sorted(unsure)}", end="done")
        else:
            self.ledger.note(end="done" if come == {True} else "refused")

    def change(self) -> str:
        """Make one change; return its kind, with ` refused` where another process was writing."""
        alive = [name for name, known in self.ledger.known().items() if known.text is not None]
        kind = str(self.random.choice(list(CHANGES), p=list(CHANGES.values())))
        if kind in ("delete", "replace") and len(alive) < 10:
            kind = "add"
        if kind == "add" and len(alive) > MOST_DOCUMENTS:
            kind = "delete"
        texts = self._texts(kind, alive)
        self.ledger.note(begin=kind, texts=texts)
        try:
            self._do(kind, texts)
        except BusyError:
            self.ledger.note(end="refused")
            return f"{kind} refused"
        self.ledger.note(end="done")
        return kind

    def _texts(self, kind: str, alive: list[str]) -> dict[str, str | None]:
        self.made += 1
        count = int(self.random.integers(1, 4))
        if kind == "add":
            return {f"w{self.number}-{self.made}-{n}": self._text() for n in range(count)}
        if kind == "replace":
            return {str(name): self._text() for name in self.random.choice(alive, 1)}
        if kind == "delete":
            return {str(name): None for name in self.random.choice(alive, count, replace=False)}
        return {}

    def _text(self) -> str:
        return " ".join(self.random.choice(WORDS, int(self.random.integers(4, 12))))

    def _do(self, kind: str, texts: dict[str, str | None]) -> None:
        if kind in ("add", "replace"):
            path = self.folder / f"texts{self.number}.jsonl"
            path.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()))
            GradientIndex.open(self.layout.root, device="cpu").add([str(path)], replace=kind == "replace")
        elif kind == "delete":
            delete_documents(self.layout, list(texts))
        elif kind == "merge":
            merge_due(self.layout)
        elif kind == "prune":
            prune(self.layout, keep=int(self.random.integers(1, 20)))
        elif kind == "reindex":
            reindex(self.layout, str(self.random.choice(["flat", "rabitq", "rabitq", "fp16"])))
        else:
            compact(self.layout)


@dataclass(frozen=True, kw_only=True, eq=False)
class Content:
    """A version as its own files have it: ids and texts [N] of the parts that may be found, and the vectors [N, D]."""

    ids: list[str]
    texts: list[str]
    vectors_ND: npt.NDArray[np.float64]

    @classmethod
    def of(cls, index: GradientIndex) -> "Content":
        """Read the tables by SQL and decode every stored vector."""
        manifest, layout = index.manifest, index.snapshot.layout
        gone = {int(ordinal) for ordinal in manifest.skipped}
        for start, stop in manifest.deleted:
            gone |= set(range(start, stop))
        rows = []
        for volume in manifest.volumes:
            with closing(sqlite3.connect(f"file:{layout.volume(volume.number).documents}?immutable=1", uri=True)) as of:
                rows += of.execute(
                    "SELECT p.ordinal, d.id, d.text FROM parts p JOIN documents d ON d.ordinal = p.document"
                ).fetchall()
        kept = sorted(row for row in rows if row[0] not in gone)
        ordinals = np.array([row[0] for row in kept], np.int64)
        vectors_ND = index.snapshot.vectors.decoded(ordinals).numpy().astype(np.float64)
        return cls(ids=[row[1] for row in kept], texts=[row[2] for row in kept], vectors_ND=vectors_ND)


class Searcher:
    """Asks the newest version, and checks what it says."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Take the soak's folder."""
        self.layout = Layout(folder / "index")
        self.ledgers = [Ledger(path) for path in sorted(folder.glob("ledger*"))]
        self.random = np.random.default_rng(seed)
        self.counts: Counter[str] = Counter()
        self.recalls: list[float] = []
        self._before: tuple[GradientIndex, npt.NDArray[np.float32], list[tuple[str, float]]] | None = None

    def look(self) -> list[str]:
        """Open the newest version and check it; return what is wrong."""
        earlier = [ledger.known() for ledger in self.ledgers]
        index = GradientIndex.open(self.layout.root)
        later = [ledger.known() for ledger in self.ledgers]
        version = index.manifest.version
        try:
            content = Content.of(index)
            problems = self._documents(content, earlier, later)
            for _ in range(8):
                problems += self._answer(index, content)
            problems += self._reader_of_before(index)
        except (CorruptStoreError, sqlite3.Error, FileNotFoundError) as error:
            if version in version_numbers(self.layout):
                return [f"version {version}: {type(error).__name__}: {error}"]
            self.counts["versions pruned while they were read"] += 1
            self._before = None
            return []
        self.counts["versions"] += 1
        return [f"version {version}: {problem}" for problem in problems]

    def _documents(self, content: Content, earlier: list[dict[str, Known]], later: list[dict[str, Known]]) -> list[str]:
        """Compare with what was acknowledged before the version was opened, and not touched since."""
        found = dict(zip(content.ids, content.texts, strict=True))
        problems = [] if len(found) == len(content.ids) else ["an id is there twice"]
        for before, after in zip(earlier, later, strict=True):
            for name, known in before.items():
                if known.sure and after[name] == known:
                    self.counts["documents compared with the ledgers"] += 1
                    if found.get(name) != known.text:
                        problems.append(f"{name}: expected {known.text!r}, found {found.get(name)!r}")
        return problems

    def _answer(self, index: GradientIndex, content: Content) -> list[str]:
        """Ask one query in one of the ways, and compare with the scan."""
        dimension, total = content.vectors_ND.shape[1], len(content.ids)
        query_D = self.random.standard_normal(dimension).astype(np.float32)
        if self.random.random() < 0.5:  # near a part
            query_D = (content.vectors_ND[self.random.integers(total)] + 0.3 * query_D).astype(np.float32)
        k, way = int(self.random.choice([1, 5, 20])), str(self.random.choice(["index", "scan", "where"]))
        begin = str(self.random.choice(["d3", "w0-5", "w1"]))
        options: dict[str, Any] = {"index": {}, "scan": {"scan": True}, "where": {"where": f"id >= '{begin}'"}}[way]
        allowed = np.array([way != "where" or name >= begin for name in content.ids])
        hits = index.search_vectors(query_D[None], k=k, **options)[0].hits
        self.counts[f"answers by {way}"] += 1
        scores = content.vectors_ND @ query_D.astype(np.float64)
        within = ROUNDING * float(np.linalg.norm(query_D) * np.linalg.norm(content.vectors_ND, axis=1).max())
        places = {name: place for place, name in enumerate(content.ids)}
        problems = []
        if len(hits) != min(k, int(allowed.sum())):
            problems.append(f"{way}: expected {min(k, int(allowed.sum()))} hits, found {len(hits)}")
        for hit in hits:
            place = places.get(hit.document_id)
            if place is None or not allowed[place] or hit.text != content.texts[place]:
                problems.append(f"{way}: found {hit.document_id} with {hit.text!r}, which is not to be found")
            elif abs(hit.score - scores[place]) > within:
                problems.append(f"{way}: expected score {scores[place]} of {hit.document_id}, found {hit.score}")
        best = np.sort(scores[allowed])[::-1][: len(hits)]
        given = np.array([hit.score for hit in hits])
        if len(given) and not problems:
            problems += self._compare(index, way, given, best, within)
        if self._before is None:
            self._before = (index, query_D, [(hit.document_id, hit.score) for hit in index_hits(index, query_D)])
        return problems

    def _compare(
        self, index: GradientIndex, way: str, given: npt.NDArray[Any], best: npt.NDArray[Any], within: float
    ) -> list[str]:
        """Compare the scores of an answer with the best there are."""
        if (np.diff(given) > within).any():
            return [f"{way}: the hits are not in order"]
        if way == "scan" or index.searcher.funnel.index.lossless:
            wrong = np.abs(given - best).max() > within
            return [f"{way}: expected the scores {best.tolist()}, found {given.tolist()}"] if wrong else []
        recall = float((given >= best[-1] - within).mean())
        self.recalls.append(recall)
        self.counts["answers of a lossy index"] += 1
        if (given > best + within).any() or recall < LOSSY_RECALL:
            return [f"{way}: expected {best.tolist()}, found {given.tolist()}"]
        return []

    def _reader_of_before(self, index: GradientIndex) -> list[str]:
        """Ask an earlier version once more what it was asked: whatever was committed since, it answers the same."""
        if self._before is None or self._before[0].manifest.version == index.manifest.version:
            return []
        (older, query_D, expected), self._before = self._before, None
        try:
            got = [(hit.document_id, hit.score) for hit in index_hits(older, query_D)]
        except CorruptStoreError:
            if older.manifest.version in version_numbers(self.layout):
                raise
            return []
        self.counts["answers of a version that was replaced meanwhile"] += 1
        return [] if got == expected else [f"version {older.manifest.version} said {expected}, then {got}"]


def index_hits(index: GradientIndex, query_D: npt.NDArray[np.float32]) -> Any:
    """The hits of a plain search."""
    return index.search_vectors(query_D[None], k=5)[0].hits


def make_index(folder: Path, documents: int = 300) -> None:
    """Build the index that is written to."""
    random, corpus = np.random.default_rng(0), folder / "corpus.jsonl"
    texts = [" ".join(random.choice(WORDS, 8)) for _ in range(documents)]
    corpus.write_text("".join(json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    config = BuildConfig(
        model=ModelConfig(name=str(make_tiny_model(folder / "model").resolve()), device="cpu"),
        corpus=CorpusConfig(max_tokens=16),
        curvature=CurvatureConfig(fit_documents=50, index_damping=10.0),
        vectors=VectorConfig(dimension=256, rank_fraction=0.5, bits=4),
        fidelity=FidelityConfig(queries=0),
    )
    GradientIndex.build([str(corpus)], folder / "index", config, progress=Silent())


def write(folder: Path, number: int, seed: int, until: float) -> None:
    """A writer's process: change the index until a time, and leave the counts."""
    writer, counts = Writer(folder, number, seed), Counter[str]()
    writer.settle()
    path = folder / f"changes{number}-{seed}.json"
    while time.time() < until:
        try:
            counts[writer.change()] += 1
        except Exception as error:
            counts["failed"] += 1
            with (folder / "problems").open("a") as file:
                file.write(f"writer {number}: {type(error).__name__}: {error}\n")
            writer.settle()
        path.write_text(json.dumps(counts))


def search(folder: Path, number: int, seed: int, until: float) -> None:
    """A searcher's process: ask until a time, and leave the counts."""
    searcher = Searcher(folder, seed)
    while time.time() < until:
        problems = searcher.look()
        if problems:
            searcher.counts["failures"] += len(problems)
            with (folder / "problems").open("a") as file:
                file.writelines(f"searcher {number}: {problem}\n" for problem in problems)
        recall = {"recall": float(np.mean(searcher.recalls)), "of": len(searcher.recalls)} if searcher.recalls else {}
        path = folder / f"answers{number}.json"
        path.write_text(json.dumps({**searcher.counts, **recall, "newest version": latest_version(searcher.layout)}))
