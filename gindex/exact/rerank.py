"""Re-rank candidates by exact EK-FAC influence: their gradients are recomputed and nothing is projected.

Queries are taken in blocks whose preconditioned gradients fit in memory, whole or, where that makes fewer blocks,
rounded to a byte a value. Each block passes once over all parts that one of its queries wants.

Axes: L layers, Q queries, N candidates.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from gindex.exact.cost import RerankCost, curvature_cost, expected_seconds, influence_cost
from gindex.exact.refiner import Refiner, RefinerKind
from gindex.model.isolation import plain, throughout
from gindex.model.tracked_model import TrackedModel
from gindex.progress import Forecast, Phase, Progress, announce
from gindex.queries.tokens import QueryTokens
from gindex.vectors.held_gradients import (
    HeldGradients,
    Hold,
    joined,
    rounded,
    rounded_bytes,
    whole,
    whole_bytes,
)
from gindex.vectors.influence import exact_influence, layer_influence, precondition_queries

logger = logging.getLogger(__name__)

BLOCK_BYTES = 4 << 30
"""Most bytes of preconditioned query gradients that are held at once; one query is always taken."""

FIRST_TOKENS, FIRST_SHARE = 128, 1 / 20
"""Tokens of documents of middling length that are passed first, so that the time that all will take is known at once;
where they are a larger share of all tokens, there is nothing to wait for."""

Held = dict[str, HeldGradients]
"""The inverse curvature times the gradients of queries, [Q, O, I] by layer name."""

Precondition = Callable[[Sequence[QueryTokens], Progress, Hold], Held]
"""Returns what is held of preconditioned queries."""


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryBlocks:
    """Queries cut into blocks that are held at once.

    Attributes:
        slices: The queries of each block.
        hold: What is held of their preconditioned gradients.
    """

    slices: tuple[slice, ...]
    hold: Hold


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
        held: Held | None = None,
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
        blocks = self.blocks(len(queries), query_bytes)
        if isinstance(progress, Forecast) and not held and precondition is None:
            seconds = expected_seconds(self.model, self._cost(queries, candidates, blocks.slices))
            announce(progress, f"exact influence of {len(np.unique(np.concatenate(candidates))):,} parts", seconds)
        for number, block in enumerate(blocks.slices, start=1):
            preconditioned: Held = {}  # the last block goes before the next comes
            preconditioned = held or (precondition or self.precondition)(queries[block], progress, blocks.hold)
            if held is not None and len(blocks.slices) == 1:
                held.update(preconditioned)
            ordinals = np.unique(np.concatenate(candidates[block]))
            which = f", {number} of {len(blocks.slices)}" if len(blocks.slices) > 1 else ""
            with progress.phase(f"exact influence{which}", len(ordinals), "parts") as phase:
                results += self._block(preconditioned, ordinals, candidates[block], phase)
        return results

    def _cost(
        self, queries: Sequence[QueryTokens], candidates: Sequence[npt.NDArray[np.int64]], blocks: Sequence[slice]
    ) -> RerankCost:
        """What the influence of candidates costs: of each block of queries, and of preconditioning them."""
        lengths_P = self.table.part_lengths()
        wanted = [(block.stop - block.start, np.unique(np.concatenate(candidates[block]))) for block in blocks]
        each = [influence_cost(self.model, count, len(parts), int(lengths_P[parts].sum())) for count, parts in wanted]
        return sum(each, curvature_cost(self.model, len(queries), sum(len(query.objective) for query in queries)))

    def blocks(self, queries: int, more_bytes: int = 0) -> QueryBlocks:
        """Cut queries into as few blocks as memory allows, rounded where whole ones would be more blocks, or too large.

        Args:
            queries: Q.
            more_bytes: Bytes that are held for each beside its preconditioned gradients.
        """
        of_model = self.model.table.layers, self.model.factor_formats, self.model.device
        each = more_bytes + whole_bytes(*of_model), more_bytes + rounded_bytes(*of_model)

        def passes(query_bytes: int) -> tuple[bool, int]:
            """Whether a single query is too large, and how many blocks there are."""
            fit = self._block_bytes // query_bytes
            return fit == 0, -(-queries // max(1, fit))

        is_rounded = passes(each[1]) < passes(each[0])
        size = max(1, self._block_bytes // each[is_rounded])
        if queries > size:
            gigabytes = size * each[is_rounded] / 1e9
            logger.info("exact influence: %d of %d queries held at once, %.1f GB", size, queries, gigabytes)
        return QueryBlocks(
            slices=tuple(slice(start, min(start + size, queries)) for start in range(0, queries, size)),
            hold=rounded if is_rounded else whole,
        )

    def _block(
        self,
        preconditioned: Mapping[str, HeldGradients],
        ordinals: npt.NDArray[np.int64],
        candidates: Sequence[npt.NDArray[np.int64]],
        phase: Phase,
    ) -> list[npt.NDArray[np.float32]]:
        wanted_QN = np.stack([np.isin(ordinals, asked) for asked in candidates])
        influence_QN = self.influence_of(preconditioned, self.table.objectives(ordinals), wanted_QN, phase)
        return [row[np.searchsorted(ordinals, asked)] for row, asked in zip(influence_QN, candidates, strict=True)]

    def influence_of(
        self,
        preconditioned: Mapping[str, HeldGradients],
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
        for batch in self._batches(objectives):
            wanted = torch.from_numpy(wanted_QN[:, batch.ordinals])
            columns = measure(layers, preconditioned, wanted, partial(self.model.task.losses, batch), batch.texts)
            influence[..., batch.ordinals] = columns.cpu().numpy()
            phase.advance(len(batch.ordinals))
        return influence

    def _batches(self, objectives: Sequence[Objective]) -> Iterator[TokenBatch]:
        """Batches of documents, a small one of middling length first where there are many tokens."""
        first, rest = middling_first(np.array([len(objective) for objective in objectives], np.int64))
        for some in (first, rest):
            yield from self.model.batches([objectives[n] for n in some], some, self.batch_tokens)

    def precondition(self, queries: Sequence[QueryTokens], progress: Progress, hold: Hold = whole) -> Held:
        """H^-1 G [Q, O, I] by layer name; the gradient of a query of several texts is the sum of theirs.

        Args:
            queries: Q queries.
            progress: Where the work is reported.
            hold: What is held of each layer.
        """
        layers, parts = len(self.model.table.layers), []
        groups = list(self._groups([query.objective for query in queries]))
        total = layers * sum(len(batches) for _, batches, _ in groups)
        with progress.phase("query curvature", total, "layers") as phase:
            for count, batches, owners in groups:
                if len(batches) == 1:
                    parts.append(self._precondition(batches[0], count, owners, phase, hold))
                    continue
                sums: dict[str, Tensor] = {}
                for batch in batches:
                    for name, X in self._precondition(batch, count, owners, phase, whole).items():
                        sums[name] = sums[name].add_(X[:]) if name in sums else X[:]
                parts.append({name: hold(sums.pop(name)) for name in list(sums)})
        return joined(parts)

    def _groups(self, objectives: Sequence[Objective]) -> Iterator[tuple[int, list[TokenBatch], npt.NDArray[np.int64]]]:
        """Queries one after the other, as many as make one batch; one that makes several is alone.

        Yields:
            How many queries, the batches of their texts, and the query of the group that each text belongs to.
        """
        start = 0
        while start < len(objectives):
            batches, owners = self._text_batches(objectives[start : start + 1])
            stop = start + 1
            while len(batches) == 1 and stop < len(objectives):
                more = self._text_batches(objectives[start : stop + 1])
                if len(more[0]) > 1:
                    break
                (batches, owners), stop = more, stop + 1
            yield stop - start, batches, owners
            start = stop

    def _text_batches(self, objectives: Sequence[Objective]) -> tuple[list[TokenBatch], npt.NDArray[np.int64]]:
        texts, owners = one_text_each(objectives)
        return self.model.batches(texts, np.arange(len(texts)), self.batch_tokens), owners

    def _precondition(
        self, batch: TokenBatch, queries: int, owners: npt.NDArray[np.int64], phase: Phase, hold: Hold
    ) -> Held:
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
            torch.from_numpy(owners[batch.ordinals]),
            hold,
        )


def middling_first(lengths_N: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Documents to pass first, to know how long all of them will take, and the others; none first where all are few.

    Args:
        lengths_N: Tokens of each document.
    """
    order = np.argsort(lengths_N, kind="stable")
    middle = order[len(order) // 2 :]
    first = middle[: 1 + int(np.searchsorted(np.cumsum(lengths_N[middle]), FIRST_TOKENS))]
    if lengths_N[first].sum() > FIRST_SHARE * lengths_N.sum():
        first = order[:0]
    return np.sort(first), np.setdiff1d(order, first)
