"""Adding documents to a finished index: same factors, same projection, a new volume and a new version."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.ann.spec import import_faiss, spec_of
from gindex.build.run import load_engine
from gindex.build.state import check_same_model
from gindex.build.vector_phase import VectorWork, vector_spec
from gindex.change.delete import marked
from gindex.change.distance import is_far, mean_whitened_norm, norm_ratio
from gindex.config import BuildConfig, ModelConfig
from gindex.corpus.fingerprints import fingerprint_sources
from gindex.corpus.readers import read_corpus
from gindex.corpus.records import Document
from gindex.documents.filling import fill_table
from gindex.documents.table import DocumentTable
from gindex.engine import recorded_projection
from gindex.errors import CorpusError
from gindex.model.passes import plain
from gindex.progress import Progress, Silent
from gindex.search.search_index import make_search_index, search_files
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.pending import finish_volume, start_volume
from gindex.store.version import Version
from gindex.store.versions import commit, next_version, writing
from gindex.store.volume import volume_files, volume_record

_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Addition:
    """What an add did.

    Attributes:
        manifest: The new version.
        documents: Documents added.
        replaced: Documents that had the same ids, now deleted.
        norm_ratio: Mean whitened norm of the new text over that of the build's text.
        far: Whether that is so far from 1 that the factors should be fitted again.
    """

    manifest: Manifest
    documents: int
    replaced: int
    norm_ratio: float
    far: bool


@plain()
def run_add(
    layout: Layout,
    sources: Sequence[str],
    config: BuildConfig,
    *,
    replace_ids: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
) -> Addition:
    """Add documents, or finish an add that was interrupted, and commit.

    Args:
        layout: The index.
        sources: Corpus files, folders, or hub dataset names.
        config: The settings of the index, with the model's place, the device, the batches and the fields' names.
        replace_ids: Delete documents of the index that have the id of a new one, where the add would be refused.
        strict: Stop at the first document whose loss or gradient is not finite.
        progress: Where phases are reported.

    Raises:
        CorpusError: An id is in the index already; nothing is added.
        GindexError: See the classes in `gindex.errors`; the index stays as it was.
    """
    progress = progress or Silent()
    import_faiss()
    with writing(layout):
        version = Version.open(layout)
        version.check_factors()
        projection = recorded_projection(layout, version.manifest)
        recorded = version.manifest
        engine = load_engine(config, recorded, lambda loaded: check_same_model(layout, recorded.model, loaded.identity))
        origin = [asdict(source) for source in fingerprint_sources(sources)]
        started = {
            "replace": replace_ids,
            "sources": origin,
            "corpus": asdict(config.corpus),
            "volumes": [asdict(volume) for volume in version.manifest.volumes],
        }
        number = start_volume(layout, started)
        place = layout.volume(number)
        with version.table() as old:
            if not place.documents.is_file():
                documents = read_corpus(sources, config.corpus)
                fill_table(
                    place.documents,
                    documents if replace_ids else _unknown(documents, old),
                    engine.loaded.tokenizer,
                    config.corpus,
                    progress,
                    first_document=version.manifest.stored_documents,
                    first_part=version.manifest.stored_parts,
                )
            with DocumentTable.open(place.documents) as table:
                replaced = _replaced(old, table)
                deleted = marked(version.manifest, old, replaced)
                work = VectorWork(
                    layout=layout,
                    number=number,
                    first_part=version.manifest.stored_parts,
                    spec=vector_spec(config.vectors, projection, table.counts().parts),
                    engine=engine,
                    table=table,
                    config=config,
                    layers=version.manifest.layers,
                    projection=projection,
                    index_damping=version.manifest.damping["index"],
                    strict=strict,
                )
                fitted = version.manifest.fit["whitened_norm"]
                if fitted is None:
                    fitted = mean_whitened_norm(work, old, _first_volume(version), progress)
                added = np.arange(work.first_part, work.first_part + work.spec.parts)
                ratio = norm_ratio(mean_whitened_norm(work, table, added, progress), fitted)
                changes = deleted | {"fit": version.manifest.fit | {"whitened_norm": fitted}}
                return _commit(version, work, changes, ratio, origin, progress)


def add_config(
    manifest: Manifest,
    model: ModelConfig,
    text_field: str | None = None,
    id_field: str | None = None,
    batch_tokens: int | None = None,
) -> BuildConfig:
    """Return the settings of an index for an add; the fields may have other names than in the build."""
    config = manifest.config
    corpus = replace(
        config.corpus,
        text_field=text_field or config.corpus.text_field,
        id_field=id_field or config.corpus.id_field,
    )
    return replace(config, corpus=corpus, model=model, batch_tokens=batch_tokens or config.batch_tokens)


def _unknown(documents: Iterator[Document], old: DocumentTable) -> Iterator[Document]:
    """Pass documents on whose ids the index doesn't know."""
    while batch := list(islice(documents, _BATCH)):
        known = old.known([document.document_id for document in batch])
        if known:
            raise CorpusError(
                field=f"document {next(iter(known))!r}",
                expected="an id that is not in the index",
                found="it there",
                remedy="nothing is added: give documents new ids, or replace the old ones with `replace`",
            )
        yield from batch


def _replaced(old: DocumentTable, table: DocumentTable) -> list[int]:
    """Return the documents of the index, by their ordinals, that have the id of a new one."""
    documents: list[int] = []
    ids = table.document_ids()
    while batch := list(islice(ids, _BATCH)):
        documents += old.known(batch).values()
    return documents


def _first_volume(version: Version) -> npt.NDArray[np.int64]:
    """Return the parts [N] of the build, but for those that are deleted or have no vector."""
    volume = version.manifest.volumes[0]
    return np.setdiff1d(np.arange(volume.first_part, volume.first_part + volume.parts), version.excluded)


def _commit(
    version: Version,
    work: VectorWork,
    changes: dict[str, Any],
    ratio: float,
    sources: list[dict[str, Any]],
    progress: Progress,
) -> Addition:
    layout, manifest = work.layout, version.manifest
    segments = work.compute(progress)
    counts = work.table.counts()
    volume = volume_record(
        work.number,
        manifest.stored_documents,
        work.first_part,
        counts,
        work.spec,
        segments,
        sources,
    )
    files = volume_files(layout, work.number, segments)
    volumes = [*manifest.volumes, volume]
    grown = Version(layout, replace(manifest, volumes=volumes, files=[*manifest.files, *files], **changes))
    path = layout.faiss(next_version(layout))
    old = spec_of(manifest.search), version.checked(version.faiss)
    search = make_search_index(
        layout, path, grown.vectors(), work.projection, grown.excluded, progress, old=old, mu=manifest.mu
    )
    replaced = grown.manifest.deleted_documents - manifest.deleted_documents
    committed = commit(
        layout,
        grown.manifest,
        {"kind": "add", "documents": counts.documents, "replaced": replaced, "norm_ratio": ratio},
        search=search,
        files=[*grown.manifest.lasting, *search_files(layout, search)],
    )
    finish_volume(layout, work.number)
    return Addition(
        manifest=committed,
        documents=counts.documents,
        replaced=replaced,
        norm_ratio=ratio,
        far=is_far(ratio),
    )
