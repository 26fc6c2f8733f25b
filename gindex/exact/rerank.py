"""Re-rank candidates by exact EK-FAC influence: their gradients are recomputed and nothing is projected.

Queries are taken in blocks whose preconditioned gradients fit in memory. A block loads every layer's factors once, and
passes once over all parts that one of its queries wants.

Axes: L layers, Q queries, N candidates.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.corpus.batches import TokenBatch, one_text_each
from gindex.corpus.objectives import Objective
from gindex.curvature.ekfac import FactorLoader, LayerFactors
from gindex.documents.table import DocumentTable
from gindex.exact.refiner import Refiner, RefinerKind
from gindex.model.isolation import plain, throughout
from gindex.model.tracked_model import TrackedModel
from gindex.progress import Phase, Progress
from gindex.queries.tokens import QueryTokens
from gindex.vectors.influence import exact_influence, layer_influence, precondition_queries

BLOCK_BYTES = 4 << 30
"""Most bytes of preconditioned query gradients that are held at once; one query is always taken."""


Precondition = Callable[[Sequence[QueryTokens], Progress], dict[str, Tensor]]
"""Returns the inverse curvature times the gradients of queries, [Q, O, I] by layer name."""


@throughout(plain)
class Reranker:
    """Computes exact influence with the untruncated factors of an index."""

    def __init__(
        self,
        model: TrackedModel,
        factors: FactorLoader,
        damping_scale: float,
        table: DocumentTable,
        batch_tokens: int = 0,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        """Prepare for one index.

        Args:
            model: The model.
            factors: Loads a layer's factors.
            damping_scale: Multiple of each layer's mean eigenvalue.
            table: Where the parts' tokens are.
            batch_tokens: Most tokens in a batch; 0 takes what suits the device.
            block_bytes: Most bytes of preconditioned query gradients that are held at once.
        """
        self.model, self.table, self.batch_tokens = model, table, batch_tokens
        self._factors, self._damping_scale, self._block_bytes = factors, damping_scale, block_bytes

    def refiner(self, kind: RefinerKind, settings: Any) -> Refiner:
        """A refiner of a kind, with its own settings, for the queries of this index."""
        return kind.refiner(self.model, self._factors, self._damping_scale, self.table, settings)

    def influence(
        self,
        queries: Sequence[QueryTokens],
        candidates: Sequence[npt.NDArray[np.int64]],
        progress: Progress,
        held: dict[str, Tensor] | None = None,
        precondition: Precondition | None = None,
        query_bytes: int = 0,
    ) -> list[npt.NDArray[np.float32]]:
        """The influence of each query's candidate parts on it.

        Args:
            queries: Q queries.
            candidates: Part ordinals [N] for each query; N may differ.
            progress: Where the work is reported.
            held: Keeps the preconditioned gradients for the next call with the same queries, where one block holds
                them; empty at first.
            precondition: What preconditions the queries in the place of EK-FAC.
            query_bytes: Bytes that it holds for each.
        """
        results: list[npt.NDArray[np.float32]] = []
        blocks = list(self.blocks(len(queries), query_bytes))
        for block in blocks:
            preconditioned: dict[str, Tensor] = {}  # the last block goes before the next comes
            preconditioned = held or (precondition or self.precondition)(queries[block], progress)
            if held is not None and len(blocks) == 1:
                held.update(preconditioned)
            ordinals = np.unique(np.concatenate(candidates[block]))
            with progress.phase("exact influence", len(ordinals), "parts") as phase:
                results += self._block(preconditioned, ordinals, candidates[block], phase)
        return results

    def blocks(self, queries: int, more_bytes: int = 0) -> Iterator[slice]:
        """Cut queries into blocks whose preconditioned gradients, and more bytes of each, may be held at once."""
        each = more_bytes + self.model.dtype.itemsize * sum(layer.parameters for layer in self.model.table.layers)
        size = max(1, self._block_bytes // each)
        for start in range(0, queries, size):
            yield slice(start, min(start + size, queries))

    def _block(
        self,
        preconditioned: dict[str, Tensor],
        ordinals: npt.NDArray[np.int64],
        candidates: Sequence[npt.NDArray[np.int64]],
        phase: Phase,
    ) -> list[npt.NDArray[np.float32]]:
        wanted_QN = np.stack([np.isin(ordinals, asked) for asked in candidates])
        influence_QN = self.influence_of(preconditioned, self.table.objectives(ordinals), wanted_QN, phase)
        return [row[np.searchsorted(ordinals, asked)] for row, asked in zip(influence_QN, candidates, strict=True)]

    def influence_of(
        self,
        preconditioned: dict[str, Tensor],
        objectives: Sequence[Objective],
        wanted_QN: npt.NDArray[np.bool_],
        phase: Phase,
        *,
        by_layer: bool = False,
    ) -> npt.NDArray[np.float32]:
        """The influence of any documents, in the index or not.

        Args:
            preconditioned: What `precondition` returned for the Q queries.
            objectives: N parts, each of one text or of a preference.
            wanted_QN: Which influence to compute; the rest is 0.
            phase: Advanced by the parts that are done.
            by_layer: Keep the layers apart.

        Returns:
            [Q, N]; by layer [L, Q, N], in the order of the tracked layers.
        """
        layers = self.model.table.layers
        measure, axes = (layer_influence, (len(layers),)) if by_layer else (exact_influence, ())
        influence = np.zeros((*axes, *wanted_QN.shape), np.float32)
        for batch in self.model.batches(objectives, np.arange(len(objectives)), self.batch_tokens):
            wanted = torch.from_numpy(wanted_QN[:, batch.ordinals])
            columns = measure(layers, preconditioned, wanted, partial(self.model.task.losses, batch), batch.texts)
            influence[..., batch.ordinals] = columns.cpu().numpy()
            phase.advance(len(batch.ordinals))
        return influence

    def precondition(self, queries: Sequence[QueryTokens], progress: Progress) -> dict[str, Tensor]:
        """H^-1 G [Q, O, I] by layer name; the gradient of a query of several texts is the sum of theirs."""
        texts, owners = one_text_each([query.objective for query in queries])
        batches = self.model.batches(texts, np.arange(len(texts)), self.batch_tokens)
        total: dict[str, Tensor] = {}
        with progress.phase("query curvature", len(batches) * len(self.model.table.layers), "layers") as phase:
            for batch in batches:
                found = self._precondition(batch, len(queries), owners[batch.ordinals], phase)
                total = {name: total[name] + X_QOI if total else X_QOI for name, X_QOI in found.items()}
        return total

    def _precondition(
        self, batch: TokenBatch, queries: int, owners: npt.NDArray[np.int64], phase: Phase
    ) -> dict[str, Tensor]:
        def load(name: str) -> LayerFactors:
            phase.advance()
            return self._factors(name)

        return precondition_queries(
            self.model.table.layers,
            load,
            self._damping_scale,
            queries,
            partial(self.model.task.losses, batch),
            batch.texts,
            torch.from_numpy(owners),
        )
