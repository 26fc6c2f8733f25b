"""The files of one version of an index, opened for reading. They stay as they are, whatever is committed after it."""

from collections.abc import Collection, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gindex.config import EXAMPLES, TRANSFORMS
from gindex.corpus.objectives import Objective
from gindex.documents.checksums import Guard, RowChecksums
from gindex.documents.field_index import FieldIndex
from gindex.documents.table import DocumentTable
from gindex.errors import CorruptStoreError
from gindex.model.layer_records import LayerRecord
from gindex.store.layout import REMEDY, Layout
from gindex.store.manifest import Manifest
from gindex.store.part_ranges import PartRanges
from gindex.store.reader import VectorReader
from gindex.store.records import VolumeRecord
from gindex.store.vectors import VectorSpec, VolumeReader
from gindex.store.versions import latest_version, require_version
from gindex.thread_safety import Lock, once
from gindex.vectors.projection import LayerShape, ProjectionSpec

if TYPE_CHECKING:
    from gindex.store.transform import Transform


class Snapshot:
    """The files of a version. Each is compared with its checksum before it is first used."""

    def __init__(self, layout: Layout, manifest: Manifest, problems: Sequence[str] = (), lost: Collection[range] = ()):
        """Take what a manifest says; `open` looks at the files as well.

        Args:
            layout: The index.
            manifest: The manifest of the version, or the draft of one that is being written.
            problems: What is wrong with the files; see `open`.
            lost: Parts whose vectors are lost by it.
        """
        self.layout, self.manifest = layout, manifest
        self.problems = tuple(problems)
        self.lost = sorted(lost, key=lambda parts: parts.start)
        self.loading = Lock()
        self._checked: set[str] = set()

    @classmethod
    def open(cls, layout: Layout, version: int | None = None, *, allow_degraded: bool = False) -> "Snapshot":
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
            return cls._open_newest(layout, allow_degraded)
        require_version(layout, version)
        return cls._open(layout, version, allow_degraded)

    @classmethod
    def _open_newest(cls, layout: Layout, allow_degraded: bool) -> "Snapshot":
        """Open the newest version; where it is replaced and pruned on the way, the one that has come."""
        while True:
            newest = latest_version(layout)
            try:
                return cls._open(layout, newest, allow_degraded)
            except CorruptStoreError:
                if latest_version(layout) == newest:
                    raise

    @classmethod
    def _open(cls, layout: Layout, version: int, allow_degraded: bool) -> "Snapshot":
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
            record.check_once(self.layout.root)
            self._checked.add(record.path)
        return path

    @property
    def root(self) -> Path:
        """The index directory."""
        return self.layout.root

    @once
    def documents(self) -> DocumentTable:
        """The documents, their parts and tokens: one table for all that ask this snapshot."""
        return self.table()

    def examples(self) -> list[Objective]:
        """Return a few documents, to try a model of a user's own task on."""
        return self.documents.objectives(self.usable.ordinals(range(min(EXAMPLES, len(self.usable)))))

    def transform(self) -> "Transform | None":
        """Load what vectors are transformed by before they are compared; None where by nothing."""
        record = self.manifest.search.transform
        if record is None:
            return None
        path = self.checked(self.root / record.file)
        loaded: Transform = TRANSFORMS.get(record.kind).open(
            path, self.manifest.stored_parts, self.manifest.projection.dimension
        )
        return loaded

    def table(self) -> DocumentTable:
        """Open the document tables, each compared with its checksums as far as it is used."""
        paths = [self.layout.volume(volume.number).documents for volume in self.manifest.volumes]
        guards = [self._guard(volume) for volume in self.manifest.volumes]
        fields = [self._field_index(volume) for volume in self.manifest.volumes]
        return DocumentTable.open(*paths, deleted=self.manifest.deleted, guards=guards, fields=fields)

    def _field_index(self, volume: VolumeRecord) -> FieldIndex | None:
        """The index of fields of a volume, compared with its checksum when it is first used."""
        if volume.fields is None:
            return None
        path = self.root / volume.fields
        return FieldIndex(path, partial(self.checked, path), volume.first_document, volume.first_part)

    def _guard(self, volume: VolumeRecord) -> Guard | None:
        """What a table is compared with; compare all of it, where its rows have no checksums of their own."""
        place = self.layout.volume(volume.number)
        if not self.manifest.names(self.root, place.row_checksums):  # as before there were any
            self.checked(place.documents)
            return None
        documents = range(volume.first_document, volume.first_document + volume.documents)
        parts = range(volume.first_part, volume.first_part + volume.parts)

        @cache
        def rows() -> RowChecksums:
            path = place.row_checksums
            return RowChecksums(self.checked(path), place.documents, documents, parts)

        return Guard(whole=partial(self.checked, place.documents), rows=rows, documents=documents, parts=parts)

    @once
    def vectors(self) -> VectorReader:
        """The stored vectors."""
        chunks = {self.root / file.path: file.chunks for file in self.manifest.files if file.chunks is not None}
        readers = [
            VolumeReader(self.layout.volume(volume.number), volume_spec(self.manifest, volume), chunks)
            for volume in self.manifest.volumes
        ]
        return VectorReader(readers, self.lost)

    @once
    def projection(self) -> ProjectionSpec:
        """The projection.

        Raises:
            CorruptStoreError: It is not the one whose fingerprint the manifest records.
        """
        recorded = self.manifest.projection
        spec = projection_of(self.manifest.layers, recorded.kind, recorded.dimension, recorded.seed)
        if spec.fingerprint != recorded.fingerprint:
            raise CorruptStoreError(
                field=self.layout.manifest(self.manifest.version),
                expected=f"projection {recorded.fingerprint[:12]}",
                found=spec.fingerprint[:12],
                remedy=f"the manifest was altered: {REMEDY}",
            )
        return spec

    def check_factors(self) -> None:
        """Compare all factor files with their checksums, once."""
        groups = len({layer.group for layer in self.manifest.layers})
        for path in self.layout.factor_files(groups):
            self.checked(path)

    @property
    def usable(self) -> PartRanges:
        """The parts that a search may return."""
        skipped = ((ordinal, ordinal + 1) for ordinal in map(int, self.manifest.skipped))
        lost = ((parts.start, parts.stop) for parts in self.lost)
        return PartRanges.between(0, self.manifest.stored_parts, [*self.manifest.deleted, *skipped, *lost])

    @property
    def excluded(self) -> npt.NDArray[np.int64]:
        """Ordinals of the parts that no search may return: without a vector, deleted, or lost; ascending."""
        excluded = np.zeros(self.manifest.stored_parts, bool)
        excluded[[int(ordinal) for ordinal in self.manifest.skipped]] = True
        for start, stop in [*self.manifest.deleted, *((parts.start, parts.stop) for parts in self.lost)]:
            excluded[start:stop] = True
        return np.flatnonzero(excluded)

    @property
    def usable_parts(self) -> npt.NDArray[np.int64]:
        """Ordinals of the parts that a search may return, ascending."""
        return self.usable.all()


def projection_of(layers: Sequence[LayerRecord], kind: str, dimension: int, seed: int) -> ProjectionSpec:
    """The projection of an index with these layers."""
    shapes = tuple(
        LayerShape(name=layer.name, group=layer.group, rows=layer.gradient_rank, columns=layer.activation_rank)
        for layer in layers
    )
    return ProjectionSpec(layers=shapes, kind=kind, dimension=dimension, seed=seed)


def volume_spec(manifest: Manifest, volume: VolumeRecord) -> VectorSpec:
    """The shape of a volume's vectors."""
    return VectorSpec(
        parts=volume.parts,
        segment_parts=volume.segment_parts,
        dimension=manifest.projection.dimension,
        bits=manifest.settings.vectors.bits,
        slices=tuple(manifest.projection.slices.values()),
    )


def segment_paths(layout: Layout, manifest: Manifest, volume: VolumeRecord) -> dict[int, list[Path]]:
    """The shards of each segment of a volume, and its record last."""
    place, spec = layout.volume(volume.number), volume_spec(manifest, volume)
    return {
        number: [
            *(rows.shard_path(place.vectors / name, number) for name, rows in spec.arrays.items()),
            place.segment(number),
        ]
        for number in range(spec.segments)
    }


def degradation(layout: Layout, manifest: Manifest) -> tuple[list[str], set[range]]:
    """What is wrong with the shards and the derived files, and the parts that are lost by it; reads all of them.

    Raises:
        CorruptStoreError: A file is damaged without which nothing can be searched.
    """
    problems, lost = [], set(manifest.lost_parts)
    segments = {
        path: volume.segment_range(number)
        for volume in manifest.volumes
        for number, paths in segment_paths(layout, manifest, volume).items()
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
