"""`GradientIndex`: what the command line, services and users call."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.build.run import run_build
from gindex.change.add import Addition, add_config, run_add
from gindex.change.delete import delete_documents
from gindex.config import AUTO, PERMISSIONS, BuildConfig, ModelConfig
from gindex.corpus.contents import TENSORS, Content
from gindex.corpus.objectives import Objective
from gindex.corpus.picture_texts import PictureText
from gindex.corpus.records import Document
from gindex.documents.filters import parse_filter
from gindex.documents.selection import filtered_parts, lexical_documents, parts_of_id
from gindex.errors import ConfigError, MismatchError
from gindex.exact.explain import Explanation, explain
from gindex.exact.fidelity import Fidelity, FidelityQueries, measure_fidelity, sample_parts, sample_queries
from gindex.exact.influence import QueryInfluence, RefinedPreconditioner
from gindex.exact.refiner import refiner_sample
from gindex.exact.rerank import Reranker
from gindex.keywords import ScoreKeywords, SearchKeywords
from gindex.model.isolation import plain, throughout
from gindex.model.named_functions import is_function_name
from gindex.options import changed
from gindex.progress import Progress, Silent
from gindex.queries.query import FailedQuery, Query, query_of
from gindex.queries.tokens import QueryTokens, tokenize_all, tokenize_queries, tokenize_query
from gindex.search.outliers import Outlier, find_outliers
from gindex.search.query_vectors import EncodedQuery, encode_queries
from gindex.search.result import Clock, Outcome, SearchResult, answered, usable
from gindex.search.score_file import ScoreFile, write_scores
from gindex.search.search_index import open_searcher
from gindex.search.searcher import Searcher
from gindex.search.sweep import Sweep
from gindex.search_options import REFINERS, ScoreOptions, SearchOptions
from gindex.store.description import describe
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.query_documents import IndexReader
from gindex.store.recorded_model import RecordedModel
from gindex.store.snapshot import Snapshot
from gindex.store.versions import latest_version
from gindex.thread_safety import Lock, once
from gindex.vectors.gradients import encode_gradients

DEFAULT_OPTIONS, DEFAULT_SCORES = SearchOptions(), ScoreOptions()


@throughout(plain)
class GradientIndex:
    """A version of a finished index: its files, its model and what searches it. `open` or `build` gives one.

    Attributes:
        snapshot: The files.
        model: The model, loaded when it is first needed.

    Example:
        >>> index = GradientIndex.open("runs/jargon")
        >>> for hit in index.search("A race condition is", completion=" a bug", k=3).hits:
        ...     print(hit.rank, hit.score, hit.document_id)
    """

    def __init__(
        self, snapshot: Snapshot, model: RecordedModel, *, resident: bool = False, searcher: Searcher | None = None
    ) -> None:
        """Put the parts together; nothing is loaded yet.

        Args:
            snapshot: The files.
            model: The model.
            resident: Read the FAISS index into memory, where it is mapped otherwise.
            searcher: What searches the files, where that is open already.
        """
        self.loading = Lock()
        self.snapshot, self.model, self._resident = snapshot, model, resident
        if searcher is not None:
            self.searcher = searcher

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process, or a copy, open the same version itself: nothing that is loaded goes along."""
        settings = self.model.given, self.manifest.version, bool(self.problems), self._resident
        return _reopened, (type(self), self.path, *settings)

    @classmethod
    def build(
        cls,
        sources: Sequence[str],
        out: str | Path,
        config: BuildConfig,
        *,
        strict: bool = False,
        progress: Progress | None = None,
    ) -> "GradientIndex":
        """Build an index, or finish an unfinished one, and open it.

        Args:
            sources: Corpus files, folders, addresses or hub dataset names.
            out: The index directory.
            config: All settings; `config.model.name` is required.
            strict: Stop at the first document whose loss or gradient is not finite.
            progress: Where phases are reported.

        Raises:
            GindexError: A bad source, model or setting; what is already built stays as it is.
        """
        run_build(sources, Path(out), config, strict=strict, progress=progress)
        allowed = {name: getattr(config.model, name) for name in PERMISSIONS}
        model = config.model
        task = model.task if is_function_name(model.task) else None
        return cls.open(out, model=model.name, base=model.base, task=task, device=model.device, **allowed)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        model: str | None = None,
        base: str | None = None,
        task: str | None = None,
        device: str = "auto",
        version: int | None = None,
        allow_degraded: bool = False,
        resident: bool = False,
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
    ) -> "GradientIndex":
        """Open a version of a finished index, which stays as it is. The model is loaded at the first query.

        Args:
            path: The index directory.
            model: Folder or hub name of the model; None looks for it where the build recorded it.
            base: The same of the base of an adapter.
            task: Function of one's own that the index was built with, which is imported; an index never runs one by
                itself.
            device: Device of the passes.
            version: Number of the version; None opens the newest.
            allow_degraded: Go on where vectors are lost or damaged, without their documents; `problems` says which.
            resident: Read the FAISS index into memory; mapped, a file that is cut short meanwhile ends the process.
            trust_remote_code: Run code that the model brings with it; an index never asks for that by itself.
            allow_pickle: Read pickled weights, tensors alone, where there are no others; likewise.

        Raises:
            NotAnIndexError: There is no finished index.
            VersionError: There is no such version.
            CorruptStoreError: A file is missing or damaged.
            FormatVersionError: A newer gindex wrote it.
        """
        # Absolute, as the process may go to another folder before all files are open.
        snapshot = Snapshot.open(Layout(Path(path).absolute()), version, allow_degraded=allow_degraded)
        config = ModelConfig(
            name=_absolute(model) or "",
            adapter=snapshot.manifest.settings.model.adapter,
            base=_absolute(base),
            task=task or AUTO,
            device=device,
            dtype=snapshot.manifest.model.dtype,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
        )
        return cls(snapshot, RecordedModel(snapshot, config), resident=resident)

    @property
    def manifest(self) -> Manifest:
        """What the version is."""
        return self.snapshot.manifest

    @property
    def path(self) -> Path:
        """The index directory."""
        return self.snapshot.root

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with an index that was opened with `allow_degraded`, and so missing from its answers."""
        return self.snapshot.problems

    @once
    @plain()
    def searcher(self) -> Searcher:
        """What finds the best of the stored vectors."""
        return open_searcher(self.snapshot, resident=self._resident)

    @once
    @plain()
    def reranker(self) -> Reranker:
        """What computes exact influence."""
        snapshot, model = self.snapshot, self.model
        return Reranker(model.tracked, model.factors, snapshot.manifest.damping.exact, snapshot.documents)

    @once
    def twin(self) -> "GradientIndex":
        """The same on other modules of the model: long work on it may stand still while this one is asked."""
        return GradientIndex(self.snapshot, self.model.twin(), resident=self._resident, searcher=self.searcher)

    def add(
        self,
        sources: Sequence[str],
        *,
        replace: bool = False,
        text_field: str | None = None,
        id_field: str | None = None,
        limit: int | None = None,
        sample: int | None = None,
        batch_tokens: int | None = None,
        strict: bool = False,
        progress: Progress | None = None,
    ) -> Addition:
        """Add documents as a new version; `refresh` opens it. See `gindex.change.add.run_add`."""
        config = add_config(self.manifest, self.model.config, text_field, id_field, batch_tokens, limit, sample)
        return run_add(self.snapshot.layout, sources, config, replace_ids=replace, strict=strict, progress=progress)

    def delete(self, document_ids: Sequence[str]) -> None:
        """Delete documents as a new version; `refresh` opens it. See `gindex.change.delete.delete_documents`."""
        delete_documents(self.snapshot.layout, document_ids)

    def refresh(self) -> "GradientIndex":
        """Open the newest version: this one, where nothing was committed since."""
        if latest_version(self.snapshot.layout) == self.manifest.version:
            return self
        newest = Snapshot.open(self.snapshot.layout)
        return GradientIndex(newest, self.model.of(newest), resident=self._resident)

    def ids(self, where: str | None = None) -> list[str]:
        """The ids of the documents that a search may return, in the order of the index.

        Args:
            where: Only documents whose metadata pass this filter.

        Raises:
            FilterError: `where` does not parse, or names a field that no document has.
        """
        table, parts = self.snapshot.documents, self.snapshot.usable_parts
        if where is not None:
            parts = np.intersect1d(parts, filtered_parts(table, parse_filter(where)))
        names = dict(table.rows("SELECT ordinal, id FROM documents"))
        return [names[document] for document in np.unique(table.part_documents()[parts]).tolist()]

    def document(self, document_id: str) -> Document:
        """A document with its whole text.

        Raises:
            UnknownDocumentError: There is no such document, or it is deleted.
        """
        return self.snapshot.documents.document(document_id)

    def lexical(self, text: str, k: int) -> list[tuple[str, float]]:
        """The ids and BM25 scores of the k documents that match the words of a text best.

        Raises:
            QueryError: The text has no words.
        """
        table = self.snapshot.documents
        names = dict(table.rows("SELECT ordinal, id FROM documents"))
        return [(names[document], score) for document, score in lexical_documents(table, text, k)]

    def objectives(self, document_id: str) -> list[Objective]:
        """The tokens of every part of a document, in order, and how much each counts.

        Raises:
            UnknownDocumentError: There is no such document, or it is deleted.
        """
        return [objective for _, objective in parts_of_id(self.snapshot.documents, document_id)]

    def content(self, document_id: str) -> Content | None:
        """The picture or the tensors that a document is, as the index keeps them; None for texts.

        Of a text with pictures, both: `pictures` has the pictures alone.

        Raises:
            UnknownDocumentError: There is no such document, or it is deleted.
        """
        return next((text.content for objective in self.objectives(document_id) for text in objective.texts), None)

    def pictures(self, document_id: str) -> tuple[Content, ...]:
        """The picture that a document is, or those beside its text, in order, each in its own encoding.

        Raises:
            UnknownDocumentError: There is no such document, or it is deleted.
        """
        content = self.content(document_id)
        if content is None or content.type == TENSORS:
            return ()
        return PictureText.of(content).pictures if content.is_beside else (content,)

    def search(
        self,
        query: str | Query,
        completion: str | None = None,
        options: SearchOptions = DEFAULT_OPTIONS,
        **settings: Unpack[SearchKeywords],
    ) -> SearchResult:
        """The documents with the most influence on one query.

        Args:
            query: A query, or the prompt of one: the text before the completion, which all counts without one.
            completion: Text whose tokens count in the query's loss, after a prompt.
            options: What to look for and how.
            settings: Fields of `SearchOptions` that replace those of `options`, as in `search(prompt, k=5)`.

        Raises:
            ConfigError: A setting is out of range.
            FilterError: `where` does not parse, or names a field that no document has.
            QueryError: The query has nothing to predict, or more tokens than the model takes; see `tokenize_query`.
            MismatchError: The model is not the one the index was built with.
        """
        return self.search_many([query_of(query, completion)], options, **settings)[0]

    def search_many(
        self,
        queries: Sequence[Query],
        options: SearchOptions = DEFAULT_OPTIONS,
        *,
        progress: Progress | None = None,
        **settings: Unpack[SearchKeywords],
    ) -> list[SearchResult]:
        """Answer many queries with one gradient pass and one search; see `search`. One that fails ends all."""
        return answered(self.search_each(queries, options, progress=progress, **settings))

    def search_each(
        self,
        queries: Sequence[Query],
        options: SearchOptions = DEFAULT_OPTIONS,
        *,
        progress: Progress | None = None,
        **settings: Unpack[SearchKeywords],
    ) -> list[Outcome]:
        """Answer many queries as `search_many` does; in the place of one that fails stands a `FailedQuery`."""
        options, clock = changed(options, settings), Clock()
        self.warm()
        clock.lap("load")
        encoded = self.encode(queries, long_queries=options.long_queries)
        clock.lap("gradient")
        return self._search(encoded, options, clock, progress or Silent())

    def warm(self, *, model: bool = True) -> None:
        """Load what searches need, which the first one would do: the FAISS index and, where asked, model and factors.

        Raises:
            GindexError: Something cannot be loaded.
        """
        if model:
            self.model.encoder  # noqa: B018
        self.searcher  # noqa: B018

    def encode(
        self,
        queries: Sequence[Query],
        *,
        long_queries: str = DEFAULT_OPTIONS.long_queries,
        max_tokens: int | None = None,
    ) -> list[EncodedQuery | FailedQuery]:
        """Turn queries into vectors, for `search_encoded`: the slow half of a search, in one gradient pass.

        Args:
            queries: Any number; those that have no gradient fail by themselves.
            long_queries: See `SearchOptions`.
            max_tokens: Most tokens of a query, where that is fewer than the model takes.

        Raises:
            MismatchError: The model is not the one the index was built with.
        """
        if not queries:
            return []
        tokens = tokenize_queries(queries, self._reader, long_queries=long_queries, max_tokens=max_tokens)
        return encode_queries(self.model.encoder, queries, tokens)

    def search_encoded(
        self,
        encoded: Sequence[EncodedQuery | FailedQuery],
        options: SearchOptions = DEFAULT_OPTIONS,
        *,
        progress: Progress | None = None,
        **settings: Unpack[SearchKeywords],
    ) -> list[Outcome]:
        """Answer queries that `encode` has made vectors of, or vectors without text; see `search_each`."""
        options, clock = changed(options, settings), Clock()
        self.warm(model=False)
        clock.lap("load")
        return self._search(encoded, options, clock, progress or Silent())

    def scores(self, vectors_QD: Tensor, *, limit: int | None = None) -> npt.NDArray[np.float32]:
        """Score every part that a search may return, or an even sample of them.

        Args:
            vectors_QD: Query vectors [Q, D].
            limit: Most parts; where there are more, every n-th is taken.

        Returns:
            Scores [Q, parts], in the order of the index.

        Raises:
            MismatchError: See `search_vectors`.
            NonFiniteError: See `search_vectors`.
        """
        parts = self.snapshot.usable_parts
        if limit is not None:
            parts = parts[:: max(1, -(-len(parts) // limit))]
        return self.searcher.scores(vectors_QD, parts)

    def sweep(
        self, queries: Sequence[Query], options: ScoreOptions = DEFAULT_SCORES, **settings: Unpack[ScoreKeywords]
    ) -> Sweep:
        """The scores of all documents for many queries, tile by tile; `write_scores` writes them into a file.

        Args:
            queries: Any number; one that fails ends all.
            options: Which documents, and which scores.
            settings: Fields of `ScoreOptions` that replace those of `options`, as in `sweep(queries, exact=True)`.

        Raises:
            ConfigError: A setting is out of range.
            FilterError: `where` does not parse, or names a field that no document has.
            QueryError: A query has nothing to predict, or more tokens than the model takes.
            MismatchError: The model is not the one the index was built with.
        """
        options = changed(options, settings)
        if not options.exact:
            encoded = usable(self.encode(queries, long_queries=options.long_queries))
            return self.searcher.sweeper.scores(torch.stack([query.vector_D for query in encoded]), options)
        tokens = usable(tokenize_queries(queries, self._reader, long_queries=options.long_queries))
        return self.searcher.sweeper.influence(
            self.reranker.blocks(len(tokens)).slices,
            lambda some, progress: QueryInfluence(self.reranker, tokens[some], progress),
            options,
        )

    def write_scores(
        self,
        queries: Sequence[Query],
        out: str | Path,
        options: ScoreOptions = DEFAULT_SCORES,
        *,
        progress: Progress | None = None,
        **settings: Unpack[ScoreKeywords],
    ) -> ScoreFile:
        """Write the score of every document for every query into a file; see `search.score_file`.

        Args:
            queries: As in `sweep`. Their ids, or numbers from 0 where they have none, name them in the file.
            out: The file, `.parquet`, `.npy` or `.jsonl`.
            options: As in `sweep`.
            progress: Where the work is reported.
            settings: As in `sweep`.

        Raises:
            ConfigError: The file is there already, or is of another kind.
            SettingsMismatchError: Another call left unfinished scores for this file.
            MissingDependencyError: The kind needs a package that is not installed.
            GindexError: See `sweep`.
        """
        options = changed(options, settings)
        return write_scores(self.snapshot, queries, Path(out), options, partial(self.sweep, queries, options), progress)

    def search_vectors(
        self,
        vectors: Tensor | npt.NDArray[np.floating[Any]],
        options: SearchOptions = DEFAULT_OPTIONS,
        *,
        projection: str | None = None,
        **settings: Unpack[SearchKeywords],
    ) -> list[SearchResult]:
        """Answer queries whose vectors are at hand; the model is not loaded.

        Args:
            vectors: [Q, D], made with this index's factors, damping and projection.
            options: As in `search`; `exact` needs a query of text.
            projection: Fingerprint of the projection that the vectors were made with, checked where it is given.
            settings: Fields of `SearchOptions` that replace those of `options`.

        Raises:
            MismatchError: The vectors have another dimension or projection.
            NonFiniteError: One holds a NaN or an infinity.
            ConfigError: A setting is out of range, or needs a query of text.
        """
        options, clock = changed(options, settings), Clock()
        if projection is not None and projection != self.manifest.projection.fingerprint:
            raise MismatchError(
                field="query vectors",
                expected=f"projection {self.manifest.projection.fingerprint[:12]}",
                found=projection[:12],
                remedy="encode them with this index",
            )
        vectors_QD = vectors if isinstance(vectors, Tensor) else torch.from_numpy(np.asarray(vectors))
        self.warm(model=False)
        clock.lap("load")
        encoded = [
            EncodedQuery(query=Query(prompt="", id=str(n)), vector_D=vector_D) for n, vector_D in enumerate(vectors_QD)
        ]
        return answered(self._search(encoded, options, clock, Silent()))

    def search_gradients(
        self,
        gradients: Mapping[str, Tensor],
        options: SearchOptions = DEFAULT_OPTIONS,
        **settings: Unpack[SearchKeywords],
    ) -> list[SearchResult]:
        """Answer queries whose gradients are at hand: whitened and projected here, without the model.

        Args:
            gradients: Gradient [Q, O, I] of the summed loss in nats for every tracked layer of the manifest, the
                bias, where there is one, as its last column.
            options: As in `search_vectors`.
            settings: Fields of `SearchOptions` that replace those of `options`.

        Raises:
            ShapeError: A layer is missing or has another shape.
        """
        whitening = self.model.whitening
        return self.search_vectors(
            encode_gradients(gradients, whitening.factors, whitening.damping, whitening.projection), options, **settings
        )

    def explain(
        self,
        document_id: str,
        query: str | Query,
        completion: str | None = None,
        *,
        long_queries: str = DEFAULT_OPTIONS.long_queries,
        progress: Progress | None = None,
    ) -> Explanation:
        """The exact influence of one document on a query, told apart by its tokens and by layers.

        Args:
            document_id: The document.
            query: As in `search`.
            completion: As in `search`.
            long_queries: See `SearchOptions`.
            progress: Where the work is reported.

        Raises:
            StoreError: There is no such document.
            QueryError: See `search`.
            MismatchError: See `search`.
        """
        options = SearchOptions(long_queries=long_queries)  # raises ConfigError
        table, model = self.snapshot.documents, self.model.tracked
        table.document(document_id)
        asked = query_of(query, completion)
        tokens = tokenize_query(asked, self._reader, long_queries=options.long_queries)
        preconditioned = self.reranker.precondition([tokens], progress or Silent())
        return explain(model, table, preconditioned, document_id, asked, tokens.notes, progress=progress)

    def outliers(self, k: int = 10, *, where: str | None = None, per_token: bool = False) -> list[Outlier]:
        """The parts of largest self-influence, without the model; see `search.outliers`.

        Args:
            k: Parts to return.
            where: Only documents that pass this filter.
            per_token: Divide by the number of predicted tokens.

        Raises:
            ConfigError: k is below 1.
            FilterError: See `search`.
        """
        return find_outliers(self.snapshot, k, where, per_token=per_token)

    def fidelity(
        self,
        queries: Sequence[Query] | None = None,
        *,
        sample: int = 16,
        parts: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Fidelity:
        """Compare the scores of the stored vectors with exact influence.

        Args:
            queries: Queries that aren't in the index; without them, parts of the index are drawn, and each leaves its
                own document out.
            sample: How many to draw.
            parts: How many parts to rank, drawn from the index; all where None.
            seed: Seed of both draws.
            progress: Where the work is reported.

        Raises:
            ConfigError: There are too few parts to rank.
            QueryError: A query has nothing to predict, or more tokens than the model takes.
        """
        if sample < 1 or (parts is not None and parts < 1):
            raise ConfigError(field="sample and parts", expected="at least 1", found=f"{sample} and {parts}")
        snapshot, usable = self.snapshot, self.snapshot.usable
        if queries is None:
            asked = sample_queries(snapshot.documents, sample, usable, seed)
        else:
            tokens = tokenize_all(queries, self._reader)
            asked = FidelityQueries(tokens=tokens, documents=np.full(len(tokens), -1))
        ranked = sample_parts(usable, parts, seed)
        return measure_fidelity(
            asked, ranked, self.model.encoder, snapshot.vectors, self.reranker, progress or Silent()
        )

    def info(self) -> dict[str, Any]:
        """Describe the index: what `gindex info` prints, as plain values."""
        return describe(self.snapshot)

    @property
    def _reader(self) -> IndexReader:
        """What reads queries."""
        return IndexReader(model=self.model.tracked.loaded, documents=self.snapshot.documents)

    def _search(
        self, queries: Sequence[EncodedQuery | FailedQuery], options: SearchOptions, clock: Clock, progress: Progress
    ) -> list[Outcome]:
        influence = partial(self._influence, options, progress)
        return self.searcher.answer(queries, options, influence, clock, progress)

    def _influence(self, options: SearchOptions, progress: Progress, queries: Sequence[QueryTokens]) -> QueryInfluence:
        """What computes exact influence on queries, refined where that is asked for."""
        refined = None
        if options.refine is not None:
            refiner = self.reranker.refiner(REFINERS.get(options.refine), options.refiner_settings())
            usable, seed = self.snapshot.usable_parts, self.manifest.settings.seed
            refined = RefinedPreconditioner(refiner, refiner_sample(usable, options.refine_parts, seed))
        return QueryInfluence(self.reranker, queries, progress, refined)


def _absolute(place: str | None) -> str | None:
    """A folder by its absolute path; a hub name as it is."""
    return str(Path(place).absolute()) if place and Path(place).is_dir() else place


def _reopened(
    kind: type[GradientIndex], path: Path, config: ModelConfig, version: int, allow_degraded: bool, resident: bool
) -> GradientIndex:
    snapshot = Snapshot.open(Layout(path), version, allow_degraded=allow_degraded)
    return kind(snapshot, RecordedModel(snapshot, config), resident=resident)
