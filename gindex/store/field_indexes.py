"""The indexes of declared fields: each volume of some size has one, derived from its document table."""

from collections.abc import Sequence
from dataclasses import replace

from gindex.documents.comparisons import Names
from gindex.documents.field_index_writer import write_field_index
from gindex.documents.filters import field_names
from gindex.store.files import FileRecord
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.snapshot import Snapshot

LEAST_DOCUMENTS = 1024
"""Documents from which on a volume has an index: fewer are read in a millisecond, and one cheap add adds few."""


def names_of(fields: Sequence[str]) -> list[Names]:
    """Recorded fields as names within names."""
    return [names for field in fields if (names := field_names(field)) is not None]


def with_field_indexes(layout: Layout, draft: Manifest, version: int) -> Manifest:
    """A draft whose volumes have an index of its fields; those that lack one get it.

    Args:
        layout: The index.
        draft: The draft of a version.
        version: Its number, which new files are named by.

    Raises:
        CorruptStoreError: A document table is damaged.
        StoreError: A file cannot be written.
    """
    if draft.indexed_fields is None:
        return draft
    snapshot, volumes, files = Snapshot(layout, draft), [], list(draft.files)
    for volume in draft.volumes:
        if volume.fields is None and volume.documents >= LEAST_DOCUMENTS:
            place = layout.volume(volume.number)
            path = place.field_index(version)
            write_field_index(
                snapshot.checked(place.documents), path, names_of(draft.indexed_fields), volume.first_document
            )
            files.append(FileRecord.of(layout.root, path))
            volume = replace(volume, fields=files[-1].path)
        volumes.append(volume)
    return replace(draft, volumes=volumes, files=files)


def without_field_indexes(draft: Manifest, paths: Sequence[str] | None = None) -> Manifest:
    """A draft without the indexes of fields at some paths, or without any: they are written again with the version."""
    gone = {volume.fields for volume in draft.volumes} if paths is None else set(paths)
    volumes = [replace(volume, fields=None) if volume.fields in gone else volume for volume in draft.volumes]
    return replace(draft, volumes=volumes, files=[file for file in draft.files if file.path not in gone])
