"""Losses: what a document's gradient is the gradient of.

A task knows how to run its model on a batch. `losses` uses the data's labels (document and query gradients);
`sampled_losses` uses labels drawn from the model's own distribution (pseudo-gradients, the true Fisher).

Axes: N documents, T tokens, V vocabulary, M positions that predict something.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gindex.corpus.batches import TokenBatch

Batch = TypeVar("Batch", contravariant=True)

SAMPLING_CHUNK = 128
"""Positions whose distribution is held at once while labels are sampled."""


class Task(Protocol[Batch]):
    """A model together with its loss."""

    def losses(self, batch: Batch) -> Tensor:
        """Return the summed loss [N] of each document with the data's labels, in nats, differentiable."""
        ...

    def sampled_losses(self, batch: Batch, seeds: Sequence[int]) -> Tensor:
        """Return the summed loss [N] with labels sampled from the model, one seed [N] a document."""
        ...


class CausalLanguageModel:
    """Next-token prediction: `Task[TokenBatch]`.

    Batches are padded on the right and no attention mask is given: with causal attention no real token ever sees the
    padding, so a document's gradient does not depend on it, and fused attention keeps its fast path.
    """

    def __init__(self, model: nn.Module) -> None:
        """Wrap a causal language model of transformers; its weights are frozen and dropout is off."""
        self.model = model.requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        """Device of the model's weights."""
        return next(self.model.parameters()).device

    def logits(self, batch: TokenBatch) -> Tensor:
        """Return the model's logits [N, T, V]."""
        logits: Tensor = self.model(torch.from_numpy(batch.tokens).to(self.device), use_cache=False).logits
        return logits

    def losses(self, batch: TokenBatch) -> Tensor:
        """Return the summed loss [N] over each document's target tokens, in nats."""
        labels = torch.from_numpy(batch.tokens[:, 1:][batch.targets[:, 1:]])
        return self._summed(batch, lambda _logits_MV: labels.to(self.device))

    def sampled_losses(self, batch: TokenBatch, seeds: Sequence[int]) -> Tensor:
        """Return the summed loss [N] with every target token replaced by a sample from the model."""
        uniforms = torch.from_numpy(np.concatenate([_uniforms(*s) for s in zip(seeds, batch.targets, strict=True)]))
        return self._summed(batch, lambda logits_MV: sample_labels(logits_MV, uniforms.to(self.device)))

    def _summed(self, batch: TokenBatch, labels: "LabelSource") -> Tensor:
        targets = torch.from_numpy(batch.targets[:, 1:]).to(self.device)
        logits_MV = self.logits(batch)[:, :-1][targets]
        predicting = logits_MV.to(torch.promote_types(logits_MV.dtype, torch.float32))
        losses_M = F.cross_entropy(predicting, labels(predicting.detach()), reduction="none")
        documents = torch.nonzero(targets)[:, 0]
        return losses_M.new_zeros(len(batch.ordinals)).index_add(0, documents, losses_M)


class LabelSource(Protocol):
    """Gives the labels of the positions that predict something."""

    def __call__(self, logits_MV: Tensor, /) -> Tensor:
        """Return labels [M] for logits [M, V]."""
        ...


def _uniforms(seed: int, targets_T: np.ndarray) -> np.ndarray:
    """Return one uniform number a target token, the same whatever batch the document is in."""
    return np.random.Generator(np.random.Philox(seed)).random(int(targets_T[1:].sum()), dtype=np.float32)


def sample_labels(logits_MV: Tensor, uniforms_M: Tensor) -> Tensor:
    """Sample labels from softmax(logits) by inverting the cumulative distribution.

    Args:
        logits_MV: Logits [M, V].
        uniforms_M: Uniform numbers in [0, 1) [M].

    Returns:
        Labels [M], int64.
    """
    labels = []
    for logits, uniforms in zip(logits_MV.split(SAMPLING_CHUNK), uniforms_M.split(SAMPLING_CHUNK), strict=True):
        cumulative = logits.softmax(-1).cumsum(-1)
        threshold = uniforms[:, None] * cumulative[:, -1:]
        labels.append(torch.searchsorted(cumulative, threshold, right=True)[:, 0].clamp(max=logits.shape[-1] - 1))
    return torch.cat(labels) if labels else logits_MV.new_zeros(0, dtype=torch.long)
