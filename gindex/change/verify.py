"""Whether an index is whole: its manifest, its files, and what they say of each other."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from gindex.ann.file import open_index
from gindex.ann.spec import spec_of
from gindex.change.history import unnamed_files
from gindex.corpus.encoding import searched_text
from gindex.documents.checksums import are_row_checksums
from gindex.documents.common_words import are_common_words
from gindex.documents.field_index_writer import is_field_index
from gindex.documents.schema import CACHE, FULL_TEXT, PLAIN_WORDS, connect, index_words, version_of
from gindex.documents.table_writer import stored_document
from gindex.errors import StoreError
from gindex.progress import Phase, Progress, Silent
from gindex.store.field_indexes import names_of
from gindex.store.files import read_json
from gindex.store.layout import REMEDY, Layout
from gindex.store.manifest import Manifest
from gindex.store.records import VolumeRecord
from gindex.store.snapshot import Snapshot, volume_spec
from gindex.store.versions import latest_version, require_version, version_numbers


def verify(
    layout: Layout, version: int | None = None, *, deep: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """Check a version, the newest where None.

    Every file is read and compared with its checksum; counts and ids are compared between the manifest, the document
    tables, the Zarr arrays and the FAISS index. With `deep`, SQLite checks its own structures, every chunk is decoded,
    and FAISS's vectors are compared with the stored ones.

    Returns:
        `version`, `problems` (what is wrong, each naming its file), `unnamed` (files that no version names: leftovers
        of killed commands, which do no harm and which `prune` removes) and `checked_bytes`.

    Raises:
        NotAnIndexError: There is no finished index.
        VersionError: There is no such version.
    """
    number = latest_version(layout) if version is None else version
    require_version(layout, number)
    problems: list[str] = []
    manifest = _attempt(problems, lambda: Manifest.read(layout, number))
    if manifest is None:
        return {"version": number, "problems": problems, "unnamed": [], "checked_bytes": 0}
    progress = progress or Silent()
    with progress.phase("files", len(manifest.files), "files") as phase:
        for file in manifest.files:
            _attempt(problems, lambda file=file: file.check_content(layout.root))  # type: ignore[misc]
            phase.advance()
    problems += [
        f"parts {parts.start:,} to {parts.stop - 1:,}: lost; run gindex build" for parts in manifest.lost_parts
    ]
    if not problems:
        problems += _contents(layout, manifest, deep, progress)
    return {
        "version": number,
        "problems": problems,
        "unnamed": _unnamed(layout),
        "checked_bytes": sum(file.bytes for file in manifest.files),
    }


def _attempt(problems: list[str], check: Callable[[], Any]) -> Any:
    try:
        return check()
    except StoreError as error:
        problems.append(str(error).removesuffix(f"; {REMEDY}"))
        return None


def _unnamed(layout: Layout) -> list[str]:
    named = {layout.manifest(number) for number in version_numbers(layout)}
    for number in version_numbers(layout):
        try:
            named |= {layout.root / file.path for file in Manifest.read(layout, number).files}
        except StoreError:
            return []  # what a damaged manifest names is not known
    return [path.relative_to(layout.root).as_posix() for path in unnamed_files(layout, named)]


def _contents(layout: Layout, manifest: Manifest, deep: bool, progress: Progress) -> list[str]:
    problems = list(_volumes(layout, manifest))
    with progress.phase("tables", len(manifest.volumes), "volumes") as phase:
        problems += _tables(layout, manifest, deep, phase)
    problems += _arrays(layout, manifest)
    of_search = list(_faiss(layout, manifest))
    if deep:
        from gindex.change.vector_checks import faiss_problems, vector_problems  # loads torch

        snapshot = Snapshot(layout, manifest)
        of_vectors = vector_problems(snapshot, progress)
        compared = [] if of_vectors or of_search else faiss_problems(snapshot, progress)
        of_search = [*of_vectors, *of_search, *compared]
    return [*problems, *of_search]


def _volumes(layout: Layout, manifest: Manifest) -> Iterator[str]:
    """Ordinals follow on each other, deleted ranges are in order, segment records agree with the manifest."""
    path = layout.manifest(manifest.version)
    documents = parts = 0
    for volume in manifest.volumes:
        if (volume.first_document, volume.first_part) != (documents, parts):
            yield f"{path}: expected volume {volume.number} to begin at part {parts}, found {volume.first_part}"
        documents, parts = documents + volume.documents, parts + volume.parts
        skipped: dict[str, str] = {}
        for number in range(volume_spec(manifest, volume).segments):
            skipped |= read_json(layout.volume(volume.number).segment(number))["skipped"]
        if skipped != volume.skipped:
            yield f"{path}: expected the parts without a vector that the segments of volume {volume.number} name"
    bounds = [bound for pair in manifest.deleted for bound in pair]
    if bounds != sorted(set(bounds)) or (bounds and bounds[-1] > parts):
        yield f"{path}: expected deleted ranges in order below {parts}, found others"


def _tables(layout: Layout, manifest: Manifest, deep: bool, phase: Phase) -> Iterator[str]:
    seen = sqlite3.connect("")
    seen.execute(CACHE)
    seen.execute("CREATE TABLE ids(id TEXT PRIMARY KEY) WITHOUT ROWID")
    for volume in manifest.volumes:
        path = layout.volume(volume.number).documents
        try:
            with closing(connect(path)) as connection:
                yield from (f"{path}: {problem}" for problem in _table(connection, volume, deep))
                yield from _repeated(connection, manifest, seen, str(path))
            sums = layout.volume(volume.number).row_checksums
            if deep and manifest.names(layout.root, sums) and not are_row_checksums(sums, path):
                yield f"{sums}: expected the checksums of the rows of {path.name}, found others"
            if deep and volume.fields is not None:
                yield from _fields(layout.root / volume.fields, path, manifest, volume)
        except (sqlite3.Error, StoreError) as error:
            yield f"{path}: expected a document table, found {error}"
        phase.advance()
    ((found,),) = seen.execute("SELECT COUNT(*) FROM ids")
    seen.close()
    if found != manifest.documents["documents"]:
        wanted = f"{manifest.documents['documents']:,} documents that are not deleted"
        yield f"{layout.manifest(manifest.version)}: expected {wanted}, found {found:,}"


def _fields(index: Path, table: Path, manifest: Manifest, volume: VolumeRecord) -> Iterator[str]:
    if not is_field_index(index, table, names_of(manifest.indexed_fields or ()), volume.first_document):
        yield f"{index}: expected the values of the indexed fields of {table.name}, found others"


def _table(connection: sqlite3.Connection, volume: VolumeRecord, deep: bool) -> Iterator[str]:
    expected = {
        "SELECT COUNT(*), MIN(ordinal), MAX(ordinal) + 1 FROM documents": (
            volume.documents,
            volume.first_document,
            volume.first_document + volume.documents,
        ),
        "SELECT COUNT(*), MIN(ordinal), MAX(ordinal) + 1 FROM parts": (
            volume.parts,
            volume.first_part,
            volume.first_part + volume.parts,
        ),
        "SELECT SUM(token_count), MAX(token_count) FROM parts": (volume.tokens, volume.longest_part),
        "SELECT COUNT(*) FROM parts WHERE LENGTH(tokens) != 4 * token_count": (0,),
        "SELECT COUNT(*) FROM documents WHERE ordinal NOT IN (SELECT document FROM parts)": (0,),
        "SELECT COUNT(*) FROM (SELECT 1 FROM parts GROUP BY document, part HAVING COUNT(*) > 1)": (0,),
        "SELECT COUNT(*) FROM words_docsize": (volume.documents,),
    }
    for statement, wanted in expected.items():
        (found,) = connection.execute(statement).fetchall()
        if found != wanted:
            yield f"{statement}: expected {wanted}, found {found}"
    if deep:
        yield from _structure(connection)


def _structure(connection: sqlite3.Connection) -> Iterator[str]:
    """Let SQLite check its pages, its references, and that the words are those of the texts."""
    for check in ("integrity_check", "foreign_key_check"):
        for found in connection.execute(f"PRAGMA {check}"):
            if found != ("ok",):
                yield f"{check}: {found}"
    with closing(sqlite3.connect("")) as copy:  # the full-text check is written as an insertion
        connection.backup(copy)
        try:
            own = version_of(copy) != PLAIN_WORDS
            copy.execute(f"INSERT INTO words(words, rank) VALUES ('integrity-check', {int(not own)})")
            if own and not _are_words_of_texts(copy):
                yield "full-text index: expected the words of the documents, found others"
            if not are_common_words(copy):
                yield "common words: expected the counts of the documents' words, found others"
        except sqlite3.DatabaseError as error:
            yield f"full-text index: {error}"


def _are_words_of_texts(connection: sqlite3.Connection) -> bool:
    """Index the texts again and compare every word, its document and its place."""
    connection.execute(f"CREATE VIRTUAL TABLE again USING {FULL_TEXT}")
    for (ordinal,) in connection.execute("SELECT ordinal FROM documents"):
        index_words(connection, ordinal, searched_text(stored_document(connection, ordinal)), table="again")
    for name in ("words", "again"):
        connection.execute(f"CREATE VIRTUAL TABLE {name}_found USING fts5vocab({name}, instance)")
    places = [connection.execute(f"SELECT term, doc, offset FROM {name}_found") for name in ("words", "again")]
    return all(found == expected for found, expected in zip_longest(*places))


def _repeated(connection: sqlite3.Connection, manifest: Manifest, seen: sqlite3.Connection, path: str) -> Iterator[str]:
    """Ids of documents that are not deleted are there once."""
    statement = "SELECT d.id, MIN(p.ordinal) FROM documents d JOIN parts p ON p.document = d.ordinal GROUP BY d.ordinal"
    starts = np.array([start for start, _ in manifest.deleted], np.int64)
    for document_id, part in connection.execute(statement):
        position = int(np.searchsorted(starts, part, "right")) - 1
        if position >= 0 and part < manifest.deleted[position][1]:
            continue
        try:
            seen.execute("INSERT INTO ids VALUES (?)", (document_id,))
        except sqlite3.IntegrityError:
            yield f"{path}: expected every id once, found {document_id!r} again"


def _arrays(layout: Layout, manifest: Manifest) -> Iterator[str]:
    for volume in manifest.volumes:
        place, spec = layout.volume(volume.number).vectors, volume_spec(manifest, volume)
        group = zarr.open_group(str(place), mode="r")
        for name, rows in spec.arrays.items():
            array = group[name]
            found, wanted = array.shape, (rows.rows, rows.width) if rows.width else (rows.rows,)  # type: ignore[union-attr]
            if found != wanted:
                yield f"{place / name}: expected shape {wanted}, found {found}"


def _faiss(layout: Layout, manifest: Manifest) -> Iterator[str]:
    snapshot, search = Snapshot(layout, manifest), manifest.search
    if search.parts != manifest.stored_parts:
        wanted = f"{manifest.stored_parts:,} parts in the search index"
        yield f"{layout.manifest(manifest.version)}: expected {wanted}, found {search.parts:,}"
        return
    try:
        for file in search.faiss:
            open_index(snapshot.root / file.file, spec_of(file), snapshot.projection, file.parts)
        if search.transform is not None:
            from gindex.change.vector_checks import check_transform  # loads torch

            check_transform(snapshot)
    except StoreError as error:
        yield str(error)
