"""Files of the scores of all documents, or parts, for some queries.

    scores.parquet   a row a document: `document_id`, `part` where parts have scores, and a column for each query
    scores.jsonl     a line a document: `document_id`, `part` likewise, and `scores`, an object by query
    scores.npy       float32 [queries, documents]; beside it `scores.npy.json` with `queries` and `documents`, and
                     `parts` likewise, in the order of the axes

A query goes by its id, or by its number from 0 where it has none. Until the file is whole, the scores are in
`scores.parquet.unfinished`, from which the same call goes on; the file is that of an uninterrupted one byte for byte.

Axes: Q queries, N documents or parts.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gindex.corpus.packages import require
from gindex.distribution import VERSION
from gindex.errors import ConfigError, QueryError, UnknownDocumentError
from gindex.files.atomic import checksum, make_folder, publish, publish_written, remove_tree
from gindex.files.locks import held
from gindex.progress import Phase, Progress, Silent
from gindex.queries.query import Query, asked_record
from gindex.search.score_work import ScoreWork
from gindex.search.sweep import Scores, Sweep
from gindex.search.unit_names import UnitNames
from gindex.search_options import ScoreOptions
from gindex.store.snapshot import Snapshot

ROWS_VALUES, MOST_ROWS = 1 << 22, 1 << 16
"""Most scores, and most documents, that are turned into rows at once."""

NAMES = ("document_id", "part")
"""What else stands in a row."""


@dataclass(frozen=True, kw_only=True)
class ScoreFile:
    """A file of scores.

    Attributes:
        path: Where it is.
        queries: How many queries.
        count: How many documents, or parts.
        hits: What has a score, `document` or `part`.
        exact: Whether the scores are exact influence.
        bytes: Size of the file.
        resumed: Share of the work that an earlier call had done.
    """

    path: str
    queries: int
    count: int
    hits: str
    exact: bool
    bytes: int
    resumed: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Some documents, or parts, with their scores [N, Q]."""

    documents: list[str]
    parts: list[int] | None
    scores_NQ: Scores


@dataclass(frozen=True, kw_only=True, eq=False)
class Content:
    """What a file is to hold: scores [Q, N], and names of both axes; the phase counts the rows that are written."""

    queries: list[str]
    names: UnitNames
    work: ScoreWork
    phase: Phase

    def rows(self) -> Iterator[Rows]:
        """Yield the rows, some at a time."""
        scores_QN, size = self.work.scores(), min(MOST_ROWS, max(1, ROWS_VALUES // len(self.queries)))
        for start in range(0, len(self.names), size):
            some = slice(start, min(start + size, len(self.names)))
            yield Rows(
                documents=self.names.documents(some),
                parts=self.names.parts(some),
                scores_NQ=np.ascontiguousarray(scores_QN[:, some].T),
            )
            self.phase.advance(some.stop - some.start)


def write_scores(
    snapshot: Snapshot,
    queries: Sequence[Query],
    out: Path,
    options: ScoreOptions,
    sweep: Callable[[], Sweep],
    progress: Progress | None = None,
) -> ScoreFile:
    """Write a file of scores, or go on with an unfinished one.

    Args:
        snapshot: The index.
        queries: The queries.
        out: The file; its ending says which kind.
        options: Which documents, and which scores.
        sweep: Gives the scores, once all else is known to be in order.
        progress: Where the work is reported.

    Raises:
        ConfigError: The file is there already, or its ending is none of the three.
        QueryError: There is no query, or two go by one name.
        SettingsMismatchError: The unfinished scores are of other queries, options, or another index.
        MissingDependencyError: pyarrow is needed and not installed.
        BusyError: Another process is writing the file.
    """
    ending, names, folder = _ending(out), query_names(queries), out.with_name(f"{out.name}.unfinished")
    if out.exists() and not folder.exists():
        raise ConfigError(field=out, expected="a file that is not there yet", found="one", remedy="remove it")
    ready, progress = sweep(), progress or Silent()
    if not len(ready.units):
        raise UnknownDocumentError(
            field="where" if options.where else snapshot.root,
            expected="at least one document to score",
            found="none",
            remedy="change `where`" if options.where else "add some",
        )
    make_folder(folder)
    with held(folder / "lock"):
        work = ScoreWork(folder, _identity(snapshot, queries, options, ready), (len(queries), len(ready.units)))
        resumed = work.done / ready.tile_count
        for tile in ready.tiles(progress, first=work.done):
            work.write(tile)
        if work.array.exists():  # else it is the file already, and the folder alone was left
            units = UnitNames(snapshot.documents, ready.units, options.hits)
            with progress.phase("write file", len(units), f"{options.hits}s") as phase:
                WRITERS[ending](out, Content(queries=names, names=units, work=work, phase=phase))
        remove_tree(folder)
    return ScoreFile(
        path=str(out),
        queries=len(queries),
        count=len(ready.units),
        hits=options.hits,
        exact=options.exact,
        bytes=out.stat().st_size,
        resumed=resumed,
    )


def query_names(queries: Sequence[Query]) -> list[str]:
    """What queries go by in a file: their ids, or numbers from 0.

    Raises:
        QueryError: There is no query, or two go by one name, or one by that of another column.
    """
    names = [query.id if query.id is not None else str(number) for number, query in enumerate(queries)]
    if not names:
        raise QueryError(field="queries", expected="at least one", found="none")
    twice = next((name for number, name in enumerate(names) if name in (*NAMES, *names[:number])), None)
    if twice is not None:
        raise QueryError(
            field="queries", expected="ids that differ, and are no column of their own", found=repr(twice),
            remedy="give it another id",
        )  # fmt: skip
    return names


def _ending(out: Path) -> str:
    if out.suffix not in WRITERS:
        raise ConfigError(
            field="out", expected=f"a file that ends with {', '.join(WRITERS)}", found=out.name, remedy="rename it"
        )
    if out.suffix == ".parquet":
        require("pyarrow.parquet", str(out))
    return out.suffix


def _identity(snapshot: Snapshot, queries: Sequence[Query], options: ScoreOptions, sweep: Sweep) -> dict[str, Any]:
    """What the scores depend on: equal where they are, as JSON values."""
    asked = json.dumps([asked_record(query) for query in queries], sort_keys=True).encode()
    return {
        "index": checksum(snapshot.layout.manifest(snapshot.manifest.version)),
        "queries": hashlib.sha256(asked).hexdigest(),
        **asdict(options),
        "division into blocks": [[some.start, some.stop] for some in sweep.query_blocks] + [[sweep.tile_count]],
        "gindex": VERSION,
    }


def _write_parquet(out: Path, content: Content) -> None:
    arrow, parquet = require("pyarrow", str(out)), require("pyarrow.parquet", str(out))
    fields = [("document_id", arrow.string())]
    if content.names.of_parts:
        fields.append(("part", arrow.int32()))
    schema = arrow.schema(fields + [(name, arrow.float32()) for name in content.queries])

    def write(path: Path) -> None:
        with parquet.ParquetWriter(path, schema) as writer:
            for rows in content.rows():
                own = [rows.documents] if rows.parts is None else [rows.documents, rows.parts]
                writer.write_table(arrow.table([*own, *rows.scores_NQ.T], schema=schema))

    publish(out, write)


def _write_jsonl(out: Path, content: Content) -> None:
    keys = [json.dumps(name) for name in content.queries]

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            for rows in content.rows():
                texts = np.char.mod("%.9g", rows.scores_NQ)  # so many digits give the same float32 back
                for number, (document, scores) in enumerate(zip(rows.documents, texts.tolist(), strict=True)):
                    part = "" if rows.parts is None else f', "part": {rows.parts[number]}'
                    values = ", ".join(f"{key}: {score}" for key, score in zip(keys, scores, strict=True))
                    file.write(f'{{"document_id": {json.dumps(document)}{part}, "scores": {{{values}}}}}\n')

    publish(out, write)


def _write_npy(out: Path, content: Content) -> None:
    """The array is in its final form; its names go first, so that it is never without."""
    publish(out.with_name(f"{out.name}.json"), lambda path: _write_names(path, content))
    publish_written(content.work.array, out)


def _write_names(path: Path, content: Content) -> None:
    every = [slice(a, min(a + MOST_ROWS, len(content.names))) for a in range(0, len(content.names), MOST_ROWS)]
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{{"queries": {json.dumps(content.queries)}, "documents": [')
        for number, some in enumerate(every):
            file.write((", " if number else "") + json.dumps(content.names.documents(some))[1:-1])
            content.phase.advance(some.stop - some.start)
        if content.names.of_parts:
            file.write('], "parts": [')
            for number, some in enumerate(every):
                file.write((", " if number else "") + json.dumps(content.names.parts(some))[1:-1])
        file.write("]}\n")


WRITERS = {".parquet": _write_parquet, ".npy": _write_npy, ".jsonl": _write_jsonl}
"""What writes a file of each kind."""
