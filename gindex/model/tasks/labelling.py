"""Tasks whose model gives outputs at positions of its own: for the token that is read there, or for the whole text.

Batches have an attention mask, so that padding is seen by no token. Padding is the model's own padding token, where it
has one: some models look for it to find the end of a text.

Axes: N objectives, R texts, T tokens, M positions that carry a loss, V outputs, K values of a label.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gindex.corpus.batches import TokenBatch
from gindex.corpus.objectives import Objective
from gindex.model.devices import to_device
from gindex.model.tasks.likelihoods import Likelihood
from gindex.model.tasks.plain import PlainTask


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """What a batch is asked for.

    Attributes:
        texts: Row of each position that carries a loss [M], in order.
        positions: Its position in the text [M].
        weights: What its loss is multiplied by [M].
        labels: Its label [M, K].
    """

    texts: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]


class LabellingTask(PlainTask, ABC):
    """A model that labels: a `ModelTask`."""

    probe_tokens = 6
    reads_tokens = True

    def __init__(self, model: nn.Module, likelihood: Likelihood) -> None:
        """Wrap a model of transformers; its weights are frozen and dropout is off."""
        self.model, self._likelihood = model.requires_grad_(False).eval(), likelihood

    @property
    def device(self) -> torch.device:
        """Device of the model's weights."""
        return next(self.model.parameters()).device

    @property
    def vocabulary(self) -> int:
        """How many tokens the model reads."""
        return len(self.model.get_input_embeddings().weight)  # type: ignore[operator]

    @cached_property
    def _parameters(self) -> frozenset[str]:
        return frozenset(signature(self.model.forward).parameters)

    @property
    def padding(self) -> int | None:
        """The token that stands for padding, as the model has it."""
        config: Any = self.model.config
        found = getattr(config.get_text_config(), "pad_token_id", None)
        return found if found is not None and 0 <= found < self.vocabulary else None

    @abstractmethod
    def trial(self, ids: npt.NDArray[np.uint32]) -> Objective:
        """Return an objective of the task over any tokens [T], to try the model on."""

    def asked(self, batch: TokenBatch) -> Asked:
        """Return what a batch is asked for: the labels of its tokens that count."""
        texts_M, positions_M = np.nonzero(batch.targets)
        labels_MK = np.zeros((0, 1), np.float32) if batch.labels is None else batch.labels
        weights_M = batch.weights[texts_M, positions_M]
        return Asked(texts=texts_M, positions=positions_M, weights=weights_M, labels=labels_MK)

    def inputs(self, batch: TokenBatch) -> dict[str, Tensor]:
        """Return the arguments of the model."""
        real_RT = batch.mask.reshape(batch.tokens.shape)
        given = {
            "input_ids": self.padded(batch.tokens, real_RT),
            "attention_mask": to_device(real_RT.astype(np.int64), self.device),
        }
        if batch.seconds is not None and "token_type_ids" in self._parameters:
            types_RT = (np.arange(batch.tokens.shape[1]) >= batch.seconds[:, None]) & real_RT
            given["token_type_ids"] = to_device(types_RT.astype(np.int64), self.device)
        return given

    def padded(self, tokens_RT: npt.NDArray[np.int64], real_RT: npt.NDArray[np.bool_]) -> Tensor:
        """Return tokens [R, T] with the model's own padding token, where it has one, in the place of padding."""
        own = tokens_RT if self.padding is None else np.where(real_RT, tokens_RT, self.padding)
        return to_device(own, self.device)

    def logits(self, batch: TokenBatch) -> Tensor:
        """Return all that the model gives for a batch [R, ..., V]."""
        more = {"use_cache": False} if "use_cache" in self._parameters else {}
        logits: Tensor = self.model(**self.inputs(batch), **more).logits
        return logits

    def outputs(self, batch: TokenBatch) -> Tensor:
        """Return the outputs [M, V] of all positions that carry a loss, float32 or wider, differentiable."""
        return self._outputs(batch, self.asked(batch))

    def output_hessian(self, outputs_MV: Tensor, v_MV: Tensor) -> Tensor:
        """Return the Hessian of the loss in the outputs, at each position, times v [M, V]."""
        return self._likelihood.hessian(outputs_MV, v_MV)

    def losses(self, batch: TokenBatch) -> Tensor:
        """Return the weighted sum of losses [N] of each objective, in nats, differentiable."""
        asked = self.asked(batch)
        labels_MK = to_device(asked.labels, self.device)
        return self._summed(batch, asked, self._likelihood.losses(self._outputs(batch, asked), labels_MK))

    def sampled_losses(self, batch: TokenBatch, seeds: Sequence[int]) -> Tensor:
        """Return the same [N] with labels sampled from the model, one seed [N] an objective."""
        asked = self.asked(batch)
        outputs_MV = self._outputs(batch, asked)
        counts_N = np.bincount(asked.texts // max(1, batch.texts), minlength=len(seeds)).tolist()
        generators = [np.random.Generator(np.random.Philox(seed)) for seed in seeds]
        values = outputs_MV.shape[1]
        noise = [self._likelihood.noise(g, count, values) for g, count in zip(generators, counts_N, strict=True)]
        labels_MK = self._likelihood.sampled(outputs_MV.detach(), to_device(np.concatenate(noise), self.device))
        return self._summed(batch, asked, self._likelihood.losses(outputs_MV, labels_MK))

    def _outputs(self, batch: TokenBatch, asked: Asked) -> Tensor:
        logits, texts_M = self.logits(batch), to_device(asked.texts, self.device)
        found = logits[texts_M] if logits.dim() == 2 else logits[texts_M, to_device(asked.positions, self.device)]
        return found.to(torch.promote_types(found.dtype, torch.float32))

    def _summed(self, batch: TokenBatch, asked: Asked, losses_M: Tensor) -> Tensor:
        """Return the weighted sum of losses [N] of each objective."""
        weighted_M = losses_M * to_device(asked.weights, self.device).to(losses_M.dtype)
        owners_M = to_device(asked.texts // max(1, batch.texts), self.device)
        return losses_M.new_zeros(len(batch.ordinals)).index_add(0, owners_M, weighted_M)
