"""Building the FAISS index again, of another type or where it is damaged: no model is needed, and no vector changes."""

from typing import Any

from gindex.engine import recorded_projection
from gindex.progress import Progress, Silent
from gindex.search.search_index import make_search_index
from gindex.store.files import FileRecord
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.version import Version
from gindex.store.versions import commit, latest_version, next_version, writing


def reindex(layout: Layout, kind: str = "auto", progress: Progress | None = None) -> Manifest:
    """Build the FAISS index of the newest version again and commit.

    Args:
        layout: The index.
        kind: One of `faiss_types.KINDS`, or `auto`.
        progress: Where the work is reported.

    Raises:
        ConfigError: There is no such kind.
        CorruptStoreError: A file but the FAISS index is damaged.
        StoreError: The index cannot be written.
    """
    with writing(layout):
        manifest = Manifest.read(layout, latest_version(layout))
        for file in manifest.files:
            if file.path != manifest.search["file"]:
                file.check_length(layout.root)
        changes = new_search_index(layout, manifest, kind, progress or Silent())
        return commit(layout, manifest, {"kind": "index", "type": kind}, **changes)


def new_search_index(layout: Layout, manifest: Manifest, kind: str, progress: Progress) -> dict[str, Any]:
    """Make the FAISS index of the version to come and return the fields of the manifest that change by it."""
    projection = recorded_projection(layout, manifest)
    path = layout.faiss(next_version(layout))
    version = Version(layout, manifest, lost=manifest.lost_parts)
    search = make_search_index(layout, path, version.vectors(), projection, version.excluded, progress, kind=kind)
    files = [file for file in manifest.files if file.path != manifest.search["file"]]
    return {"search": search, "files": [*files, FileRecord.of(layout.root, path)]}
