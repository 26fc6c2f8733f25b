"""Volumes that are being written: found again by the command that began them, removed by any other."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gindex.errors import StoreError
from gindex.files.atomic import remove_tree, sync
from gindex.store.files import read_json, write_json
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.versions import latest_version, version_numbers


def start_volume(layout: Layout, started: Mapping[str, Any]) -> int:
    """The number of the volume to write, that of an interrupted command where it was started with the same.

    The caller is the only writer, so what no version names is a dead writer's, and is removed. Such a volume has a
    larger number than those of the newest version; others may, where that went back to an older one.
    """
    named, dead = _sorted_out(layout)
    for number in dead:
        if _pending(layout, number) == started:
            return number
        remove_tree(layout.volume(number).folder)
    number = max(named, default=-1) + 1
    write_json(layout.volume(number).pending, dict(started))
    return number


def place_volume(layout: Layout, folder: Path) -> int:
    """Move the folder of a volume that is written among the volumes, and return its number; see `start_volume`."""
    named, dead = _sorted_out(layout)
    for number in dead:
        remove_tree(layout.volume(number).folder)
    number = max(named, default=-1) + 1
    os.replace(folder, layout.volume(number).folder)
    sync(layout.volumes)
    return number


def finish_volume(layout: Layout, number: int) -> None:
    """Remove what only an unfinished volume needs."""
    layout.volume(number).pending.unlink(missing_ok=True)
    remove_tree(layout.volume(number).staging)
    remove_claims(layout)


def remove_claims(layout: Layout) -> None:
    """Remove the lock files that dead builders left at segments: all segments are finished, so no one needs them."""
    for path in layout.root.glob(f"{layout.lock.name}-[0-9]*"):
        path.unlink(missing_ok=True)


def _sorted_out(layout: Layout) -> tuple[set[int], list[int]]:
    """The volumes that versions name, and those that none does."""
    folders = {int(path.name) for path in layout.volumes.iterdir() if path.name.isdecimal()}
    newest = _named(layout, folders, [latest_version(layout)])
    named = folders if max(folders) == max(newest) else _named(layout, folders, version_numbers(layout))
    return named, sorted(folders - named)


def _named(layout: Layout, folders: set[int], versions: Iterable[int]) -> set[int]:
    """The volumes that versions name; all, where a manifest cannot be read."""
    try:
        manifests = [Manifest.read(layout, version) for version in versions]
    except StoreError:
        return folders
    return {volume.number for manifest in manifests for volume in manifest.volumes}


def _pending(layout: Layout, number: int) -> dict[str, Any] | None:
    try:
        return read_json(layout.volume(number).pending)
    except StoreError:
        return None
