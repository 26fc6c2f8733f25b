"""Measure the fidelity of an index: stored scores against exact influence on the same parts.

Queries are parts drawn from the index, each with its own document left out of both rankings, or queries of the user's.

Axes: Q queries, N parts, D dimension.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.documents.table import DocumentTable
from gindex.errors import ConfigError, NonFiniteError
from gindex.exact.rerank import Reranker
from gindex.progress import Progress
from gindex.queries.tokens import QueryTokens
from gindex.statistics import Interval, agreement, summarise
from gindex.store.part_ranges import PartRanges
from gindex.store.reader import VectorReader
from gindex.vectors.encoder import Encoder

CHUNK = 4096
"""Stored vectors that are decoded at once."""

LEAST_PARTS = 20
"""Fewest parts that are worth ranking."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fidelity:
    """What was measured.

    Attributes:
        queries: Q.
        parts: N, parts that were ranked for each query, its own document apart.
        measures: Mean and interval by name; see `gindex.statistics.agreement`.
        scores: Stored scores [Q, N].
        influence: Exact influence [Q, N].
        ranked: Which parts count for a query [Q, N].
    """

    queries: int
    parts: int
    measures: dict[str, Interval]
    scores: npt.NDArray[np.float32]
    influence: npt.NDArray[np.float32]
    ranked: npt.NDArray[np.bool_]

    def record(self) -> dict[str, Any]:
        """What the manifest keeps and JSON prints: all but the scores."""
        return {
            "queries": self.queries,
            "parts": self.parts,
            "measures": {
                name: {side: round(value, 4) for side, value in asdict(interval).items()}
                for name, interval in self.measures.items()
            },
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class FidelityQueries:
    """Queries to measure with: their tokens, and the document of the index each is taken from (-1 where from none)."""

    tokens: list[QueryTokens]
    documents: npt.NDArray[np.int64]


def sample_queries(table: DocumentTable, count: int, usable: PartRanges, seed: int) -> FidelityQueries:
    """Draw parts of the index, each of another document, to be queries.

    Args:
        table: The documents.
        count: Most queries.
        usable: The parts that have a vector.
        seed: Seed of the draw.

    Raises:
        ConfigError: No part has a token to predict.
    """
    random, first = np.random.default_rng(seed), 0
    drawn = np.zeros((3, 0))  # a random key, the part and its document: those of the least keys
    for block in table.column_blocks():
        stop = first + len(block.documents_P)
        places = np.flatnonzero(usable.flags(first, stop) & (block.targets_P > 0))
        new = np.stack([random.random(len(places)), first + places, block.documents_P[places]])
        drawn = np.concatenate([drawn, new], axis=1)
        drawn = drawn[:, np.argsort(drawn[0], kind="stable")]
        _, of_document = np.unique(drawn[2], return_index=True)
        drawn, first = drawn[:, np.sort(of_document)[:count]], stop
    if not drawn.size:
        raise ConfigError(field="sample", expected="a document with a token to predict in the index", found="none")
    parts, documents = drawn[1:].astype(np.int64)
    return FidelityQueries(tokens=[QueryTokens(of) for of in table.objectives(parts)], documents=documents)


def is_measurable(table: DocumentTable, usable: PartRanges) -> bool:
    """Whether every document leaves enough parts of others to rank."""
    most = first = 0
    last, of_last = -1, 0  # a document may go on in the next block
    for block in table.column_blocks():
        stop = first + len(block.documents_P)
        documents, counts = np.unique(block.documents_P[usable.flags(first, stop)], return_counts=True)
        if len(documents):
            counts[0] += of_last if documents[0] == last else 0
            last, of_last, most = int(documents[-1]), int(counts[-1]), max(most, int(counts.max()))
        first = stop
    return len(usable) - most >= LEAST_PARTS


def sample_parts(usable: PartRanges, most: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Draw the parts to rank, in order; all of them where `most` is None or not exceeded."""
    if most is None or most >= len(usable):
        return usable.all()
    return usable.ordinals(np.sort(np.random.default_rng(seed + 1).choice(len(usable), most, replace=False)))


def ranked_parts(queries: FidelityQueries, parts: npt.NDArray[np.int64], table: DocumentTable) -> npt.NDArray[np.bool_]:
    """Which parts each query ranks [Q, N]: all but those of the document that it leaves out.

    Args:
        queries: The queries.
        parts: Ordinals of the parts [N], in order.
        table: The documents.

    Raises:
        ConfigError: A query has too few parts to rank.
    """
    ranked_QN: npt.NDArray[np.bool_] = queries.documents[:, None] != _documents_of(table, parts)
    least = int(ranked_QN.sum(1).min())
    if least < LEAST_PARTS:
        raise ConfigError(
            field="parts",
            expected=f"at least {LEAST_PARTS} parts of other documents to rank",
            found=least,
            remedy="index more documents, or rank more parts",
        )
    return ranked_QN


def _documents_of(table: DocumentTable, parts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The document of each part [N], which are in order."""
    documents, first = np.empty(len(parts), np.int64), 0
    for block in table.column_blocks():
        stop = first + len(block.documents_P)
        some = slice(*np.searchsorted(parts, [first, stop]))
        documents[some], first = block.documents_P[parts[some] - first], stop
    return documents


def measure_fidelity(
    queries: FidelityQueries,
    parts: npt.NDArray[np.int64],
    encoder: Encoder,
    reader: VectorReader,
    reranker: Reranker,
    progress: Progress,
) -> Fidelity:
    """Compare stored scores with exact influence.

    Args:
        queries: The queries.
        parts: Ordinals of the parts to rank [N].
        encoder: Turns queries into vectors.
        reader: The stored vectors.
        reranker: Computes exact influence.
        progress: Where the work is reported.

    Raises:
        ConfigError: There are too few parts to rank.
        NonFiniteError: A query has no finite vector.
    """
    ranked_QN = ranked_parts(queries, parts, reranker.table)
    scores_QN = _stored_scores(_vectors(queries, encoder, reranker.batch_tokens), reader, parts)
    influence_QN = np.stack(reranker.influence(queries.tokens, [parts] * len(queries.tokens), progress))
    values = [agreement(s[own], i[own]) for s, i, own in zip(scores_QN, influence_QN, ranked_QN, strict=True)]
    return Fidelity(
        queries=len(values),
        parts=len(parts),
        measures=summarise(values),
        scores=scores_QN,
        influence=influence_QN,
        ranked=ranked_QN,
    )


def _vectors(queries: FidelityQueries, encoder: Encoder, batch_tokens: int) -> Tensor:
    batch = encoder.encode_queries([query.objective for query in queries.tokens], batch_tokens)
    if not batch.finite.all():
        number = int(torch.nonzero(~batch.finite)[0])
        raise NonFiniteError(
            field="fidelity",
            expected=f"a finite gradient of query {number}",
            found="NaN or infinity",
            remedy="leave it out",
        )
    return batch.vectors.cpu()


def _stored_scores(vectors_QD: Tensor, reader: VectorReader, parts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    chunks = [parts[start : start + CHUNK] for start in range(0, len(parts), CHUNK)]
    scores_QN: npt.NDArray[np.float32] = np.concatenate(
        [(vectors_QD @ reader.decoded(chunk).T).numpy() for chunk in chunks], 1
    )
    return scores_QN
