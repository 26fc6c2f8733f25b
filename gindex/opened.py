"""A version of an index with all that queries need of it, each loaded when it is first needed."""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex import workers
from gindex.ann.index import FaissIndex, build_faiss
from gindex.ann.spec import spec_of
from gindex.config import ModelConfig, SearchOptions
from gindex.corpus.records import Document
from gindex.curvature.ekfac import FactorLoader, LayerFactors
from gindex.documents.filters import parse_filter
from gindex.documents.selection import filtered_parts, lexical_documents, parts_of_id
from gindex.documents.table import DocumentTable
from gindex.engine import Engine, recorded_projection
from gindex.errors import GindexError, MismatchError, ModelError
from gindex.exact.rerank import Reranker
from gindex.model.fingerprints import TRANSFORMERS
from gindex.model.load import LoadedModel
from gindex.model.passes import plain
from gindex.progress import Progress, Silent
from gindex.queries.query import FailedQuery
from gindex.queries.tokens import QueryTokens
from gindex.search.encoded import EncodedQuery, searchable
from gindex.search.funnel import Funnel
from gindex.search.hit import Clock, Outcome, SearchResult, answers
from gindex.search.refine import Refiner, refine_sample
from gindex.search.searcher import Rerank, Searcher
from gindex.search.second_level import fit_stored
from gindex.store.factors import FactorReader
from gindex.store.layout import Layout
from gindex.store.model_place import model_places
from gindex.store.reader import VectorReader
from gindex.store.version import Version
from gindex.threads import Lock, once
from gindex.vectors.path import VectorPath
from gindex.vectors.projection import Projection, ProjectionSpec, make_projection


class OpenedVersion:
    """The model, the factors, the vectors, the FAISS index and the documents of a version."""

    def __init__(self, version: Version, model: ModelConfig, *, resident: bool = False) -> None:
        """Load nothing yet.

        Args:
            version: The version.
            model: Where the model is, checked against the version's when it is loaded; without a name it is looked for
                where the manifest says that it is.
            resident: Read the FAISS index into memory, where it is mapped otherwise.
        """
        self._version = version
        self._layout = version.layout
        self._model, self._resident = model, resident
        self.loading = Lock()
        self.manifest = version.manifest

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process, or a copy, open the same version itself: nothing that is loaded goes along."""
        settings = self._model, self.manifest.version, bool(self.problems), self._resident
        return _reopened, (type(self), self.path, *settings)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with an index that was opened with `allow_degraded`, and so missing from its answers."""
        return self._version.problems

    @property
    def path(self) -> Path:
        """The index directory."""
        return self._layout.root

    @property
    def engine(self) -> Engine:
        """The model, loaded and checked against the version's."""
        return self._engine

    @property
    def documents(self) -> DocumentTable:
        """The documents, their parts and tokens."""
        return self._documents

    @property
    def reranker(self) -> Reranker:
        """What computes exact influence."""
        return self._reranker

    @property
    def vectors(self) -> VectorReader:
        """The stored vectors."""
        return self._vectors_reader

    @property
    def usable_parts(self) -> npt.NDArray[np.int64]:
        """Ordinals of the parts that a search may return: neither deleted nor without a vector."""
        return np.setdiff1d(np.arange(self.manifest.stored_parts), self._version.excluded)

    @property
    def model_config(self) -> ModelConfig:
        """Where the model is and how it runs.

        Raises:
            ModelError: It is nowhere that the manifest says.
        """
        return self._model_configs()[0]

    def _model_configs(self) -> list[ModelConfig]:
        """Return where the model may be, the likeliest place first."""
        if self._model.name:
            return [self._model]
        return [replace(self._model, name=place) for place in model_places(self.manifest.model, self.path)]

    @once
    def twin(self) -> Self:
        """This version with the modules of `Engine.twin`: long work on it may stand still while this one is asked."""
        engine = self._engine.twin
        twin = type(self)(self._version, self._model, resident=self._resident)
        for name in ("_projection", "_vectors_reader", "_documents", "_funnel", "_searcher"):
            twin.__dict__[name] = getattr(self, name)
        path = copy(self._path)
        path.layers = engine.table.layers
        twin.__dict__ |= {"_engine": engine, "_path": path}
        return twin

    def ids(self, where: str | None = None) -> list[str]:
        """Return the ids of the documents that a search may return, in the order of the index.

        Args:
            where: Only documents whose metadata pass this filter.

        Raises:
            FilterError: `where` does not parse, or names a field that no document has.
        """
        parts = self.usable_parts
        if where is not None:
            parts = np.intersect1d(parts, filtered_parts(self._documents, parse_filter(where)))
        documents = np.unique(self._documents.part_documents()[parts])
        names = dict(self._documents.rows("SELECT ordinal, id FROM documents"))
        return [names[document] for document in documents.tolist()]

    def document(self, document_id: str) -> Document:
        """Return a document with its whole text.

        Raises:
            UnknownDocumentError: There is no such document, or it is deleted.
        """
        return self._documents.document(document_id)

    def lexical(self, text: str, k: int) -> list[tuple[str, float]]:
        """Return the ids and BM25 scores of the k documents that match the words of a text best.

        Raises:
            QueryError: The text has no words.
        """
        found = lexical_documents(self._documents, text, k)
        names = dict(self._documents.rows("SELECT ordinal, id FROM documents"))
        return [(names[document], score) for document, score in found]

    def tokens(self, document_id: str) -> list[npt.NDArray[np.uint32]]:
        """Return the token ids of every part of a document, in order.

        Raises:
            UnknownDocumentError: There is no such document, or it is deleted.
        """
        return [tokens for _, tokens in parts_of_id(self._documents, document_id)]

    @once
    @plain()
    def _engine(self) -> Engine:
        errors: list[GindexError] = []
        for config in self._model_configs():
            try:
                engine = self._checked_engine(config)
            except (ModelError, MismatchError) as error:
                errors.append(error)
            else:
                self._model = config  # where it was found, for what loads it again
                return engine
        raise errors[0]

    def _checked_engine(self, config: ModelConfig) -> Engine:
        return Engine.load(config, self.manifest.layers, partial(self._check_model, config.name))

    def _check_model(self, name: str, loaded: LoadedModel) -> None:
        for what, fingerprint in loaded.identity.items():
            recorded = self.manifest.model.get(what, fingerprint)  # an older gindex recorded less
            if fingerprint != recorded:
                remedy = "give that one with `model`"
                if TRANSFORMERS in (recorded, fingerprint):  # the same weights, run by other code
                    remedy = f"{'give' if fingerprint == TRANSFORMERS else 'leave out'} `trust_remote_code`"
                raise MismatchError(
                    field=name,
                    expected=f"the {what} {recorded[:12] or 'none'} that the index was built with",
                    found=fingerprint[:12] or "none",
                    remedy=remedy,
                )

    @once
    def _projection(self) -> ProjectionSpec:
        return recorded_projection(self._layout, self.manifest)

    @once
    @plain()
    def _path(self) -> VectorPath:
        self._version.check_factors()  # before a native library reads them
        damping = self.manifest.damping["index"]
        return self._engine.vector_path(self._layout, self.manifest.layers, self._projection, damping)

    @once
    @plain()
    def _whitening(self) -> tuple[dict[str, LayerFactors], float, Projection]:
        """What whitens and projects gradients without the model: factors, damping and projection."""
        self._version.check_factors()  # before a native library reads them
        device = torch.device("cpu")
        projection = make_projection(self._projection, device)
        factors = FactorReader(self._layout, self.manifest.layers, device).truncated()
        return factors, self.manifest.damping["index"], projection

    @once
    def _vectors_reader(self) -> VectorReader:
        return self._version.vectors()

    @once
    @plain()
    def _funnel(self) -> Funnel:
        if self.problems:
            return self._degraded_funnel()
        spec, parts, mapped = spec_of(self.manifest.search), self.manifest.stored_parts, not self._resident
        check = self._version.checked  # before a native library reads it
        index = FaissIndex(self._version.faiss, spec, self._projection, parts, mapped=mapped, check=check)
        return Funnel(index, self._vectors_reader, self._version.excluded, self._version.second_level())

    def _degraded_funnel(self) -> Funnel:
        """Search what is left of the vectors, through a second level and a FAISS index of them alone."""
        reader, mu = self._vectors_reader, self.manifest.mu
        level = None if mu is None else fit_stored(reader, self._version.excluded, mu, Silent())
        with TemporaryDirectory(prefix="gindex-") as folder:
            path = Path(folder, "search.faiss")
            spec = build_faiss(path, reader, self._projection, level=level)
            index = FaissIndex(path, spec, self._projection, reader.spec.parts)
            index.open()  # what is mapped outlives the folder
        return Funnel(index, reader, self._version.excluded, level)

    @once
    @plain()
    def _searcher(self) -> Searcher:
        workers.start()
        if self._resident:  # a service compares everything before it takes requests
            self._funnel.index.open()
            self._documents.compare()
        return Searcher(self._funnel, self._vectors_reader, self._documents, list(self.manifest.slices))

    @once
    def _documents(self) -> DocumentTable:
        return self._version.table()

    @once
    @plain()
    def _reranker(self) -> Reranker:
        return Reranker(self._engine, self._factor_loader, self.manifest.damping["exact"], self._documents)

    @once
    @plain()
    def _factor_loader(self) -> FactorLoader:
        self._version.check_factors()  # before a native library reads them
        return self._engine.factors(self._layout, self.manifest.layers).load

    def _search(
        self, asked: Sequence[EncodedQuery | FailedQuery], options: SearchOptions, clock: Clock, progress: Progress
    ) -> list[Outcome]:
        """Answer encoded queries; those that failed, or fail here by themselves, stay in their places."""
        asked = [searchable(query, options) for query in asked]
        encoded = [query for query in asked if isinstance(query, EncodedQuery)]
        results = iter(self._answers(encoded, options, clock, progress) if encoded else [])
        return [query if isinstance(query, FailedQuery) else next(results) for query in asked]

    def _answers(
        self, encoded: Sequence[EncodedQuery], options: SearchOptions, clock: Clock, progress: Progress
    ) -> list[SearchResult]:
        tokens = [query.tokens for query in encoded if query.tokens is not None]
        rerank = self._rerank(tokens, options, clock, progress) if len(tokens) == len(encoded) else None
        vectors_QD = torch.stack([query.vector_D for query in encoded])
        found = self._searcher.find(vectors_QD, options, [query.words for query in encoded], rerank, clock)
        counts = [0 if query.tokens is None else len(query.tokens.ids) for query in encoded]
        notes = [() if query.tokens is None else query.tokens.notes for query in encoded]
        return answers([query.query for query in encoded], counts, notes, found, clock, self.manifest)

    def _rerank(
        self, tokens: Sequence[QueryTokens], options: SearchOptions, clock: Clock, progress: Progress
    ) -> Rerank | None:
        """Return what re-ranks the candidates of queries exactly, refined or not; None where it isn't asked for."""
        if not options.exact:
            return None
        exact = partial(self._reranker.influence, tokens, progress=progress, held={})
        if options.refine is None:
            return exact
        damping = self.manifest.damping["exact"]
        refiner = Refiner(self._engine, self._factor_loader, damping, self._documents, options.solver())
        parts = refine_sample(self.usable_parts, options.refine_parts, int(self.manifest.settings["seed"]))

        def precondition(some: Sequence[QueryTokens], progress: Progress) -> dict[str, Tensor]:
            found, reports = refiner.solve(some, parts, progress)
            clock.refinements += reports
            return found

        return partial(exact, precondition=precondition, query_bytes=refiner.query_bytes)


def _reopened(
    kind: type[OpenedVersion], path: Path, model: ModelConfig, version: int, allow_degraded: bool, resident: bool
) -> OpenedVersion:
    return kind(Version.open(Layout(path), version, allow_degraded=allow_degraded), model, resident=resident)
