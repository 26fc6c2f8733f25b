"""The versions of an index: which there are, and the removal of old ones."""

from pathlib import Path
from typing import Any

from gindex.errors import BusyError, ConfigError, CorruptStoreError
from gindex.files.atomic import remove_tree, sync
from gindex.files.locks import held
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.values import values_of
from gindex.store.versions import latest_version, version_numbers, writing


def list_versions(layout: Layout) -> list[dict[str, Any]]:
    """Describe every version, the oldest first: `version`, `created`, `operation`, counts, or `problem`.

    Raises:
        NotAnIndexError: There is no finished index.
    """
    latest_version(layout)
    return [_describe(layout, number) for number in version_numbers(layout)]


def prune(layout: Layout, keep: int = 1) -> dict[str, int]:
    """Remove all versions but the newest, and every file that only they named; leftovers of killed commands as well.

    Args:
        layout: The index.
        keep: How many versions to keep.

    Returns:
        `versions`, `files` and `bytes` removed.

    Raises:
        ConfigError: `keep` is less than 1.
        CorruptStoreError: A version that is kept cannot be read: which files it needs is not known.
    """
    if keep < 1:
        raise ConfigError(field="keep", expected="at least 1", found=keep)
    with writing(layout):
        numbers = version_numbers(layout)
        kept = [Manifest.read(layout, number) for number in numbers[-keep:]]
        for number in numbers[:-keep]:
            layout.manifest(number).unlink()
        sync(layout.manifests)
        named = {layout.root / file.path for manifest in kept for file in manifest.files}
        named |= {layout.manifest(manifest.version) for manifest in kept}
        removed = unnamed_files(layout, named)
        sizes = [*(path.stat().st_size for path in removed), *_sweep_merges(layout)]
        for path in removed:
            path.unlink()
        layout.build.unlink(missing_ok=True)
        _remove_empty(layout)
        return {"versions": len(numbers) - len(kept), "files": len(sizes), "bytes": sum(sizes)}


def unnamed_files(layout: Layout, named: set[Path]) -> list[Path]:
    """The files in the folders of an index that are not among those named."""
    folders = (layout.manifests, layout.volumes, layout.factors, layout.search)
    found = (path for folder in folders if folder.is_dir() for path in sorted(folder.rglob("*")))
    return [path for path in found if path.is_file() and path not in named]


def _sweep_merges(layout: Layout) -> list[int]:
    """Remove what a killed merge prepared, and return the bytes of its files; nothing while one is under way."""
    try:
        with held(layout.claim("merge")):
            sizes = [path.stat().st_size for path in layout.merging.rglob("*") if path.is_file()]
            remove_tree(layout.merging)
            return sizes
    except BusyError:
        return []


def _remove_empty(layout: Layout) -> None:
    for folder in (layout.volumes, layout.search, layout.factors):
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _describe(layout: Layout, number: int) -> dict[str, Any]:
    try:
        manifest = Manifest.read(layout, number)
    except CorruptStoreError as error:
        return {"version": number, "problem": str(error)}
    return {
        "version": number,
        "created": manifest.created,
        "operation": values_of(manifest.operation),
        "documents": manifest.documents["documents"],
        "parts": manifest.documents["parts"],
        "deleted_documents": manifest.deleted_documents,
        "deleted_parts": manifest.deleted_parts,
        "lost_parts": sum(len(parts) for parts in manifest.lost_parts),
        "bytes": sum(file.bytes for file in manifest.files),
    }
