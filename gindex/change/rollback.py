"""Going back to an earlier version, by a new one that is what that was."""

from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.records import Operation, OperationKind
from gindex.store.versions import require_version, writing
from gindex.store.writer import write_version


def rollback(layout: Layout, version: int) -> Manifest:
    """Commit a new version that is what an earlier one was. The newest may be damaged.

    Raises:
        VersionError: There is no such version.
        CorruptStoreError: One of its files is damaged.
    """
    with writing(layout):
        require_version(layout, version)
        manifest = Manifest.read(layout, version)
        for file in manifest.files:
            file.check_length(layout.root)
        return write_version(layout, manifest, Operation(kind=OperationKind.ROLLBACK, to=version))
