"""The one way in which a version of an index comes to be, whatever made it.

    draft, operation -> search index, where the vectors changed -> indexes of fields, where a volume lacks one
                     -> checksums of these files -> manifest

Everything else that a draft names must be published before.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from gindex.distribution import VERSION
from gindex.errors import VersionError
from gindex.files.atomic import publish_new
from gindex.store.field_indexes import with_field_indexes
from gindex.store.files import FileRecord, encode_json
from gindex.store.layout import FIELDS, PLAIN, SEVERAL, TRANSFORMED, Layout
from gindex.store.manifest import Manifest
from gindex.store.records import Operation, SearchRecord
from gindex.store.snapshot import Snapshot
from gindex.store.versions import next_version

Derive = Callable[[Snapshot, Path], SearchRecord]
"""Makes what is derived from the vectors of a snapshot, a FAISS index at the path, and says what the manifest keeps:
that file, and those of the draft that still hold their parts.

The store may not know how: see `search.search_index.deriving`."""

UNDERIVED = SearchRecord(faiss=())
"""The search index of the draft of a first version, which has none yet."""


def write_version(layout: Layout, draft: Manifest, operation: Operation, derive: Derive | None = None) -> Manifest:
    """Write the next version of an index; the caller is its only writer.

    Args:
        layout: The index.
        draft: What the version is: the manifest of the one before with what changes. Its number, time, operation and,
            with `derive`, its search index are set here.
        operation: What makes it.
        derive: Makes its search index; None where that of the draft is still right.

    Returns:
        The manifest, committed.

    Raises:
        CorruptStoreError: Vectors or documents that something is derived from are damaged.
        StoreError: A file cannot be written.
        VersionError: Another writer committed the number first; its version stands.
    """
    if derive is not None:
        draft = derived(layout, draft, derive)
    number = next_version(layout)
    draft = with_field_indexes(layout, draft, number)
    made = replace(
        draft,
        format_version=_format_version(draft),
        version=number,
        operation=operation,
        gindex_version=VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    path = layout.manifest(number)
    try:
        publish_new(path, encode_json(made.content))
    except FileExistsError as error:
        raise VersionError(
            field=path,
            expected=f"to commit version {number}",
            found="that another process did",
            remedy="nothing of it is changed: run this again to go on from there",
        ) from error
    return made


def derived(layout: Layout, draft: Manifest, derive: Derive) -> Manifest:
    """A draft with a search index of its own vectors in the place of the one that it names.

    What is measured of a first version comes between this and `write_version`, which does both elsewhere.
    """
    lasting = replace(draft, files=draft.lasting)
    search = derive(Snapshot(layout, lasting, lost=draft.lost_parts), layout.faiss(next_version(layout)))
    known = {file.path: file for file in draft.files}
    made = [known.get(name) or FileRecord.of(layout.root, layout.root / name) for name in search.files]
    return replace(lasting, search=search, files=[*lasting.files, *made])


def _format_version(draft: Manifest) -> int:
    if draft.indexed_fields is not None:
        return FIELDS
    if len(draft.search.faiss) > 1 or draft.search.main.centres is not None:
        return SEVERAL
    return PLAIN if draft.search.transform is None else TRANSFORMED
