"""The material of studies: queries, the parts they are compared with, and exact influence between them.

Axes: L layers, Q queries, N parts or texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gindex.config import USUAL_TOKENS
from gindex.corpus.objectives import Objective
from gindex.corpus.tokens import tokenize
from gindex.errors import ConfigError
from gindex.exact.fidelity import FidelityQueries, ranked_parts, sample_parts, sample_queries
from gindex.index import GradientIndex
from gindex.lab.report import Quote, Source
from gindex.progress import Progress, Silent
from gindex.queries.query import Query
from gindex.queries.tokens import QueryTokens, tokenize_query

Ordinals = npt.NDArray[np.int64]
Influence = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranked:
    """Influence of parts on queries.

    Attributes:
        influence: Exact influence [Q, N]; by layer [L, Q, N].
        parts: Ordinals of the parts [N].
        counted: Which parts count for a query, its own document apart [Q, N].
    """

    influence: Influence
    parts: Ordinals
    counted: npt.NDArray[np.bool_]


class Material:
    """An index as a study sees it."""

    def __init__(self, index: GradientIndex, progress: Progress | None = None) -> None:
        """Join an index with where its work is reported."""
        self.index, self.progress = index, progress or Silent()
        self.table, self.usable = index.snapshot.documents, index.snapshot.usable_parts

    @property
    def source(self) -> Source:
        """What the report says of the index."""
        return Source.of(self.index)

    def count(self, most: int | None) -> int:
        """How many parts a ranking takes, where it takes at most so many; None takes all."""
        return min(most or len(self.usable), len(self.usable))

    def first_parts(self) -> Ordinals:
        """The ordinals of the parts that documents begin with, in order."""
        _, first = np.unique(self.table.part_documents(), return_index=True)
        return np.intersect1d(first, self.usable)

    def queries(self, count: int, seed: int) -> FidelityQueries:
        """Draw parts of the index, each of another document, to be queries.

        Raises:
            ConfigError: There are too few documents.
        """
        drawn = sample_queries(self.table, count, self.index.snapshot.usable, seed)
        if len(drawn.tokens) < count:
            raise ConfigError(
                field="sample",
                expected=f"{count} documents of at least two tokens in the index",
                found=len(drawn.tokens),
                remedy="draw fewer, or index more",
            )
        return drawn

    def tokens_of(self, text: str) -> Tokens:
        """The tokens of a text, as many as a part may have; empty where it has none to predict."""
        ((ids, _),) = tokenize(self.index.model.tracked.loaded.tokenizer, [text])
        longest = self.index.manifest.settings.corpus.max_tokens or USUAL_TOKENS
        most = min(self.index.model.tracked.loaded.max_tokens, longest)
        return np.array(ids[:most] if len(ids) > 1 else [], np.uint32)

    def asked(self, query: Query) -> QueryTokens:
        """The tokens of a query."""
        return tokenize_query(query, self.index.model.tracked.loaded)

    def losses(self, queries: Sequence[QueryTokens]) -> npt.NDArray[np.float64]:
        """The mean loss [Q] of the tokens that count, in nats."""
        import torch

        model = self.index.model.tracked
        counted = np.array([query.objective.targets for query in queries], np.float64)
        result = np.zeros(len(queries))
        for batch in model.batches([query.objective.unweighted() for query in queries], np.arange(len(queries)), 0):
            with model.alone(), torch.no_grad():
                result[batch.ordinals] = model.task.losses(batch).double().cpu().numpy()
        means: npt.NDArray[np.float64] = result / counted
        return means

    def rank(self, queries: FidelityQueries, most: int | None, seed: int, *, by_layer: bool = False) -> Ranked:
        """Compute the influence of the parts of the index, or of a draw of them, on queries.

        Args:
            queries: The queries, with the document that each leaves out.
            most: Parts to draw; None takes all.
            seed: Seed of the draw.
            by_layer: Keep the layers apart.

        Raises:
            ConfigError: There are too few parts of other documents.
        """
        parts = sample_parts(self.index.snapshot.usable, most, seed)
        counted_QN = ranked_parts(queries, parts, self.table)
        wanted = np.ones(counted_QN.shape, bool)
        influence = self.influence(queries.tokens, self.table.objectives(parts), wanted, by_layer=by_layer)
        return Ranked(influence=influence, parts=parts, counted=counted_QN)

    def influence(
        self,
        queries: Sequence[QueryTokens],
        texts: Sequence[Objective],
        wanted_QN: npt.NDArray[np.bool_],
        *,
        by_layer: bool = False,
    ) -> Influence:
        """The exact influence [Q, N], by layer [L, Q, N], of texts on queries, 0 where it isn't wanted."""
        reranker, found_blocks = self.index.reranker, []
        blocks = reranker.blocks(len(queries))
        for block in blocks.slices:
            preconditioned = reranker.precondition(queries[block], self.progress, blocks.hold)
            needed = np.flatnonzero(wanted_QN[block].any(0)).tolist()
            with self.progress.phase("exact influence", len(needed), "parts") as phase:
                found = reranker.influence_of(
                    preconditioned, [texts[n] for n in needed], wanted_QN[block][:, needed], phase, by_layer=by_layer
                )
            whole = np.zeros((*found.shape[:-1], len(texts)), np.float32)
            whole[..., needed] = found
            found_blocks.append(whole)
        return np.concatenate(found_blocks, axis=-2)

    def quote(self, ordinal: int, note: str) -> Quote:
        """A part as the report shows it."""
        (part,) = self.table.parts([ordinal])
        return Quote(title=f"{part.document_id}, {note}", text=part.text)

    def texts(self, ordinals: Ordinals) -> list[str]:
        """The texts of parts, in the order asked."""
        return [part.text for part in self.table.parts(ordinals)]
