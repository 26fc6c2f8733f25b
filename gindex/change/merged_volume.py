"""One volume made of several: prepared while others write, and committed where what it is made of is still there.

    snapshot -> volume and FAISS file in the folder of merges -> among the others, under the writers' lock -> manifest

Ordinals stay as they are, so what is added and deleted meanwhile fits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from gindex.change.volume_copy import copy_table, copy_vectors
from gindex.documents.table import DocumentTable
from gindex.files.atomic import publish_written, remove_tree
from gindex.files.locks import held
from gindex.progress import Progress
from gindex.search.search_index import deriving_run
from gindex.store.files import FileRecord
from gindex.store.layout import Layout, VolumeLayout
from gindex.store.manifest import Manifest
from gindex.store.part_ranges import PartRanges
from gindex.store.records import Operation, OperationKind, SearchFile, SearchRecord, VolumeRecord
from gindex.store.snapshot import Snapshot
from gindex.store.unfinished_volumes import place_volume
from gindex.store.versions import explained, latest_version, next_version
from gindex.store.volume_records import volume_files, volume_record
from gindex.store.writer import write_version


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """What holds some consecutive parts of a version: whole volumes and whole FAISS files."""

    volumes: tuple[VolumeRecord, ...]
    faiss: tuple[SearchFile, ...]

    @classmethod
    def of(cls, manifest: Manifest, parts: range) -> "Pieces":
        """Those of a version that hold any of the parts."""
        volumes = (
            of for of in manifest.volumes if of.first_part < parts.stop and parts.start < of.first_part + of.parts
        )
        before, _, after = manifest.search.around(parts)
        files = manifest.search.faiss
        return cls(volumes=tuple(volumes), faiss=files[len(before) : len(files) - len(after)])

    @classmethod
    def at(cls, manifest: Manifest, places: range) -> "Pieces":
        """Those of the volumes at consecutive places in a manifest."""
        first, last = manifest.volumes[places.start], manifest.volumes[places.stop - 1]
        return cls.of(manifest, range(first.first_part, last.first_part + last.parts))

    @property
    def parts(self) -> range:
        """The ordinals of the parts in the volumes."""
        last = self.volumes[-1]
        return range(self.volumes[0].first_part, last.first_part + last.parts)

    def are_in(self, manifest: Manifest) -> bool:
        """Whether a version has these and no others of the same parts."""
        return Pieces.of(manifest, self.parts) == self


@dataclass(frozen=True, kw_only=True)
class MergedVolume:
    """A volume and a FAISS file of the parts of several, written aside.

    Attributes:
        layout: The index.
        pieces: What they are made of.
        volume: What a manifest says of the volume but for its number.
        files: The files of the volume, in the folder of merges.
        search: The search index with the FAISS file, as it would be if nothing else changed.
        faiss: The FAISS file, in the folder of merges.
    """

    layout: Layout
    pieces: Pieces
    volume: VolumeRecord
    files: list[FileRecord]
    search: SearchRecord
    faiss: FileRecord

    @classmethod
    def prepare(cls, snapshot: Snapshot, pieces: Pieces, progress: Progress) -> "MergedVolume":
        """Write consecutive volumes of a version again as one; the caller is the only one to merge.

        Args:
            snapshot: The version.
            pieces: The volumes, with their FAISS files.
            progress: Where the work is reported.

        Raises:
            CorruptStoreError: A file is damaged, or was removed meanwhile.
            StoreError: The index cannot be written.
        """
        layout, manifest = snapshot.layout, snapshot.manifest
        old, first = pieces.volumes, pieces.volumes[0]
        place, faiss = VolumeLayout(layout.merging / "volume"), layout.merging / "search.faiss"
        copy_table(snapshot, place, old, first, progress)
        kept = PartRanges([(pieces.parts.start, pieces.parts.stop)])
        spec, segments = copy_vectors(snapshot, place, kept, first.first_part, progress)
        remove_tree(place.staging)
        with DocumentTable.open(place.documents) as table:
            counts = table.counts()
        sources = [source for volume in old for source in volume.sources]
        return cls(
            layout=layout,
            pieces=pieces,
            volume=volume_record(-1, first.first_document, first.first_part, counts, spec, segments, sources),
            files=volume_files(layout, place, segments),
            search=deriving_run(layout, manifest, pieces.parts, progress)(snapshot, faiss),
            faiss=FileRecord.of(layout.root, faiss),
        )

    def commit(self) -> Manifest | None:
        """Put it in the place of what it is made of, in the newest version; the caller is the index's only writer.

        Returns:
            The manifest; None, and nothing is done, where the newest version is made of something else.
        """
        layout, manifest = self.layout, Manifest.read(self.layout, latest_version(self.layout))
        if not self.pieces.are_in(manifest):
            return None
        place, faiss = VolumeLayout(layout.merging / "volume"), layout.faiss(next_version(layout))
        number = place_volume(layout, place.folder)
        publish_written(layout.root / self.faiss.path, faiss)
        folder = layout.volume(number).folder.relative_to(layout.root).as_posix()
        written = place.folder.relative_to(layout.root).as_posix()
        moved = [replace(file, path=folder + file.path.removeprefix(written)) for file in self.files]
        file = replace(self.faiss, path=faiss.relative_to(layout.root).as_posix())
        at = manifest.volumes.index(self.pieces.volumes[0])
        volume = replace(self.volume, number=number)
        draft = replace(
            manifest,
            volumes=[*manifest.volumes[:at], volume, *manifest.volumes[at + len(self.pieces.volumes) :]],
            search=self._grown(manifest.search, file.path),
            files=[*self._others(manifest), *moved, file],
        )
        return write_version(layout, draft, Operation(kind=OperationKind.MERGE, documents=volume.documents))

    def _grown(self, search: SearchRecord, name: str) -> SearchRecord:
        """The search index of the newest version with the FAISS file, which has come to its place."""
        before, _, after = search.around(self.pieces.parts)
        made = next(file for file in self.search.faiss if file.file == self.faiss.path)
        grown = replace(search, faiss=(*before, replace(made, file=name), *after))
        if len(grown.faiss) == len(self.search.faiss) == 1:
            return replace(grown, recall=self.search.recall)
        measured = self.search if len(self.search.faiss) == 1 else search
        recall = measured.recall
        return replace(grown, recall=recall and replace(recall, parts=recall.parts or measured.parts))

    def _others(self, manifest: Manifest) -> Iterator[FileRecord]:
        """The files of a version that it does not take the place of."""
        layout, replaced = self.layout, {file.file for file in self.pieces.faiss}
        for volume in self.pieces.volumes:
            replaced |= {file.path for file in manifest.files_below(layout.root, layout.volume(volume.number).folder)}
        yield from (file for file in manifest.files if file.path not in replaced)


@contextmanager
def merging(layout: Layout) -> Iterator[None]:
    """Be the only one that merges volumes of an index; what is left of it is removed.

    Raises:
        NotAnIndexError: There is no finished index.
        BusyError: Another process merges.
        StoreError: The directory cannot be written.
    """
    latest_version(layout)
    with explained(layout), held(layout.claim("merge")):
        try:
            yield
        finally:
            remove_tree(layout.merging)
