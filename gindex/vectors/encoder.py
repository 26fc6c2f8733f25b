"""From objectives to vectors: a model, and the path that its gradients take.

Axes: N objectives, D dimension.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.corpus.batches import TokenBatch, one_text_each
from gindex.corpus.objectives import Objective
from gindex.model.devices import to_device
from gindex.model.isolation import plain
from gindex.model.tracked_model import TrackedModel
from gindex.vectors.path import VectorBatch, VectorPath


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryVectors:
    """Vectors of queries.

    Attributes:
        vectors: [Q, D], float32.
        losses: [Q], in nats.
        finite: Which queries have a finite loss and vector [Q].
    """

    vectors: Tensor
    losses: Tensor
    finite: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """Makes vectors of parts and of queries alike.

    Attributes:
        model: The model.
        path: From its passes to vectors.
    """

    model: TrackedModel
    path: VectorPath

    def on(self, model: TrackedModel) -> "Encoder":
        """The same factors and projection on other modules with the same weights."""
        return Encoder(model=model, path=self.path.through(model.table.layers))

    def encode(self, batch: TokenBatch) -> VectorBatch:
        """Vectors of one batch."""
        return self.path.encode(len(batch.ordinals), lambda: self.model.task.losses(batch), batch.texts)

    @plain()
    def encode_queries(self, queries: Sequence[Objective], batch_tokens: int = 0) -> QueryVectors:
        """Vectors of any number of queries, in the order given; that of several texts is the sum of theirs.

        Args:
            queries: Q queries.
            batch_tokens: Most tokens in a batch; 0 takes what suits the device.
        """
        texts, owners = one_text_each(queries)
        dimension, device = self.path.projection.spec.dimension, self.model.device
        vectors_QD = torch.zeros(len(queries), dimension, dtype=torch.float32, device=device)
        losses_Q = torch.zeros(len(queries), dtype=torch.float32, device=device)
        finite_Q = torch.ones(len(queries), dtype=torch.bool, device=device)
        for positions, encoded in self.encode_batches(texts, batch_tokens):
            where = to_device(owners[positions], device)
            vectors_QD.index_add_(0, where, encoded.vectors)
            losses_Q.index_add_(0, where, encoded.losses.to(losses_Q.dtype))
            finite_Q[where[~encoded.finite]] = False
        return QueryVectors(vectors=vectors_QD, losses=losses_Q, finite=finite_Q)

    def encode_batches(
        self, objectives: Sequence[Objective], batch_tokens: int
    ) -> Iterator[tuple[npt.NDArray[np.int64], VectorBatch]]:
        """Yield the vectors of any number of objectives batch by batch, with the positions [N] of the batch's own.

        Args:
            objectives: Each of one text or of a preference.
            batch_tokens: Most tokens in a batch; 0 takes what suits the device.
        """
        for batch in self.model.batches(objectives, np.arange(len(objectives)), batch_tokens):
            yield batch.ordinals, self.encode(batch)
