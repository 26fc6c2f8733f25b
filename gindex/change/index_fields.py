"""Declaring fields of the metadata that are looked up by index, or no longer; no model is needed."""

from collections.abc import Sequence
from dataclasses import replace

from gindex.documents.declared_fields import declared_fields
from gindex.documents.selection import is_known, known_fields
from gindex.documents.table import DocumentTable
from gindex.errors import ConfigError
from gindex.model.isolation import plain
from gindex.store.field_indexes import names_of, without_field_indexes
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.records import Operation, OperationKind
from gindex.store.snapshot import Snapshot
from gindex.store.versions import writing
from gindex.store.writer import write_version


@plain()
def index_fields(layout: Layout, fields: Sequence[str], *, remove: bool = False) -> Manifest:
    """Look fields up by index beside those that are, and commit; nothing is done where all are already.

    Args:
        layout: The index.
        fields: Fields of the metadata, written as in a filter.
        remove: Look these up by index no longer.

    Raises:
        ConfigError: One is no field, no document has it, or it is to be removed and is not indexed.
        CorruptStoreError: A document table is damaged.
        StoreError: The index cannot be written.
    """
    given = declared_fields(fields, "fields")
    with writing(layout):
        snapshot = Snapshot.open(layout)
        manifest = snapshot.manifest
        recorded = list(manifest.indexed_fields or ())
        if remove:
            _check_indexed(given, recorded)
            wanted = [field for field in recorded if field not in given]
        else:
            with snapshot.table() as table:
                _check_known(table, given)
            wanted = [*recorded, *(field for field in given if field not in recorded)]
        if wanted == recorded:
            return manifest
        draft = replace(without_field_indexes(manifest), indexed_fields=wanted or None)
        return write_version(layout, draft, Operation(kind=OperationKind.INDEX_FIELDS))


def _check_known(table: DocumentTable, fields: Sequence[str]) -> None:
    for field, names in zip(fields, names_of(fields), strict=True):
        if not is_known(table, names):
            raise ConfigError(field="fields", expected=known_fields(table), found=field, remedy="check the name")


def _check_indexed(fields: Sequence[str], recorded: Sequence[str]) -> None:
    for field in fields:
        if field not in recorded:
            indexed = ", ".join(recorded) or "none"
            raise ConfigError(field="fields", expected=f"an indexed field ({indexed})", found=field)
