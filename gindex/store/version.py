"""One version of an index, opened for reading. It stays as it is, whatever is committed after it."""

from collections.abc import Collection, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gindex.documents.checksums import Guard, RowChecksums
from gindex.documents.table import DocumentTable
from gindex.errors import CorruptStoreError
from gindex.store.factors import factor_files
from gindex.store.layout import REMEDY, Layout
from gindex.store.manifest import Manifest, VolumeRecord
from gindex.store.reader import VectorReader
from gindex.store.second_level import StoredLevel, read_level
from gindex.store.vectors import VectorSpec, VolumeReader
from gindex.store.versions import latest_version, require_version


class Version:
    """A version and what it holds. A file is compared with its checksum before it is first used."""

    def __init__(self, layout: Layout, manifest: Manifest, problems: Sequence[str] = (), lost: Collection[range] = ()):
        """Use `open`."""
        self.layout, self.manifest = layout, manifest
        self.problems = tuple(problems)
        self.lost = sorted(lost, key=lambda parts: parts.start)
        self._checked: set[str] = set()

    @classmethod
    def open(cls, layout: Layout, version: int | None = None, *, allow_degraded: bool = False) -> "Version":
        """Open a version, the newest where None, and check that its files are there in full length.

        Args:
            layout: The index.
            version: Its number.
            allow_degraded: Go on where shards are missing or damaged, without their parts; `problems` says which. Reads
                all shards to be sure of the rest.

        Raises:
            NotAnIndexError: There is no finished index.
            VersionError: There is no such version.
            FormatVersionError: A newer gindex wrote it.
            CorruptStoreError: The manifest or a file is damaged, or segments wait to be computed again.
        """
        if version is None:
            version = latest_version(layout)
        else:
            require_version(layout, version)
        manifest = Manifest.read(layout, version)
        if allow_degraded:
            problems, lost = degradation(layout, manifest)
            return cls(layout, manifest, problems, lost)
        if manifest.lost_parts:
            parts = sum(len(parts) for parts in manifest.lost_parts)
            raise CorruptStoreError(
                field=layout.root,
                expected="all vectors",
                found=f"{parts:,} parts waiting to be computed again",
                remedy="run the gindex build that made the index",
            )
        for file in manifest.files:
            file.check_length(layout.root)
        return cls(layout, manifest)

    def checked(self, path: Path) -> Path:
        """Compare a file with its checksum, once, and return its path.

        Raises:
            CorruptStoreError: It differs, is missing, or is not of this version.
        """
        record = self.manifest.file(self.layout.root, path)
        if record.path not in self._checked:
            record.check_content(self.layout.root)
            self._checked.add(record.path)
        return path

    @property
    def faiss(self) -> Path:
        """The FAISS index."""
        return self.layout.root / str(self.manifest.search["file"])

    def second_level(self) -> StoredLevel | None:
        """Load the second level of curvature; None where it is off."""
        level = self.manifest.second_level
        if level is None:
            return None
        path = self.checked(self.layout.root / str(level["file"]))
        return read_level(path, self.manifest.stored_parts, self.manifest.projection["dimension"])

    def table(self) -> DocumentTable:
        """Open the document tables, each compared with its checksums as far as it is used."""
        paths = [self.layout.volume(volume.number).documents for volume in self.manifest.volumes]
        guards = [self._guard(volume) for volume in self.manifest.volumes]
        return DocumentTable.open(*paths, deleted=self.manifest.deleted, guards=guards)

    def _guard(self, volume: VolumeRecord) -> Guard | None:
        """Return what a table is compared with; compare all of it, where its rows have no checksums of their own."""
        place = self.layout.volume(volume.number)
        if not self.manifest.names(self.layout.root, place.row_checksums):  # as before there were any
            self.checked(place.documents)
            return None
        documents = range(volume.first_document, volume.first_document + volume.documents)
        parts = range(volume.first_part, volume.first_part + volume.parts)

        @cache
        def rows() -> RowChecksums:
            return RowChecksums.read(self.checked(place.row_checksums), place.documents, documents, parts)

        return Guard(whole=partial(self.checked, place.documents), rows=rows)

    def vectors(self) -> VectorReader:
        """Map the vectors."""
        chunks = {self.layout.root / file.path: file.chunks for file in self.manifest.files if file.chunks is not None}
        readers = [
            VolumeReader(self.layout.volume(volume.number), volume_spec(self.manifest, volume), chunks)
            for volume in self.manifest.volumes
        ]
        return VectorReader(readers, self.lost)

    def check_factors(self) -> None:
        """Compare all factor files with their checksums, once."""
        groups = len({layer.group for layer in self.manifest.layers})
        for path in factor_files(self.layout, groups):
            self.checked(path)

    @property
    def excluded(self) -> npt.NDArray[np.int64]:
        """Ordinals of the parts that no search may return: without a vector, deleted, or lost; ascending."""
        excluded = np.zeros(self.manifest.stored_parts, bool)
        excluded[[int(ordinal) for ordinal in self.manifest.skipped]] = True
        for start, stop in [*self.manifest.deleted, *((parts.start, parts.stop) for parts in self.lost)]:
            excluded[start:stop] = True
        return np.flatnonzero(excluded)


def volume_spec(manifest: Manifest, volume: VolumeRecord) -> VectorSpec:
    """Return the shape of a volume's vectors."""
    return VectorSpec(
        parts=volume.parts,
        segment_parts=volume.segment_parts,
        dimension=manifest.projection["dimension"],
        bits=manifest.config.vectors.bits,
        slices=tuple(manifest.slices.values()),
    )


def segment_files(layout: Layout, manifest: Manifest, volume: VolumeRecord) -> dict[int, list[Path]]:
    """Return the shards of each segment of a volume, and its record last."""
    place, spec = layout.volume(volume.number), volume_spec(manifest, volume)
    return {
        number: [
            *(rows.shard_path(place.vectors / name, number) for name, rows in spec.arrays.items()),
            place.segment(number),
        ]
        for number in range(spec.segments)
    }


def degradation(layout: Layout, manifest: Manifest) -> tuple[list[str], set[range]]:
    """Return what is wrong with the shards and the derived files, and the parts that are lost by it; reads all of them.

    Raises:
        CorruptStoreError: A file is damaged without which nothing can be searched.
    """
    problems, lost = [], set(manifest.lost_parts)
    segments = {
        path: volume.segment_range(number)
        for volume in manifest.volumes
        for number, paths in segment_files(layout, manifest, volume).items()
        for path in paths
    }
    problems += [f"parts {parts.start:,} to {parts.stop - 1:,}: lost" for parts in manifest.lost_parts]
    for file in manifest.files:
        path = layout.root / file.path
        if segments.get(path) in lost:
            continue
        try:
            if file.chunks is None and file.path not in manifest.derived:
                file.check_length(layout.root)
            else:
                file.check_content(layout.root)
        except CorruptStoreError as error:
            if path not in segments and file.path not in manifest.derived:
                raise
            problems.append(str(error).removesuffix(f"; {REMEDY}"))
            if path in segments and file.chunks is not None:
                lost.add(segments[path])
    return problems, lost
