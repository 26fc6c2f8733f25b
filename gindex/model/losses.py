"""The losses of documents, whose gradients are the document gradients.

A task knows how to run its model on a batch. `losses` uses the data's labels (document and query gradients);
`sampled_losses` uses labels drawn from the model's own distribution (pseudo-gradients, the true Fisher).

Axes: N documents, R texts (as many, or two of each document), T tokens, V vocabulary, M positions that predict
something.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gindex.corpus.batches import TokenBatch
from gindex.corpus.objectives import Objective, Preference
from gindex.model.devices import to_device
from gindex.model.head import CHUNK, LabelSource, head_losses, plain_head
from gindex.model.isolation import alone
from gindex.model.layers import LayerTable

BLOCK_LABELS = 128
"""Labels of a block. `sample_labels` finds the block by sums first: that takes a fraction of the time."""

Batch = TypeVar("Batch", contravariant=True)


class Task(Protocol[Batch]):
    """A model together with its loss."""

    def losses(self, batch: Batch) -> Tensor:
        """Return the summed loss [N] of each document with the data's labels, in nats, differentiable."""
        ...

    def sampled_losses(self, batch: Batch, seeds: Sequence[int]) -> Tensor:
        """Return the summed loss [N] with labels sampled from the model, one seed [N] a document."""
        ...


class OutputTask(Task[Batch], Protocol):
    """A task whose loss is a function of outputs that the model computes position by position.

    With J the Jacobian of the outputs and H the Hessian of the loss in them, the Gauss-Newton matrix of documents is
    the sum of J^T H J over their positions: the expectation of G G^T over sampled labels.
    """

    def outputs(self, batch: Batch) -> Tensor:
        """Return the outputs [M, V] of all positions that carry a loss, differentiable."""
        ...

    def output_hessian(self, outputs_MV: Tensor, v_MV: Tensor) -> Tensor:
        """Return the Hessian of the loss in the outputs, at each position, times v [M, V]."""
        ...


class CausalLanguageModel:
    """Next-token prediction: `Task[TokenBatch]`.

    Batches are padded on the right and no attention mask is given: with causal attention no real token ever sees the
    padding, so a document's gradient does not depend on it, and fused attention keeps its fast path.
    """

    probe_tokens = 3
    reads_tokens = True

    def __init__(self, model: nn.Module, head: nn.Linear | None = None) -> None:
        """Wrap a causal language model of transformers; its weights are frozen and dropout is off.

        Args:
            model: The model.
            head: Its output head, where it is a plain linear layer that is not tracked (`plain_head`): the losses then
                never hold the logits of a whole batch.
        """
        self.model, self.head = model.requires_grad_(False).eval(), head

    def trial(self, ids: npt.NDArray[np.uint32]) -> Objective:
        """Return an objective over any tokens [T], to try the model on."""
        return Objective.counting(ids)

    def trial_alone(self) -> Objective | None:
        """Return None: no document needs a batch of its own."""
        return None

    def settled(self, table: LayerTable, batch: TokenBatch) -> Self:
        """Return the task that never holds the logits of a whole batch, where the head allows it; see `plain_head`.

        Args:
            table: The tracked layers.
            batch: Texts to try the head on.
        """
        with alone(self.model):
            head = plain_head(self.model, to_device(batch.tokens, self.device))
        if head is None or table.tracks(head.weight):
            return self
        twin = copy(self)
        twin.head = head
        return twin

    def on(self, model: nn.Module, copies: Mapping[int, Any]) -> Self:
        """Return the task of a copy of the model, given the copies of its modules by the originals' identity."""
        twin = copy(self)
        twin.model, twin.head = model, None if self.head is None else copies[id(self.head)]
        return twin

    @property
    def device(self) -> torch.device:
        """Device of the model's weights."""
        return next(self.model.parameters()).device

    @property
    def vocabulary(self) -> int:
        """Size of the model's vocabulary: the width of its logits."""
        return len(self.model.get_input_embeddings().weight)  # type: ignore[operator]

    def logits(self, batch: TokenBatch) -> Tensor:
        """Return the model's logits [R, T, V]."""
        logits: Tensor = self.run(self.model, batch).logits
        return logits

    def run(self, module: nn.Module, batch: TokenBatch) -> Any:
        """Return what the model, or its body without the head, gives for a batch."""
        return module(to_device(batch.tokens, self.device), use_cache=False)

    def outputs(self, batch: TokenBatch) -> Tensor:
        """Return the logits [M, V] that predict target tokens, float32 or wider, differentiable."""
        return _wide(self.logits(batch)[self._predicting(batch)])

    def output_hessian(self, outputs_MV: Tensor, v_MV: Tensor) -> Tensor:
        """Return (diag(p) - p p^T) v [M, V]."""
        return softmax_hessian(outputs_MV, v_MV)

    def losses(self, batch: TokenBatch) -> Tensor:
        """Return the loss [N] of each document in nats: the weighted sum over its tokens, or that of its preference."""
        labels = to_device(batch.tokens[:, 1:][batch.targets[:, 1:]], self.device)
        losses_R = self._summed(batch, lambda _probabilities_CV, chunk: labels[chunk])
        if batch.preferences is None:
            return losses_R.view(len(batch.ordinals), -1).sum(1)
        return preference_losses(losses_R.view(-1, 2), batch.preferences)

    def sampled_losses(self, batch: TokenBatch, seeds: Sequence[int]) -> Tensor:
        """Return the weighted sum of token losses [N] with every target token replaced by a sample from the model."""
        targets = batch.targets[:, 1:].reshape(len(batch.ordinals), -1)
        drawn = [_uniforms(seed, int(targets_T.sum())) for seed, targets_T in zip(seeds, targets, strict=True)]
        uniforms = to_device(np.concatenate(drawn), self.device)
        losses_R = self._summed(batch, lambda probabilities_CV, chunk: sample_labels(probabilities_CV, uniforms[chunk]))
        return losses_R.view(len(batch.ordinals), -1).sum(1)

    def _summed(self, batch: TokenBatch, labels: LabelSource) -> Tensor:
        """Return the weighted sum of token losses [R] of each text."""
        predicting = texts_M, _ = self._predicting(batch)
        if self.head is None:
            losses_M = _logits_losses(self.logits(batch)[predicting], labels)
        else:
            body: Any = self.model.base_model
            hidden_RTH = self.run(body, batch).last_hidden_state
            losses_M = head_losses(hidden_RTH[predicting], self.head, labels)
        weights_M = batch.weights[:, 1:][batch.targets[:, 1:]]
        if not (weights_M == 1).all():
            losses_M = losses_M * to_device(weights_M, self.device).to(losses_M.dtype)
        return losses_M.new_zeros(len(batch.tokens)).index_add(0, texts_M, losses_M)

    def _predicting(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Return the text and the position [M] before each target token, found on the host."""
        texts_M, positions_M = to_device(np.stack(np.nonzero(batch.targets[:, 1:])), self.device)
        return texts_M, positions_M


def preference_losses(losses_N2: Tensor, preferences: Sequence[Preference]) -> Tensor:
    """Return the loss [N] of DPO; see `Preference`.

    Args:
        losses_N2: Summed token losses, -log p, of the chosen and the rejected texts [N, 2], in nats.
        preferences: Beta, reference and weight of each pair.
    """
    terms = np.array([(p.beta, p.reference, p.weight) for p in preferences])
    beta_N, reference_N, weight_N = to_device(terms.T, losses_N2.device).to(losses_N2.dtype)
    margin_N = losses_N2[:, 1] - losses_N2[:, 0] - reference_N
    losses_N: Tensor = -weight_N * F.logsigmoid(beta_N * margin_N)
    return losses_N


def _logits_losses(logits_MV: Tensor, labels: LabelSource) -> Tensor:
    """Return the cross-entropy [M], float32 or wider."""
    wide_MV = _wide(logits_MV)
    chunks = [slice(start, start + CHUNK) for start in range(0, len(wide_MV), CHUNK)]
    chosen = [labels(wide_MV[chunk].detach().softmax(-1), chunk) for chunk in chunks]
    return F.cross_entropy(wide_MV, torch.cat(chosen) if chosen else wide_MV.new_zeros(0).long(), reduction="none")


def _wide(logits_MV: Tensor) -> Tensor:
    return logits_MV.to(torch.promote_types(logits_MV.dtype, torch.float32))


def softmax_hessian(logits_MV: Tensor, v_MV: Tensor) -> Tensor:
    """Return (diag(p) - p p^T) v [M, V], the Hessian of the cross-entropy in the logits times v; labels do not matter.

    Args:
        logits_MV: Logits [M, V].
        v_MV: Vectors [M, V].
    """
    p_MV = logits_MV.softmax(-1)
    return p_MV * (v_MV - (p_MV * v_MV).sum(-1, keepdim=True))


def _uniforms(seed: int, targets: int) -> np.ndarray:
    """Return one uniform number a target token, the same whatever batch the document is in."""
    return np.random.Generator(np.random.Philox(seed)).random(targets, dtype=np.float32)


def sample_labels(probabilities_MV: Tensor, uniforms_M: Tensor) -> Tensor:
    """Sample labels by inverting the cumulative distribution: first the block that a label is in, then the label.

    Args:
        probabilities_MV: Probabilities [M, V].
        uniforms_M: Uniform numbers in [0, 1) [M].

    Returns:
        Labels [M], int64.
    """
    V = probabilities_MV.shape[1]
    whole = V - V % BLOCK_LABELS
    sums_MB = probabilities_MV[:, :whole].unflatten(1, (-1, BLOCK_LABELS)).sum(-1)
    sums_MB = torch.cat([sums_MB, probabilities_MV[:, whole:].sum(1, keepdim=True)], 1)
    block_M1, within_M1 = _first_past(sums_MB, uniforms_M[:, None] * sums_MB.sum(1, keepdim=True))
    labels_MV = block_M1 * BLOCK_LABELS + torch.arange(BLOCK_LABELS, device=block_M1.device)
    inside_MV = probabilities_MV.gather(1, labels_MV.clamp(max=V - 1)).where(labels_MV < V, 0)
    return (block_M1 * BLOCK_LABELS + _first_past(inside_MV, within_M1)[0])[:, 0].clamp(max=V - 1)


def _first_past(weights_MX: Tensor, threshold_M1: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first positions [M, 1] whose cumulative weights pass a threshold, and the threshold less the rest."""
    cumulative_MX = weights_MX.cumsum(1)
    last_M1 = cumulative_MX[:, -1:]
    # Rounding may put a threshold at the end of the last weight, which then is not past it.
    threshold_M1 = threshold_M1.minimum(last_M1.nextafter(torch.zeros_like(last_M1)))
    first_M1 = torch.searchsorted(cumulative_MX, threshold_M1, right=True).clamp(max=weights_MX.shape[1] - 1)
    return first_M1, threshold_M1 - (cumulative_MX - weights_MX).gather(1, first_M1)
