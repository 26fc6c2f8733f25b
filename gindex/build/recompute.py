"""Computing lost segments again: the last step of a repair, which only a model can do."""

from dataclasses import replace

from gindex.build.vector_phase import VectorSetup
from gindex.config import BuildConfig
from gindex.model.tracked import TrackedModel
from gindex.progress import Progress
from gindex.search.search_index import deriving_again
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.records import Operation, OperationKind, VolumeRecord
from gindex.store.snapshot import Snapshot, volume_spec
from gindex.store.volume_records import segment_records
from gindex.store.writer import write_version


def recompute(
    layout: Layout, manifest: Manifest, model: TrackedModel, config: BuildConfig, strict: bool, progress: Progress
) -> Manifest:
    """Compute the segments that are marked as lost, and write a version with them.

    Raises:
        CorruptStoreError: A factor file or document table is damaged.
        NonFiniteError: A document's loss or gradient is not finite, and `strict` is set.
    """
    snapshot = Snapshot(layout, manifest)
    snapshot.check_factors()
    setup = VectorSetup.recorded(snapshot, model, config, strict=strict)
    files = {file.path: file for file in manifest.files}
    volumes: list[VolumeRecord] = []
    with snapshot.table() as table:
        for volume in manifest.volumes:
            work = setup.work(volume.number, volume.first_part, table, volume_spec(manifest, volume))
            skipped = volume.skipped
            for number, segment in work.compute(progress, volume.lost).items() if volume.lost else ():
                lost = volume.segment_range(number)
                skipped = {ordinal: why for ordinal, why in skipped.items() if int(ordinal) not in lost}
                skipped |= segment.skipped
                files |= {file.path: file for file in segment_records(layout, work.volume, number, segment)}
            volumes.append(replace(volume, skipped=skipped, lost=[]))
    draft = replace(manifest, volumes=volumes, files=list(files.values()))
    operation = Operation(kind=OperationKind.BUILD, recomputed=sum(len(volume.lost) for volume in manifest.volumes))
    return write_version(layout, draft, operation, deriving_again(manifest.search, progress))
