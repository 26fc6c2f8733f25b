"""The phases of a build. Each leaves finished files and is passed over where it finds them.

read corpus -> fit covariances -> eigenbases -> fit eigenvalues -> vectors -> search index -> fidelity -> manifest
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gindex.ann.library import import_faiss
from gindex.build.allocator import release
from gindex.build.calibration_phase import choose_setting, slice_widths
from gindex.build.fit_phase import Fit, layer_records
from gindex.build.memory import batch_sizes, decomposition_room, query_room, rounds_of_fit, with_expert_factors
from gindex.build.plan import BuildPlan, make_plan
from gindex.build.recompute import recompute
from gindex.build.sampling import FitSample, draw_fit_sample
from gindex.build.state import (
    alone,
    building,
    check_finished,
    check_model,
    check_same_model,
    check_start,
    record_files,
    remove_damaged,
    start_or_resume,
)
from gindex.build.vector_phase import VectorSetup, VectorWork
from gindex.config import EXAMPLES, BuildConfig
from gindex.corpus.fingerprints import fingerprint_sources
from gindex.corpus.objectives import Objective
from gindex.corpus.readers import read_corpus
from gindex.corpus.source_fingerprint import SourceFingerprint
from gindex.corpus.sources import expand
from gindex.curvature.kinds import curvature_kind
from gindex.documents.declared_fields import declared_fields, warn_of_unknown
from gindex.documents.table import DocumentTable
from gindex.documents.table_writer import fill_table
from gindex.errors import ConfigError
from gindex.exact.fidelity import is_measurable, measure_fidelity, sample_parts, sample_queries
from gindex.exact.rerank import Reranker
from gindex.files.atomic import remove_tree
from gindex.model.isolation import plain
from gindex.model.load import LoadedModel, read_model
from gindex.model.tracked_model import TrackedModel
from gindex.progress import Progress, Silent
from gindex.search.search_index import deriving
from gindex.store.files import FileRecord
from gindex.store.layout import FORMAT_VERSION, Layout
from gindex.store.manifest import Manifest
from gindex.store.model_place import model_place
from gindex.store.records import (
    BaseRecord,
    DampingRecord,
    FidelityRecord,
    FitRecord,
    ModelRecord,
    Operation,
    OperationKind,
    ProjectionRecord,
)
from gindex.store.snapshot import Snapshot, projection_of
from gindex.store.unfinished_volumes import remove_claims
from gindex.store.values import record_of, values_of
from gindex.store.vectors import SegmentRecord, VectorWriter
from gindex.store.versions import latest_version, version_numbers
from gindex.store.volume_records import volume_files, volume_record
from gindex.store.writer import UNDERIVED, derived, write_version


@plain()
def plan_build(sources: Sequence[str], config: BuildConfig, progress: Progress | None = None) -> BuildPlan:
    """Read the corpus and the model and estimate the build, leaving nothing behind."""
    config = settled(sources, config)
    with tempfile.TemporaryDirectory(prefix="gindex-") as folder:
        model = load_tracked(config, examples=first_documents(sources, config))
        with PreparedBuild.prepare(Layout(Path(folder)), sources, config, model, progress or Silent()) as build:
            return build.plan()


@plain()
def run_build(
    sources: Sequence[str],
    out: Path,
    config: BuildConfig,
    *,
    strict: bool = False,
    progress: Progress | None = None,
    on_plan: Callable[[BuildPlan], None] = lambda _plan: None,
) -> Manifest:
    """Build an index, or finish an unfinished one.

    Args:
        sources: Corpus files, folders, addresses, or hub dataset names.
        out: The index directory.
        config: All settings.
        strict: Stop at the first document whose loss or gradient is not finite, where it would be passed over.
        progress: Where phases are reported.
        on_plan: Called with the estimate before the work starts.

    Returns:
        The manifest of the finished index.

    Raises:
        GindexError: See the classes in `gindex.errors`; what is already built stays as it is.
    """
    layout, progress = Layout(out), progress or Silent()
    import_faiss()
    config = settled(sources, config)
    fingerprints = fingerprint_sources(sources)
    check_start(layout, config, fingerprints)
    model = _model(layout, sources, config)  # before anything is written: a model that is refused leaves nothing behind
    with building(layout), ExitStack() as stack:
        with alone(layout):
            if version_numbers(layout):
                return _finish(layout, config, model, fingerprints, strict, progress)
            start_or_resume(layout, config, fingerprints)
            check_model(layout, model.loaded.identity | {"dtype": model.dtype_name})
            remove_damaged(layout)
            build = stack.enter_context(PreparedBuild.prepare(layout, sources, config, model, progress))
            on_plan(build.plan())
            work = build.fit(strict)
        segments = work.compute(progress)
        with alone(layout):
            if version_numbers(layout):
                return Snapshot.open(layout).manifest  # another builder was here first
            return build.commit(work, segments, fingerprints)


def _model(layout: Layout, sources: Sequence[str], config: BuildConfig) -> TrackedModel:
    """Load the model; where the index is finished, it must be the recorded one, and the recorded layers are tracked."""
    examples = first_documents(sources, config)
    if not version_numbers(layout):
        return load_tracked(config, examples=examples)
    finished = Manifest.read(layout, latest_version(layout))
    recorded = values_of(finished.model)
    check = partial(check_same_model, layout, recorded)
    return load_tracked(config, finished, lambda loaded: check(loaded.identity), examples)


def _finish(
    layout: Layout,
    config: BuildConfig,
    model: TrackedModel,
    sources: list[SourceFingerprint],
    strict: bool,
    progress: Progress,
) -> Manifest:
    """The newest version of a finished index; segments that are lost are computed again first."""
    manifest = Manifest.read(layout, latest_version(layout))
    check_finished(layout, manifest, config, sources)
    _remove_leftovers(layout)
    if manifest.lost_parts:
        return recompute(layout, manifest, model, config, strict, progress)
    return Snapshot.open(layout).manifest


def settled(sources: Sequence[str], config: BuildConfig) -> BuildConfig:
    """The settings with the longest part filled in; what is seen at once of corpus and model is refused at once.

    Raises:
        CorpusError: A source is not there.
        ModelError: The model cannot be taken, as its folder says.
        ConfigError: Parts would be longer than the model takes, documents are of a form that its task has no use for,
            or a field to index is none.
    """
    for source in sources:
        expand(source)
    declared_fields(config.corpus.index_field)
    read = read_model(config.model)
    most, wanted = read.max_tokens, config.corpus.pack or config.corpus.max_tokens
    if wanted is not None and wanted > most:
        name = "pack" if config.corpus.pack else "max_tokens"
        raise ConfigError(field=name, expected=f"at most {most}, which the model takes", found=wanted)
    kind = read.folder.kind
    corpus = kind.corpus_config(replace(config.corpus, max_tokens=wanted or min(kind.usual_tokens, most)))
    return replace(config, corpus=corpus, model=replace(config.model, task=kind.name))


def first_documents(sources: Sequence[str], config: BuildConfig) -> Callable[[LoadedModel], list[Objective]]:
    """What gives the first documents of a corpus, as a model reads them."""

    def read(loaded: LoadedModel) -> list[Objective]:
        corpus = replace(config.corpus, limit=None, sample=None)
        documents = list(islice(read_corpus(sources, corpus, config.seed), EXAMPLES))
        encoded = loaded.encoder(corpus, config.seed).encode(documents)
        return [part.objective for document in encoded for part in document.parts]

    return read


def load_tracked(
    config: BuildConfig,
    manifest: Manifest | None = None,
    check: Callable[[LoadedModel], None] = lambda _loaded: None,
    examples: Callable[[LoadedModel], Sequence[Objective]] = lambda _loaded: (),
) -> TrackedModel:
    """Load the model and check that the settings suit it, before any work is done.

    Args:
        config: All settings.
        manifest: That of the index, where there is one: its layers are tracked.
        check: Called with the model; see `TrackedModel.load`.
        examples: Gives documents to try it on, likewise.

    Raises:
        ModelError: The model cannot be taken, or fails on parts as long as they may be.
        ConfigError: The dimension doesn't suit the model, or a pattern of layers does nothing.
    """
    model = TrackedModel.load(config.model, None if manifest is None else manifest.layers, check, examples)
    slice_widths(model, config)  # raises ConfigError
    model.check_length(config.corpus.max_tokens or model.loaded.kind.usual_tokens)
    return model


def _remove_leftovers(layout: Layout) -> None:
    """Remove what only an unfinished build needs."""
    layout.build.unlink(missing_ok=True)
    remove_tree(layout.volume(0).staging)
    remove_claims(layout)


@dataclass(kw_only=True)
class PreparedBuild:
    """A build with its corpus read and its model loaded."""

    layout: Layout
    config: BuildConfig
    progress: Progress
    model: TrackedModel
    table: DocumentTable

    @classmethod
    def prepare(
        cls, layout: Layout, sources: Sequence[str], config: BuildConfig, model: TrackedModel, progress: Progress
    ) -> "PreparedBuild":
        """Read the corpus, if it isn't read yet."""
        path = layout.volume(0).documents
        if not path.is_file():
            documents = read_corpus(sources, config.corpus, config.seed)
            fill_table(path, documents, model.loaded.encoder(config.corpus, config.seed), progress)
            if layout.build.is_file():
                record_files(layout, [path])
        table = DocumentTable.open(path)
        warn_of_unknown(table, declared_fields(config.corpus.index_field))
        return cls(layout=layout, config=config, progress=progress, model=model, table=table).on(model)

    def on(self, model: TrackedModel) -> "PreparedBuild":
        """The same build on a model, as on one whose other layers are tracked."""
        counts, tokens = self.table.counts(), self.fit_tokens()
        return replace(self, model=with_expert_factors(model, self.config, tokens, counts.parts, counts.longest_part))

    def __enter__(self) -> "PreparedBuild":
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.table.close()

    def fit_tokens(self) -> int:
        """Tokens that EK-FAC is fitted on."""
        return self._fit_sample.tokens

    def plan(self) -> BuildPlan:
        """Estimate the build."""
        sample, size = self._fit_sample, self.layout.volume(0).documents.stat().st_size
        fit, length = (sample.documents, sample.tokens), self.table.typical_length()
        return make_plan(self.model, self.config, self.table.counts(), fit, length, size)

    def fit(self, strict: bool) -> VectorWork:
        """Fit the factors, if they aren't there yet, and prepare the vectors."""
        layout, model, config = self.layout, self.model, self.config
        sample, longest = self._fit_sample.parts_P, self.table.counts().longest_part
        size = batch_sizes(model, config, self.table.counts().parts, longest).fit
        batches = model.batches(self._fitted(sample), sample, size.tokens)
        release()
        rounds = rounds_of_fit(model, config, longest)
        fit = Fit(
            layout=layout,
            model=model,
            batches=batches,
            kind=curvature_kind(config.curvature.curvature),
            seed=config.seed,
            room=decomposition_room(model, config, rounds),
            progress=self.progress,
        )
        with size.passes(model):
            fit.run(rounds)
        record_files(layout, layout.factor_files(len(model.table.groups)))
        whole = layer_records(layout, model.table, 1.0)
        release()
        setting = choose_setting(layout, model, self.table, config, whole, self.progress)
        release()
        layers = layer_records(layout, model.table, setting.rank_fraction)
        projection = projection_of(layers, config.vectors.projection, config.vectors.dimension, config.seed)
        setup = VectorSetup(
            layout=layout,
            model=model,
            config=config,
            layers=layers,
            projection=projection,
            index_damping=setting.index_damping,
            strict=strict,
        )
        work = setup.work(0, 0, self.table)
        VectorWriter(work.volume, work.spec)
        return work

    def _fitted(self, sample: npt.NDArray[np.int64]) -> list[Objective]:
        """What the curvature of a part is taken of: the tokens that count, weighted where that is asked for."""
        objectives = self.table.objectives(sample.tolist())
        if self.config.curvature.fit_weights:
            return objectives
        return [objective.unweighted() for objective in objectives]

    def commit(
        self, work: VectorWork, segments: dict[int, SegmentRecord], sources: Sequence[SourceFingerprint]
    ) -> Manifest:
        """Make the search index, measure the vectors, and write the first version."""
        layout, counts = self.layout, self.table.counts()
        draft = derived(layout, self._draft(work, segments, sources), deriving(self.progress))
        draft = replace(draft, fidelity=self._fidelity(work, Snapshot(layout, draft)))
        committed = write_version(layout, draft, Operation(kind=OperationKind.BUILD, documents=counts.documents))
        _remove_leftovers(layout)
        return committed

    def _draft(
        self, work: VectorWork, segments: dict[int, SegmentRecord], sources: Sequence[SourceFingerprint]
    ) -> Manifest:
        """What the first version is, but for what is measured and derived of its vectors."""
        layout, table, setup = self.layout, self.model.table, work.setup
        sample = self._fit_sample
        lasting = layout.factor_files(len(table.groups)) + [layout.calibration] * layout.calibration.is_file()
        return Manifest(
            format_version=FORMAT_VERSION,
            version=0,
            operation=Operation(kind=OperationKind.BUILD),
            gindex_version="",
            created="",
            settings=BuildConfig.of_settings(self.config.settings()),
            sources=list(sources),
            model=self._model_record(),
            layers=list(setup.layers),
            untracked=list(table.untracked),
            projection=ProjectionRecord(
                kind=setup.projection.kind,
                seed=setup.projection.seed,
                dimension=setup.projection.dimension,
                fingerprint=setup.projection.fingerprint,
                slices=setup.projection.slices,
            ),
            damping=DampingRecord(exact=self.config.curvature.damping_scale, index=setup.index_damping),
            fit=FitRecord(
                documents=sample.documents,
                parts=len(sample.parts_P),
                tokens=sample.tokens,
                whitened_norm=None,
            ),
            volumes=[volume_record(0, 0, 0, self.table.counts(), work.spec, segments, sources)],
            deleted=[],
            deleted_documents=0,
            deleted_tokens=0,
            search=UNDERIVED,
            fidelity=None,
            files=[FileRecord.of(layout.root, path) for path in lasting]
            + volume_files(layout, layout.volume(0), segments),
            indexed_fields=declared_fields(self.config.corpus.index_field) or None,
        )

    def _model_record(self) -> ModelRecord:
        table, name, base = self.model.table, self.config.model.name, self.model.loaded.base
        return ModelRecord(
            **self.model.loaded.identity,
            base=None if base is None else BaseRecord(name=base, **model_place(base, self.layout.root)),
            **model_place(name, self.layout.root),
            dtype=self.model.dtype_name,
            runtime=self.model.loaded.runtime,
            name=name,
            parameters=table.parameters,
            tracked_parameters=sum(layer.parameters for layer in table.layers),
            body_parameters=table.body,
            tracked_body_parameters=table.tracked_body,
        )

    def _fidelity(self, work: VectorWork, snapshot: Snapshot) -> FidelityRecord | None:
        """Compare the stored scores of a few parts with their exact influence, where the index is large enough."""
        config, usable = self.config.fidelity, snapshot.usable
        if not config.queries or not is_measurable(self.table, usable):
            return None
        release()
        size, setup = work.batch_sizes.fidelity, work.setup
        room = query_room(self.model, self.config, size, self.table.counts().longest_part)
        reranker = Reranker(
            self.model,
            setup.factors.load,
            self.config.curvature.damping_scale,
            self.table,
            size.tokens,
            room,
        )
        queries = sample_queries(self.table, config.queries, usable, self.config.seed)
        parts = sample_parts(usable, config.parts, self.config.seed)
        with size.passes(self.model):
            measured = measure_fidelity(queries, parts, setup.encoder, snapshot.vectors, reranker, self.progress)
        return record_of(FidelityRecord, measured.record())

    @cached_property
    def _fit_sample(self) -> FitSample:
        """The documents that EK-FAC is fitted on, drawn with the seed."""
        return draw_fit_sample(self.table, self.config.curvature.fit_documents, self.config.seed)
