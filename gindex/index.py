"""`GradientIndex`: what the command line, services and users call."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gindex.builder.run import run_build
from gindex.config import BuildConfig, ModelConfig
from gindex.corpus.table import DocumentTable
from gindex.engine import Engine, projection_of, token_batches
from gindex.errors import ConfigError, CorruptStoreError, MismatchError, NonFiniteError, QueryError
from gindex.gradient.codes import code_bytes
from gindex.gradient.exact import precondition_queries
from gindex.gradient.vector import VectorPath
from gindex.progress import Progress, Silent
from gindex.search.faiss_index import FaissIndex, spec_of
from gindex.search.funnel import Funnel, Scored
from gindex.search.hit import Hit, Query, SearchResult, Timing
from gindex.search.rerank import recompute_influence
from gindex.store.factors import FactorReader
from gindex.store.layout import REMEDY, Layout
from gindex.store.manifest import Manifest
from gindex.store.vectors import VectorReader, VectorSpec

DEFAULT_CANDIDATES = 100
"""Parts that `exact` re-ranks."""


class GradientIndex:
    """A finished index.

    Example:
        >>> index = GradientIndex.open("runs/jargon")
        >>> for hit in index.search("A race condition is", completion=" a bug", k=3).hits:
        ...     print(hit.rank, hit.score, hit.document_id)
    """

    def __init__(self, layout: Layout, manifest: Manifest, model: ModelConfig) -> None:
        """Use `open` or `build`."""
        self._layout = layout
        self._model = model
        self.manifest = manifest

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
            sources: Corpus files, folders or hub dataset names.
            out: The index directory.
            config: All settings; `config.model.name` is required.
            strict: Stop at the first document whose loss or gradient is not finite.
            progress: Where phases are reported.

        Raises:
            GindexError: A bad source, model or setting; what is already built stays as it is.
        """
        run_build(sources, Path(out), config, strict=strict, progress=progress)
        return cls.open(out, model=config.model.name, device=config.model.device)

    @classmethod
    def open(cls, path: str | Path, *, model: str | None = None, device: str = "auto") -> "GradientIndex":
        """Open a finished index. The model is loaded at the first query.

        Args:
            path: The index directory.
            model: Folder or hub name of the model, where it has moved since the build.
            device: Device of the passes.

        Raises:
            NotAnIndexError: There is no finished index.
            CorruptStoreError: A file is missing or damaged.
            FormatVersionError: A newer gindex wrote it.
        """
        layout = Layout(Path(path))
        manifest = Manifest.read(layout)
        name = model or str(manifest.model["name"])
        return cls(layout, manifest, ModelConfig(name=name, device=device, dtype=str(manifest.model["dtype"])))

    def search(
        self,
        prompt: str,
        completion: str | None = None,
        *,
        k: int = 10,
        negative: bool = False,
        exact: bool = False,
        candidates: int = DEFAULT_CANDIDATES,
    ) -> SearchResult:
        """Return the documents with the most influence on one query.

        Args:
            prompt: Text before the completion; without a completion all of it counts.
            completion: Text whose tokens count in the query's loss.
            k: Hits to return.
            negative: Return the most negative influence, most negative first.
            exact: Re-rank the best `candidates` by recomputed, unprojected EK-FAC influence.
            candidates: Parts to re-rank.

        Raises:
            QueryError: The query has nothing to predict, or more tokens than the model takes.
            MismatchError: The model is not the one the index was built with.
        """
        query = Query(prompt=prompt, completion=completion)
        return self.search_many([query], k=k, negative=negative, exact=exact, candidates=candidates)[0]

    def search_many(
        self,
        queries: Sequence[Query],
        *,
        k: int = 10,
        negative: bool = False,
        exact: bool = False,
        candidates: int = DEFAULT_CANDIDATES,
        progress: Progress | None = None,
    ) -> list[SearchResult]:
        """Answer many queries; see `search`."""
        if k < 1 or candidates < 1:
            raise ConfigError(f"-k and --candidates: expected at least 1, got {k} and {candidates}")
        clock = _Clock()
        self._path, self._funnel  # noqa: B018  loads the model, the factors and the FAISS index
        clock.lap("load")
        encoded = [self._tokenize(query) for query in queries]
        if not encoded:
            return []
        vectors_QD = self._vectors(queries, encoded)
        clock.lap("gradient")
        sign = -1.0 if negative else 1.0
        found = self._funnel.search(sign * vectors_QD.cpu(), max(k, candidates) if exact else k)
        clock.lap("search")
        influence: list[npt.NDArray[np.float32] | None] = [None] * len(queries)
        if exact:
            influence = list(self._exact(encoded, found, progress or Silent()))
        clock.lap("rerank")
        return [
            SearchResult(
                query=query,
                tokens=len(tokens.ids),
                hits=self._hits(scored, exact_scores, sign, k),
                timing_ms=clock.timing(),
            )
            for query, tokens, scored, exact_scores in zip(queries, encoded, found, influence, strict=True)
        ]

    def info(self) -> dict[str, Any]:
        """Describe the index: what `gindex info` prints, as plain values."""
        manifest, vectors = self.manifest, self._spec
        ranks = [(layer.activation_rank, layer.gradient_rank) for layer in manifest.layers]
        return {
            "path": str(self._layout.root),
            "format_version": manifest.format_version,
            "gindex_version": manifest.gindex_version,
            "created": manifest.created,
            **manifest.documents,
            "skipped_parts": len(manifest.skipped),
            "skipped": list(manifest.skipped.values()),
            "model": manifest.model,
            "tracked_layers": len(manifest.layers),
            "layer_groups": len(vectors.slices),
            "untracked_weights": len(manifest.untracked),
            "dimension": vectors.dimension,
            "bits": vectors.bits,
            "bytes_per_part": code_bytes(vectors.dimension, vectors.bits) + 4 * len(vectors.slices) + 4,
            "projection": {key: manifest.projection[key] for key in ("kind", "seed", "fingerprint")},
            "damping_scale": manifest.settings["curvature"]["damping_scale"],
            "index_damping": manifest.settings["curvature"]["index_damping"],
            "fit": manifest.fit,
            "ranks": {"activation": _spread([a for a, _ in ranks]), "gradient": _spread([g for _, g in ranks])},
            "search_index": manifest.search,
            "segments": vectors.segments,
            "disk_bytes": self._disk(),
        }

    @cached_property
    def _spec(self) -> VectorSpec:
        return VectorSpec(
            parts=self.manifest.documents["parts"],
            segment_parts=self.manifest.segment_parts,
            dimension=self.manifest.projection["dimension"],
            bits=self.manifest.settings["vectors"]["bits"],
            slices=tuple(self.manifest.slices.values()),
        )

    @cached_property
    def _engine(self) -> Engine:
        engine = Engine.load(self._model)
        found = {"model": engine.loaded.fingerprint, "tokenizer": engine.loaded.tokenizer_fingerprint}
        for what, fingerprint in found.items():
            if fingerprint != self.manifest.model[what]:
                raise MismatchError(
                    f"{self._model.name}: expected the {what} {self.manifest.model[what][:12]} that the index was "
                    f"built with, found {fingerprint[:12]}; give that one with --model"
                )
        return engine

    @cached_property
    def _path(self) -> VectorPath:
        path = self._engine.vector_path(
            self._layout,
            self.manifest.layers,
            self._spec.dimension,
            self.manifest.projection["seed"],
            self.manifest.settings["curvature"]["index_damping"],
        )
        self._check_projection(path.sketch.spec.fingerprint)
        return path

    @cached_property
    def _vectors_reader(self) -> VectorReader:
        return VectorReader(self._layout, self._spec)

    @cached_property
    def _funnel(self) -> Funnel:
        projection = projection_of(self.manifest.layers, self._spec.dimension, self.manifest.projection["seed"])
        self.manifest.file(self._layout.faiss).check_content(self._layout.root)  # before a native library reads it
        index = FaissIndex(self._layout.faiss, spec_of(self.manifest.search), projection, self._spec.parts)
        return Funnel(index, self._vectors_reader, [int(ordinal) for ordinal in self.manifest.skipped])

    @cached_property
    def _documents(self) -> DocumentTable:
        return DocumentTable.open(self._layout.documents)

    def _check_projection(self, fingerprint: str) -> None:
        recorded = self.manifest.projection["fingerprint"]
        if fingerprint != recorded:
            raise CorruptStoreError(
                f"{self._layout.manifest}: expected projection {recorded[:12]}, found {fingerprint[:12]}; "
                f"the manifest was altered: {REMEDY}"
            )

    def _tokenize(self, query: Query) -> "_QueryTokens":
        tokenizer, name = self._engine.loaded.tokenizer, f"query {query.id}" if query.id else "query"
        for text in (query.prompt, query.completion or ""):
            if not _is_unicode(text):
                raise QueryError(f"{name}: expected Unicode text, found half a surrogate pair; correct it")
        prompt = list(tokenizer(query.prompt).input_ids)
        completion: list[int] = []
        if query.completion is not None:
            completion = list(tokenizer(query.completion, add_special_tokens=False).input_ids)
            if not completion:
                raise QueryError(
                    f"{name}: expected a completion with at least one token, found none; leave it out or fill it"
                )
        ids = np.array(prompt + completion, np.uint32)
        first_target = max(1, len(prompt)) if completion else 1
        if len(ids) <= first_target:
            raise QueryError(
                f"{name}: expected a token to predict after the first, found {len(ids)} in all; give a longer prompt"
            )
        limit = self._engine.loaded.max_tokens
        if len(ids) > limit:
            raise QueryError(
                f"{name}: expected at most {limit} tokens, which the model takes, found {len(ids)}; shorten it"
            )
        return _QueryTokens(ids, first_target)

    def _vectors(self, queries: Sequence[Query], encoded: "list[_QueryTokens]") -> Tensor:
        batch = self._engine.encode_all(
            self._path,
            [tokens.ids for tokens in encoded],
            np.array([tokens.first_target for tokens in encoded], np.int64),
            BuildConfig().batch_tokens,
        )
        for query, finite in zip(queries, batch.finite.tolist(), strict=True):
            if not finite:
                raise NonFiniteError(
                    f"query {query.id or query.prompt!r}: expected a finite loss and gradient, found NaN or infinity; "
                    "rephrase it, or build with --dtype float32"
                )
        return batch.vectors

    def _exact(
        self, encoded: "list[_QueryTokens]", found: list[Scored], progress: Progress
    ) -> list[npt.NDArray[np.float32]]:
        """Return the exact influence of each query's candidates; one query's curvature is held at a time."""
        factors = FactorReader(self._layout, self.manifest.layers, self._engine.device)
        damping = self.manifest.settings["curvature"]["damping_scale"]
        influence = []
        with progress.phase("exact influence", sum(len(scored.ordinals) for scored in found), "parts") as phase:
            for tokens, scored in zip(encoded, found, strict=True):
                first_target = np.array([tokens.first_target])
                (batch,) = token_batches([tokens.ids], np.zeros(1, np.int64), first_target, len(tokens.ids))
                losses = partial(self._engine.task.losses, batch)
                preconditioned = precondition_queries(self._engine.table.layers, factors.load, damping, 1, losses)
                scores_1N = recompute_influence(
                    self._engine,
                    preconditioned,
                    self._documents,
                    scored.ordinals,
                    BuildConfig().batch_tokens,
                    phase.advance,
                )
                influence.append(scores_1N[0])
        return influence

    def _hits(self, scored: Scored, influence: npt.NDArray[np.float32] | None, sign: float, k: int) -> tuple[Hit, ...]:
        order = np.arange(len(scored.ordinals)) if influence is None else np.argsort(-sign * influence, kind="stable")
        order = order[:k]
        parts = self._documents.parts(scored.ordinals[order].tolist())
        return tuple(
            Hit(
                rank=rank,
                document_id=part.document_id,
                part=part.part,
                score=sign * float(scored.scores[position]),
                influence=None if influence is None else float(influence[position]),
                text=part.text,
                metadata=part.metadata,
            )
            for rank, (position, part) in enumerate(zip(order, parts, strict=True), start=1)
        )

    def _disk(self) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for file in self.manifest.files:
            name = file.path.split("/")[0]
            sizes[name] = sizes.get(name, 0) + file.bytes
        return sizes


@dataclass(frozen=True)
class _QueryTokens:
    ids: npt.NDArray[np.uint32]
    first_target: int


@dataclass
class _Clock:
    """Milliseconds of the stages of a search."""

    start: float = field(default_factory=time.perf_counter)
    laps: dict[str, float] = field(default_factory=dict)

    def lap(self, name: str) -> None:
        self.laps[name] = self._elapsed() - sum(self.laps.values())

    def timing(self) -> Timing:
        return Timing(**self.laps, total=self._elapsed())

    def _elapsed(self) -> float:
        return (time.perf_counter() - self.start) * 1000


def result_record(result: SearchResult) -> dict[str, Any]:
    """Return a result as the plain values that `gindex search --json` prints."""
    query = {
        "id": result.query.id,
        "prompt": result.query.prompt,
        "completion": result.query.completion,
        "tokens": result.tokens,
    }
    return {"query": query, "hits": [asdict(hit) for hit in result.hits], "timing_ms": asdict(result.timing_ms)}


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _spread(values: list[int]) -> dict[str, int]:
    return {"least": min(values), "most": max(values)}
