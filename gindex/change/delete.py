"""Deleting documents: a new version in which they are marked, and that no search returns."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from gindex.documents.table import DocumentTable
from gindex.errors import StoreError
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.records import Operation, OperationKind
from gindex.store.snapshot import Snapshot
from gindex.store.versions import writing
from gindex.store.writer import write_version

Ranges = list[tuple[int, int]]


def delete_documents(layout: Layout, document_ids: Sequence[str]) -> Manifest:
    """Delete documents and commit; their files stay until `compact`.

    Raises:
        UnknownDocumentError: There is no document with one of the ids; nothing is deleted.
        StoreError: Every document would be deleted, or the index cannot be written.
    """
    with writing(layout):
        snapshot = Snapshot.open(layout)
        with snapshot.table() as table:
            documents = list(table.ordinals(list(dict.fromkeys(document_ids))).values())
            draft = marked(snapshot.manifest, table, documents)
        if draft.deleted_documents == draft.stored_documents:
            raise StoreError(
                field=layout.root, expected="at least one document to be left", found="none", remedy="remove the index"
            )
        return write_version(layout, draft, Operation(kind=OperationKind.DELETE, documents=len(documents)))


def marked(manifest: Manifest, table: DocumentTable, documents: Sequence[int]) -> Manifest:
    """A manifest of an index in which documents, by their ordinals, are deleted as well."""
    extents = table.extents(documents)
    return replace(
        manifest,
        deleted=merged([*manifest.deleted, *((extent.start, extent.stop) for extent in extents)]),
        deleted_documents=manifest.deleted_documents + len(documents),
        deleted_tokens=manifest.deleted_tokens + sum(extent.tokens for extent in extents),
    )


def merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Ranges of ordinals in order, those that touch made one."""
    out: Ranges = []
    for start, stop in sorted(ranges):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(stop, out[-1][1]))
        else:
            out.append((start, stop))
    return out
