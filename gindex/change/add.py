"""Adding documents to a finished index: same factors, same projection, a new volume and a new version."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from gindex.ann.library import import_faiss
from gindex.build.run import load_tracked
from gindex.build.state import check_same_model
from gindex.build.vector_phase import VectorSetup, VectorWork
from gindex.change.delete import marked
from gindex.change.distance import is_far, mean_whitened_norm, norm_ratio
from gindex.change.merge import merge_after_add
from gindex.config import BuildConfig, ModelConfig
from gindex.corpus.fingerprints import fingerprint_sources
from gindex.corpus.readers import read_corpus
from gindex.corpus.records import Document
from gindex.corpus.source_fingerprint import SourceFingerprint
from gindex.documents.table import DocumentTable
from gindex.documents.table_writer import fill_table
from gindex.errors import CorpusError
from gindex.model.isolation import plain
from gindex.progress import Progress, Silent
from gindex.search.search_index import deriving_run
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.part_ranges import PartRanges
from gindex.store.records import Operation, OperationKind
from gindex.store.snapshot import Snapshot
from gindex.store.unfinished_volumes import finish_volume, start_volume
from gindex.store.values import values_of
from gindex.store.versions import writing
from gindex.store.volume_records import volume_files, volume_record
from gindex.store.writer import write_version

_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Addition:
    """What an add did.

    Attributes:
        manifest: The newest version: that of the documents, or one in which small volumes were merged after it.
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
        sources: Corpus files, folders, addresses, or hub dataset names.
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
        snapshot = Snapshot.open(layout)
        snapshot.check_factors()
        manifest, fingerprints = snapshot.manifest, fingerprint_sources(sources)
        recorded = values_of(manifest.model)
        model = load_tracked(
            config,
            manifest,
            lambda loaded: check_same_model(layout, recorded, loaded.identity),
            lambda _loaded: snapshot.examples(),
        )
        setup = VectorSetup.recorded(snapshot, model, config, strict=strict)
        started = {
            "replace": replace_ids,
            "sources": values_of(fingerprints),
            "corpus": values_of(config.corpus),
            "volumes": values_of(manifest.volumes),
        }
        number = start_volume(layout, started)
        place = layout.volume(number)
        with snapshot.table() as old:
            if not place.documents.is_file():
                documents = read_corpus(sources, config.corpus, config.seed)
                fill_table(
                    place.documents,
                    documents if replace_ids else _unknown(documents, old),
                    model.loaded.encoder(config.corpus, config.seed),
                    progress,
                    first_document=manifest.stored_documents,
                    first_part=manifest.stored_parts,
                )
            with DocumentTable.open(place.documents) as table:
                work = setup.work(number, manifest.stored_parts, table)
                fitted = manifest.fit.whitened_norm
                if fitted is None:
                    fitted = mean_whitened_norm(work, old, _first_volume(snapshot), progress)
                added = PartRanges([(work.first_part, work.first_part + work.spec.parts)])
                ratio = norm_ratio(mean_whitened_norm(work, table, added, progress), fitted)
                draft = marked(manifest, old, _replaced(old, table))
                draft = replace(draft, fit=replace(manifest.fit, whitened_norm=fitted))
                addition = _commit(snapshot, draft, work, ratio, fingerprints, progress)
    return replace(addition, manifest=merge_after_add(layout, addition.manifest, progress))


def add_config(
    manifest: Manifest,
    model: ModelConfig,
    text_field: str | None = None,
    id_field: str | None = None,
    batch_tokens: int | None = None,
    limit: int | None = None,
    sample: int | None = None,
) -> BuildConfig:
    """The settings of an index for an add; the fields may have other names than in the build, and all documents count.

    Raises:
        ConfigError: A setting is out of its range, or `limit` and `sample` are both given.
    """
    config = manifest.settings
    corpus = replace(
        config.corpus,
        text_field=text_field or config.corpus.text_field,
        id_field=id_field or config.corpus.id_field,
        limit=limit,
        sample=sample,
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
    """The documents of the index, by their ordinals, that have the id of a new one."""
    documents: list[int] = []
    ids = table.document_ids()
    while batch := list(islice(ids, _BATCH)):
        documents += old.known(batch).values()
    return documents


def _first_volume(snapshot: Snapshot) -> PartRanges:
    """The parts of the build, but for those that are deleted or have no vector."""
    usable, volume = snapshot.usable, snapshot.manifest.volumes[0]
    return usable.within(volume.first_part, volume.first_part + volume.parts)


def _commit(
    snapshot: Snapshot,
    draft: Manifest,
    work: VectorWork,
    ratio: float,
    sources: Sequence[SourceFingerprint],
    progress: Progress,
) -> Addition:
    layout, manifest = snapshot.layout, snapshot.manifest
    segments = work.compute(progress)
    counts = work.table.counts()
    volume = volume_record(
        work.number, manifest.stored_documents, work.first_part, counts, work.spec, segments, sources
    )
    files = volume_files(layout, work.volume, segments)
    draft = replace(draft, volumes=[*manifest.volumes, volume], files=[*manifest.files, *files])
    replaced = draft.deleted_documents - manifest.deleted_documents
    parts = range(manifest.stored_parts, manifest.stored_parts + work.spec.parts)
    derive = deriving_run(layout, manifest, parts, progress)
    operation = Operation(kind=OperationKind.ADD, documents=counts.documents, replaced=replaced, norm_ratio=ratio)
    committed = write_version(layout, draft, operation, derive)
    finish_volume(layout, work.number)
    return Addition(
        manifest=committed,
        documents=counts.documents,
        replaced=replaced,
        norm_ratio=ratio,
        far=is_far(ratio),
    )
