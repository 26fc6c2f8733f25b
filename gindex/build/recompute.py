"""Computing lost segments again: the last step of a repair, which only a model can do."""

from dataclasses import replace

from gindex.build.vector_phase import VectorWork
from gindex.config import BuildConfig
from gindex.engine import Engine, recorded_projection
from gindex.progress import Progress
from gindex.search.search_index import make_search_index, search_files
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest, VolumeRecord
from gindex.store.version import Version, volume_spec
from gindex.store.versions import commit, next_version
from gindex.store.volume import segment_files


def recompute(
    layout: Layout, manifest: Manifest, engine: Engine, config: BuildConfig, strict: bool, progress: Progress
) -> Manifest:
    """Compute the segments that are marked as lost, rebuild the FAISS index, and commit.

    Raises:
        CorruptStoreError: A factor file or document table is damaged.
        NonFiniteError: A document's loss or gradient is not finite, and `strict` is set.
    """
    version = Version(layout, manifest)
    version.check_factors()
    projection = recorded_projection(layout, manifest)
    files = {file.path: file for file in manifest.files}
    volumes: list[VolumeRecord] = []
    with version.table() as table:
        for volume in manifest.volumes:
            work = VectorWork(
                layout=layout,
                number=volume.number,
                first_part=volume.first_part,
                spec=volume_spec(manifest, volume),
                engine=engine,
                table=table,
                config=config,
                layers=manifest.layers,
                projection=projection,
                index_damping=manifest.damping["index"],
                strict=strict,
            )
            skipped = volume.skipped
            for number, segment in work.compute(progress, volume.lost).items() if volume.lost else ():
                lost = volume.segment_range(number)
                skipped = {ordinal: why for ordinal, why in skipped.items() if int(ordinal) not in lost}
                skipped |= segment.skipped
                files |= {file.path: file for file in segment_files(layout, work.volume, number, segment)}
            volumes.append(replace(volume, skipped=skipped, lost=[]))
    restored = Version(layout, replace(manifest, volumes=volumes, files=list(files.values())))
    path = layout.faiss(next_version(layout))
    kind, transform = manifest.search["kind"], manifest.transform_choice
    search = make_search_index(
        layout, path, restored.vectors(), projection, restored.excluded, progress, kind=kind, transform=transform
    )
    return commit(
        layout,
        restored.manifest,
        {"kind": "build", "recomputed": sum(len(volume.lost) for volume in manifest.volumes)},
        search=search,
        files=[*restored.manifest.lasting, *search_files(layout, search)],
    )
