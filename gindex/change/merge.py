"""Merging volumes: consecutive ones become one, with one FAISS file. Ordinals and results stay as they are.

Adds leave small volumes. They are merged by size, as a log-structured merge tree does it: volumes below each power of
FANOUT parts become one as soon as they have as many parts together. So few volumes are left however many adds there
were, and a part is written again at most once for each power. Deleted parts stay; `compact` leaves them out.

Source: O'Neil et al. 1996, The log-structured merge-tree.
"""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import replace

from gindex.change.volume_copy import copy_table, copy_vectors
from gindex.documents.table import DocumentTable
from gindex.errors import GindexError
from gindex.model.isolation import plain
from gindex.progress import Progress, Silent
from gindex.search.search_index import deriving_run
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.part_ranges import PartRanges
from gindex.store.records import Operation, OperationKind
from gindex.store.snapshot import Snapshot
from gindex.store.unfinished_volumes import finish_volume, start_volume
from gindex.store.versions import writing
from gindex.store.volume_records import volume_files, volume_record
from gindex.store.writer import write_version

logger = logging.getLogger(__name__)

FANOUT = 8
"""Ratio of the sizes from which volumes are merged: at most one less than so many of each size are left."""

PARTS_OF_ADD = 8192
"""Most parts that an add merges, at a second or two; larger volumes are left to `merge_due`, and to `compact`."""


@plain()
def merge_due(layout: Layout, progress: Progress | None = None) -> Manifest | None:
    """Merge the volumes of the newest version that are due, of any size, and commit; None where none are.

    Raises:
        BusyError: Another process is writing.
        CorruptStoreError: A file is damaged.
        StoreError: The index cannot be written.
    """
    with writing(layout):
        snapshot = Snapshot.open(layout)
        run = due(snapshot.manifest)
        return None if run is None else merge_volumes(snapshot, run, progress or Silent())


def merge_after_add(layout: Layout, manifest: Manifest, progress: Progress) -> Manifest:
    """Merge what is due and small once an add is committed, and return the newest version.

    The documents are added whatever becomes of it, so where it fails that is logged, and the next add tries again.

    Args:
        layout: The index, which the caller is writing.
        manifest: The version of the add.
        progress: Where the work is reported.
    """
    run = due(manifest, PARTS_OF_ADD)
    if run is None:
        return manifest
    try:
        return merge_volumes(Snapshot.open(layout), run, progress)
    except GindexError as error:
        logger.warning("the documents are added; merging small volumes failed, and is tried again later: %s", error)
        return manifest


def due(manifest: Manifest, most: int | None = None) -> range | None:
    """The places of the volumes in a manifest that are to become one; None where none are.

    Args:
        manifest: A version.
        most: Most parts that they may have together; None for any number.
    """
    if manifest.lost_parts:
        return None
    pieces = list(_pieces(manifest))
    sizes = [sum(manifest.volumes[place].parts for place in piece) for piece in pieces]
    limit = FANOUT
    while limit <= sum(sizes):
        limit *= FANOUT
    while limit >= FANOUT:
        smaller = list(itertools.takewhile(lambda size, limit=limit: size < limit, reversed(sizes)))  # type: ignore[misc]
        if len(smaller) > 1 and limit <= sum(smaller) <= (most or sum(smaller)):
            return range(pieces[-len(smaller)].start, len(manifest.volumes))
        limit //= FANOUT
    return None


def merge_volumes(snapshot: Snapshot, run: range, progress: Progress) -> Manifest:
    """Write consecutive volumes again as one, and commit; the caller is the index's only writer.

    Args:
        snapshot: The newest version.
        run: Their places in the manifest.
        progress: Where the work is reported.

    Raises:
        CorruptStoreError: A file is damaged.
        StoreError: The index cannot be written.
    """
    layout, manifest = snapshot.layout, snapshot.manifest
    old = manifest.volumes[run.start : run.stop]
    first, last = old[0], old[-1]
    parts = range(first.first_part, last.first_part + last.parts)
    number = start_volume(layout, {"merge": [volume.number for volume in old]})
    copy_table(snapshot, number, old, first, progress)
    spec, segments = copy_vectors(snapshot, number, PartRanges([(parts.start, parts.stop)]), parts.start, progress)
    with DocumentTable.open(layout.volume(number).documents) as table:
        counts = table.counts()
    sources = [source for volume in old for source in volume.sources]
    volume = volume_record(number, first.first_document, first.first_part, counts, spec, segments, sources)
    replaced = {file.path for of in old for file in manifest.files_below(layout.root, layout.volume(of.number).folder)}
    kept = [file for file in manifest.files if file.path not in replaced]
    draft = replace(
        manifest,
        volumes=[*manifest.volumes[: run.start], volume, *manifest.volumes[run.stop :]],
        files=[*kept, *volume_files(layout, number, segments)],
    )
    operation = Operation(kind=OperationKind.MERGE, documents=counts.documents)
    committed = write_version(layout, draft, operation, deriving_run(layout, manifest, parts, progress))
    finish_volume(layout, number)
    return committed


def _pieces(manifest: Manifest) -> Iterator[range]:
    """The places of volumes that can only be merged together: one FAISS file may hold the parts of several."""
    begins = {run.start for run in manifest.search.runs}
    places = [place for place, volume in enumerate(manifest.volumes) if volume.first_part in begins]
    yield from (range(start, stop) for start, stop in itertools.pairwise([*places, len(manifest.volumes)]))
