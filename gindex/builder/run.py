"""The phases of a build. Each leaves finished files and is passed over where it finds them.

read corpus -> fit covariances -> eigenbases -> fit eigenvalues -> vectors -> search index -> manifest
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gindex.atomic import remove_tree
from gindex.builder.factors import fit_factors, layer_records
from gindex.builder.plan import BuildPlan, make_plan
from gindex.builder.state import building, check_finished, check_model, check_same_model, start_or_resume
from gindex.builder.vectors import compute_vectors, vector_spec
from gindex.config import BuildConfig
from gindex.corpus.batches import TokenBatch
from gindex.corpus.fill import fill_table
from gindex.corpus.fingerprints import SourceFingerprint, fingerprint_sources
from gindex.corpus.readers import read_corpus
from gindex.corpus.table import DocumentTable
from gindex.engine import Engine, projection_of, token_batches
from gindex.errors import ConfigError
from gindex.gradient.projection import LayerShape, ProjectionSpec
from gindex.model.load import LoadedModel
from gindex.progress import Progress, Silent
from gindex.search.faiss_index import FaissSpec, build_faiss, import_faiss, spec_record
from gindex.store.factors import factor_files
from gindex.store.layout import FORMAT_VERSION, Layout
from gindex.store.manifest import FileRecord, LayerRecord, Manifest
from gindex.store.vectors import VectorReader, VectorSpec, skipped_parts, vector_files


def plan_build(sources: Sequence[str], config: BuildConfig, progress: Progress | None = None) -> BuildPlan:
    """Read the corpus and the model and estimate the build, leaving nothing behind."""
    with tempfile.TemporaryDirectory(prefix="gindex-") as folder:
        layout, engine = Layout(Path(folder)), _load_engine(config)
        with _Build.prepare(layout, sources, config, engine, progress or Silent()) as build:
            return build.plan()


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
        sources: Corpus files, folders, or hub dataset names.
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
    layout = Layout(out)
    import_faiss()
    with building(layout):
        fingerprints = fingerprint_sources(sources)
        if layout.manifest.is_file():
            manifest = Manifest.read(layout)
            check_finished(layout, manifest, config, fingerprints)
            check_same_model(layout, manifest.model, _fingerprints(_load_engine(config).loaded))
            _remove_leftovers(layout)
            return manifest
        start_or_resume(layout, config, fingerprints)
        engine = _load_engine(config)
        check_model(layout, _fingerprints(engine.loaded) | {"dtype": _dtype(engine.loaded)})
        with _Build.prepare(layout, sources, config, engine, progress or Silent()) as build:
            on_plan(build.plan())
            return build.run(strict, fingerprints)


def _load_engine(config: BuildConfig) -> Engine:
    """Load the model and check that the settings suit it, before any work is done."""
    engine = Engine.load(config.model)
    if config.corpus.max_tokens > engine.loaded.max_tokens:
        raise ConfigError(
            f"--max-tokens: expected at most {engine.loaded.max_tokens}, which the model takes, "
            f"got {config.corpus.max_tokens}"
        )
    shapes = [
        LayerShape(name=layer.name, group=layer.group, rows=layer.outputs, columns=layer.inputs)
        for layer in engine.table.layers
    ]
    ProjectionSpec(layers=tuple(shapes), dimension=config.vectors.dimension, seed=config.seed)  # raises ConfigError
    return engine


def _fingerprints(loaded: LoadedModel) -> dict[str, str]:
    """Return what identifies a model."""
    return {"model": loaded.fingerprint, "tokenizer": loaded.tokenizer_fingerprint}


def _dtype(loaded: LoadedModel) -> str:
    return str(next(loaded.model.parameters()).dtype).removeprefix("torch.")


def _remove_leftovers(layout: Layout) -> None:
    """Remove what only an unfinished build needs."""
    layout.build.unlink(missing_ok=True)
    remove_tree(layout.staging)


@dataclass(kw_only=True)
class _Build:
    """A build with its corpus read and its model loaded."""

    layout: Layout
    config: BuildConfig
    progress: Progress
    engine: Engine
    table: DocumentTable

    @classmethod
    def prepare(
        cls, layout: Layout, sources: Sequence[str], config: BuildConfig, engine: Engine, progress: Progress
    ) -> "_Build":
        """Read the corpus, if it isn't read yet."""
        if not layout.documents.is_file():
            documents = read_corpus(sources, config.corpus)
            fill_table(layout.documents, documents, engine.loaded.tokenizer, config.corpus, progress)
        table = DocumentTable.open(layout.documents)
        return cls(layout=layout, config=config, progress=progress, engine=engine, table=table)

    def __enter__(self) -> "_Build":
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.table.close()

    def plan(self) -> BuildPlan:
        """Estimate the build."""
        sample = self._fit_sample()
        tokens = int(self.table.part_lengths()[sample].sum())
        documents = len(np.unique(self.table.part_documents()[sample]))
        size = self.layout.documents.stat().st_size
        return make_plan(self.engine, self.config, self.table.counts(), (documents, tokens), size)

    def run(self, strict: bool, sources: list[SourceFingerprint]) -> Manifest:
        """Run the phases and write the manifest."""
        sample = self._fit_sample()
        fit_factors(self.layout, self.engine, self._fit_batches(sample), self.config.seed, self.progress)
        layers = layer_records(self.layout, self.engine.table, self.config.vectors.rank_fraction)
        projection = projection_of(layers, self.config.vectors.dimension, self.config.seed)
        spec = vector_spec(self.config.vectors, projection, self.table.counts().parts)
        compute_vectors(self.layout, self.engine, self.table, self.config, layers, spec, strict, self.progress)
        with self.progress.phase("search index", spec.parts, "parts") as phase:
            reader = VectorReader(self.layout, spec)
            search = build_faiss(self.layout.faiss, reader, projection, phase.advance)
        manifest = self._manifest(sources, sample, layers, projection, spec, search)
        manifest.write(self.layout)
        _remove_leftovers(self.layout)
        return manifest

    def _fit_sample(self) -> npt.NDArray[np.int64]:
        """Return the part ordinals of the documents that EK-FAC is fitted on, drawn with the seed."""
        documents = self.table.part_documents()
        count, wanted = int(documents.max()) + 1, self.config.curvature.fit_documents
        if wanted == 0 or wanted >= count:
            return np.arange(len(documents))
        drawn = np.random.default_rng(self.config.seed).choice(count, wanted, replace=False)
        return np.flatnonzero(np.isin(documents, drawn))

    def _fit_batches(self, sample: npt.NDArray[np.int64]) -> list[TokenBatch]:
        tokens = self.table.tokens(sample.tolist())
        return token_batches(tokens, sample, np.ones(len(sample), np.int64), self.config.batch_tokens)

    def _manifest(
        self,
        sources: list[SourceFingerprint],
        sample: npt.NDArray[np.int64],
        layers: list[LayerRecord],
        projection: ProjectionSpec,
        spec: VectorSpec,
        search: FaissSpec,
    ) -> Manifest:
        layout, table = self.layout, self.engine.table
        segments = [layout.segment(number) for number in range(spec.segments)]
        plain = [layout.documents, layout.faiss, *factor_files(layout, len(table.groups)), *segments]
        tracked = sum(layer.parameters for layer in table.layers)
        return Manifest(
            format_version=FORMAT_VERSION,
            gindex_version=version("gindex"),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            settings=self.config.settings(),
            sources=[asdict(source) for source in sources],
            model=_fingerprints(self.engine.loaded)
            | {
                "dtype": _dtype(self.engine.loaded),
                "name": self.config.model.name,
                "parameters": tracked + sum(weight.parameters for weight in table.untracked),
                "tracked_parameters": tracked,
            },
            layers=layers,
            untracked=[asdict(weight) for weight in table.untracked],
            projection={
                "kind": "count-sketch",
                "seed": projection.seed,
                "dimension": projection.dimension,
                "fingerprint": projection.fingerprint,
                "slices": {group: list(bounds) for group, bounds in projection.slices.items()},
            },
            documents=asdict(self.table.counts()),
            fit={
                "documents": len(np.unique(self.table.part_documents()[sample])),
                "parts": len(sample),
                "tokens": int(self.table.part_lengths()[sample].sum()),
            },
            segment_parts=spec.segment_parts,
            skipped=skipped_parts(layout, spec),
            search=spec_record(search),
            files=[FileRecord.of(layout.root, path) for path in plain] + vector_files(layout, spec),
        )
