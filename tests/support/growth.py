"""Adds without a model: copies of an index's own documents, under new ids, with vectors near theirs."""

from contextlib import closing
from dataclasses import replace

import numpy as np

from gindex.change.merge import merge_after_add
from gindex.documents.losses import stored_columns
from gindex.documents.schema import PART_COLUMNS, connect, select_parts, version_of
from gindex.documents.table import DocumentTable
from gindex.documents.table_writer import add_document, add_part, new_table, stored_document
from gindex.progress import Silent
from gindex.search.search_index import deriving_run
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.records import Operation, OperationKind
from gindex.store.snapshot import Snapshot, volume_spec
from gindex.store.unfinished_volumes import finish_volume, start_volume
from gindex.store.vectors import CodedVectors, VectorWriter, choose_segment_parts
from gindex.store.versions import writing
from gindex.store.volume_records import volume_files, volume_record
from gindex.store.writer import write_version


def add_copies(layout: Layout, documents: int, seed: int = 0, *, merge: bool = True) -> Manifest:
    """Commit a version as `gindex add` does, of an index of fewer than 16 bits a coordinate.

    Args:
        layout: The index.
        documents: How many of the first volume's documents, drawn with the seed, are copied.
        seed: Also a part of the new ids.
        merge: Merge volumes that are due, as an add does.
    """
    random = np.random.default_rng(seed)
    with writing(layout):
        snapshot = Snapshot.open(layout)
        manifest, first = snapshot.manifest, snapshot.manifest.volumes[0]
        number = start_volume(layout, {"copies": [documents, seed]})
        place = layout.volume(number)
        drawn = random.integers(first.first_document, first.first_document + first.documents, documents)
        sources = _copy_table(layout, manifest, number, drawn, seed)
        old = volume_spec(manifest, first)
        spec = replace(
            old,
            parts=len(sources),
            segment_parts=choose_segment_parts(len(sources), old.arrays["codes"].row_bytes),
        )
        writer = VectorWriter(place, spec)
        segments = {}
        for segment in range(spec.segments):
            rows = spec.segment_range(segment)
            stored = snapshot.vectors.stored(np.array(sources[rows.start : rows.stop]))
            turned = random.random(stored.codes.shape) < 0.1
            coded = CodedVectors(
                codes=stored.codes ^ turned.astype(np.uint8),
                scales=stored.scales * np.float32(np.exp(0.1 * random.standard_normal())),
                self_influence=stored.self_influence,
            )
            segments[segment] = writer.write(segment, coded, {})
        with DocumentTable.open(place.documents) as table:
            counts = table.counts()
        volume = volume_record(number, manifest.stored_documents, manifest.stored_parts, counts, spec, segments, [])
        files = [*manifest.files, *volume_files(layout, place, segments)]
        draft = replace(manifest, volumes=[*manifest.volumes, volume], files=files)
        run = range(manifest.stored_parts, manifest.stored_parts + len(sources))
        operation = Operation(kind=OperationKind.ADD, documents=documents)
        committed = write_version(layout, draft, operation, deriving_run(layout, manifest, run, Silent()))
        finish_volume(layout, number)
    return merge_after_add(layout, committed, Silent()) if merge else committed


def _copy_table(layout: Layout, manifest: Manifest, number: int, drawn: np.ndarray, seed: int) -> list[int]:
    """Write the table of the copies; return the part that each of their parts is a copy of."""
    document, part, sources = manifest.stored_documents, manifest.stored_parts, []
    first = layout.volume(manifest.volumes[0].number).documents
    with closing(connect(first)) as source, new_table(layout.volume(number).documents) as target, target:
        statement = f"{select_parts(version_of(source))} WHERE p.document = ? ORDER BY p.part"
        for place, ordinal in enumerate(drawn.tolist()):
            found = stored_document(source, ordinal)
            copy = replace(found, document_id=f"{found.document_id}#{seed}.{place}")
            add_document(target, document, copy)
            for row in map(stored_columns, source.execute(statement, (ordinal,)).fetchall()):
                own, losses = row[2 : len(PART_COLUMNS)], row[len(PART_COLUMNS) :]
                add_part(target, (part, document, *own), tuple(losses) or None)
                sources.append(row[0])
                part += 1
            document += 1
    return sources
