"""From token ids to vectors: a model, and the path that its gradients take.

Axes: N parts, D dimension.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.corpus.batches import TokenBatch
from gindex.model.devices import to_device
from gindex.model.passes import plain
from gindex.model.tracked import Tokens, TrackedModel
from gindex.vectors.path import VectorBatch, VectorPath


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
        return self.path.encode(len(batch.ordinals), lambda: self.model.task.losses(batch))

    @plain()
    def encode_all(
        self, tokens: Sequence[Tokens], first_targets: npt.NDArray[np.int64], batch_tokens: int
    ) -> VectorBatch:
        """Vectors [N, D] of any number of parts or queries, in the order given.

        Args:
            tokens: Token ids of each.
            first_targets: First token of each that counts in the loss [N].
            batch_tokens: Most tokens in a batch; 0 takes what suits the device.
        """
        all_parts = VectorBatch(
            vectors=self._empty(len(tokens), self.path.projection.spec.dimension),
            self_influence=self._empty(len(tokens)),
            losses=self._empty(len(tokens)),
        )
        for positions, encoded in self.encode_batches(tokens, first_targets, batch_tokens):
            where = to_device(positions, self.model.device)
            all_parts.vectors[where] = encoded.vectors
            all_parts.self_influence[where] = encoded.self_influence
            all_parts.losses[where] = encoded.losses
        return all_parts

    def encode_batches(
        self, tokens: Sequence[Tokens], first_targets: npt.NDArray[np.int64], batch_tokens: int
    ) -> Iterator[tuple[npt.NDArray[np.int64], VectorBatch]]:
        """Yield the vectors of any number of parts batch by batch, with the positions [N] of the batch's parts.

        Args:
            tokens: Token ids of each.
            first_targets: First token of each that counts in the loss [N].
            batch_tokens: Most tokens in a batch; 0 takes what suits the device.
        """
        for batch in self.model.batches(tokens, np.arange(len(tokens)), first_targets, batch_tokens):
            yield batch.ordinals, self.encode(batch)

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.model.device)
