"""Repair: what is derived is built again, what is lost is marked to be computed again by `gindex build`."""

from dataclasses import dataclass, replace

from gindex.documents.checksums import write_row_checksums
from gindex.errors import CorruptStoreError
from gindex.files.atomic import sync
from gindex.model.isolation import plain
from gindex.progress import Progress, Silent
from gindex.search.search_index import deriving_again
from gindex.store.field_indexes import without_field_indexes
from gindex.store.layout import REMEDY, Layout
from gindex.store.manifest import Manifest
from gindex.store.records import Operation, OperationKind
from gindex.store.snapshot import segment_paths
from gindex.store.versions import latest_version, writing
from gindex.store.writer import write_version


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What a repair did.

    Attributes:
        manifest: The newest version.
        rebuilt: Derived files that were built again.
        lost: Parts that are marked to be computed again.
        beyond: What cannot be repaired: it must be restored from a copy, or built again.
    """

    manifest: Manifest
    rebuilt: tuple[str, ...]
    lost: int
    beyond: tuple[str, ...]


@plain()
def repair(layout: Layout, progress: Progress | None = None) -> Repair:
    """Check every file of the newest version, build what is derived again where it is damaged, mark lost segments.

    Raises:
        CorruptStoreError: The newest manifest is damaged; `rollback` goes back to an earlier one.
        StoreError: The index cannot be written.
    """
    with writing(layout):
        manifest = Manifest.read(layout, latest_version(layout))
        problems = _damaged(layout, manifest)
        rewritten = _write_row_checksums(layout, manifest, problems)
        fields = _damaged_fields(layout, manifest, problems)
        derived = [name for name in manifest.derived if problems.pop(name, None) is not None]
        lost: dict[int, list[int]] = {}
        for volume in manifest.volumes:
            segments = segment_paths(layout, manifest, volume)
            names = {n: {path.relative_to(layout.root).as_posix() for path in paths} for n, paths in segments.items()}
            lost[volume.number] = [n for n in segments if n in volume.lost or names[n] & problems.keys()]
            for name in set().union(*(names[n] for n in lost[volume.number])):
                problems.pop(name, None)
        draft = without_field_indexes(manifest, fields)
        draft = replace(draft, volumes=[replace(volume, lost=lost[volume.number]) for volume in draft.volumes])
        again = deriving_again(manifest.search, progress or Silent()) if derived and not problems else None
        _remove_records(layout, lost)
        if draft != manifest or again is not None:
            lost_segments = sum(len(numbers) for numbers in lost.values())
            operation = Operation(kind=OperationKind.REPAIR, lost_segments=lost_segments)
            manifest = write_version(layout, draft, operation, again)
        return Repair(
            manifest=manifest,
            rebuilt=(*rewritten, *fields, *(manifest.derived if again is not None else ())),
            lost=sum(len(parts) for parts in manifest.lost_parts),
            beyond=tuple(problems.values()),
        )


def _write_row_checksums(layout: Layout, manifest: Manifest, problems: dict[str, str]) -> list[str]:
    """Write damaged checksums of rows again where their table is whole: they come out as they were."""
    written = []
    for place in (layout.volume(volume.number) for volume in manifest.volumes):
        sums, table = (path.relative_to(layout.root).as_posix() for path in (place.row_checksums, place.documents))
        if sums in problems and table not in problems:
            write_row_checksums(place.documents, place.row_checksums)
            del problems[sums]
            written.append(sums)
    return written


def _damaged_fields(layout: Layout, manifest: Manifest, problems: dict[str, str]) -> list[str]:
    """The damaged indexes of fields whose table is whole: they are written again."""
    damaged = []
    for volume in manifest.volumes:
        table = layout.volume(volume.number).documents.relative_to(layout.root).as_posix()
        if volume.fields in problems and table not in problems:
            del problems[str(volume.fields)]
            damaged.append(str(volume.fields))
    return damaged


def _remove_records(layout: Layout, lost: dict[int, list[int]]) -> None:
    """Remove the records of lost segments: a foreign one must not pass for the one that is computed again."""
    for volume, numbers in lost.items():
        records = [layout.volume(volume).segment(number) for number in numbers]
        for path in records:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in records if path.parent.is_dir()}:
            sync(folder)


def _damaged(layout: Layout, manifest: Manifest) -> dict[str, str]:
    """What is wrong with each damaged file, by its path."""
    problems = {}
    for file in manifest.files:
        try:
            file.check_content(layout.root)
        except CorruptStoreError as error:
            problems[file.path] = str(error).removesuffix(f"; {REMEDY}")
    return problems
