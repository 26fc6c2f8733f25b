"""Every byte of every file flipped, every file cut at every length: found, never a wrong hit, never a crash."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gindex.errors import StoreError
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.snapshot import Snapshot

from .scenarios import DONE, Workshop, in_fork, search_all, small_store
from .writers import prepared

BATCH = 50
"""Damaged indexes that are searched in one process."""


def damage_cases(shop: Workshop, searched: int, random: np.random.Generator) -> Iterator[tuple[str, str | None, str]]:
    """Yield kind, what is wrong or None, and what was done: for every damage the check, for some a search."""
    cases = prepared(shop, "add")
    root = cases.folder / "damaged"
    shutil.copytree(cases.expected, root)
    layout = Layout(root)
    manifest = Snapshot.open(layout).manifest
    path = layout.manifest(manifest.version)
    files = [path, *(root / file.path for file in manifest.files)]
    total = sum(file.stat().st_size for file in files)
    for file in files:
        content = file.read_bytes()
        for position in range(len(content)):
            for kind, changed in (("flip", _flipped(content, position)), ("cut", content[:position])):
                file.write_bytes(changed)
                found = _is_found(layout, manifest, file)
                yield f"{kind}, checked", None if found else "not found", f"{kind} {file.name} at {position}"
        file.write_bytes(content)
        share = max(4, round(searched * len(content) / total / 2))
        picked = random.integers(0, len(content), share)
        with small_store(shop.config):
            yield from _searched(root, file, content, [int(position) for position in picked], cases.log)


def _flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1 << position % 8]) + content[position + 1 :]


def _is_found(layout: Layout, manifest: Manifest, file: Path) -> bool:
    try:
        if file.parent == layout.manifests:
            Manifest.read(layout, manifest.version)
        else:
            manifest.file(layout.root, file).check_content(layout.root)
    except StoreError:
        return True
    return False


def _searched(
    root: Path, file: Path, content: bytes, positions: list[int], log: Path
) -> Iterator[tuple[str, str | None, str]]:
    """Search with the file damaged; an answer must be the right one."""
    log.unlink(missing_ok=True)
    right = search_all(root)

    def look(some: list[int]) -> None:
        for position in some:
            for changed in (_flipped(content, position), content[:position]):
                file.write_bytes(changed)
                try:
                    found = search_all(root)
                except StoreError:
                    continue
                assert found == right, f"{file.name} at {position}: another answer"

    for start in range(0, len(positions), BATCH):
        some = positions[start : start + BATCH]
        ended = in_fork(lambda some=some: look(some), log)  # type: ignore[misc]
        file.write_bytes(content)
        problem = None if ended == DONE else log.read_text() if log.exists() else f"crashed with {ended}"
        for position in some:
            for kind in ("flip, searched", "cut, searched"):
                yield kind, problem, f"{kind} {file.name} at {position}"
            problem = None
