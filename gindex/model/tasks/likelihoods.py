"""Losses of labels given what a model puts out: as transformers computes them, summed in the place of averaged.

Each says how labels are sampled from the outputs, and has the Hessian of its loss, which is the same for all labels.

Axes: M positions, V outputs of each, K values of a label (1 where it is a number of a class, else V).
"""

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from gindex.model.head import CHUNK
from gindex.model.losses import sample_labels, softmax_hessian

Noise = npt.NDArray[np.float32]


class Likelihood(ABC):
    """How labels are distributed, given outputs."""

    @abstractmethod
    def losses(self, outputs_MV: Tensor, labels_MK: Tensor) -> Tensor:
        """Return -log p [M] of labels [M, K] in nats, but for a constant."""

    @abstractmethod
    def noise(self, generator: np.random.Generator, count: int, values: int) -> Noise:
        """Draw what decides the labels of so many positions of so many outputs [M, ...]."""

    @abstractmethod
    def sampled(self, outputs_MV: Tensor, noise: Tensor) -> Tensor:
        """Return labels [M, K] drawn from the outputs."""

    @abstractmethod
    def hessian(self, outputs_MV: Tensor, v_MV: Tensor) -> Tensor:
        """Return the Hessian of the loss in the outputs times v [M, V]."""


class Categorical(Likelihood):
    """One of V classes; outputs are logits, the loss is the cross-entropy."""

    def losses(self, outputs_MV: Tensor, labels_MK: Tensor) -> Tensor:
        """Return the cross-entropy [M]."""
        return F.cross_entropy(outputs_MV, labels_MK[:, 0].long(), reduction="none")

    def noise(self, generator: np.random.Generator, count: int, values: int) -> Noise:
        """Draw a uniform number for each position [M, 1]."""
        return generator.random((count, 1), dtype=np.float32)

    def sampled(self, outputs_MV: Tensor, noise: Tensor) -> Tensor:
        """Return classes [M, 1]; the probabilities of a few positions are held at once."""
        chunks = zip(outputs_MV.split(CHUNK), noise.split(CHUNK), strict=True)
        labels = [sample_labels(logits_CV.softmax(1), noise_C1[:, 0]) for logits_CV, noise_C1 in chunks]
        return torch.cat(labels)[:, None]

    def hessian(self, outputs_MV: Tensor, v_MV: Tensor) -> Tensor:
        """Return (diag(p) - p p^T) v [M, V]."""
        return softmax_hessian(outputs_MV, v_MV)


class Binary(Likelihood):
    """Any of V classes, independent of one another; outputs are logits, the loss is the sum of V binary ones."""

    def losses(self, outputs_MV: Tensor, labels_MK: Tensor) -> Tensor:
        """Return the sum of V cross-entropies [M]."""
        each_MV = F.binary_cross_entropy_with_logits(outputs_MV, labels_MK.to(outputs_MV.dtype), reduction="none")
        return each_MV.sum(1)

    def noise(self, generator: np.random.Generator, count: int, values: int) -> Noise:
        """Draw a uniform number for each class [M, V]."""
        return generator.random((count, values), dtype=np.float32)

    def sampled(self, outputs_MV: Tensor, noise: Tensor) -> Tensor:
        """Return 0 or 1 for each class [M, V]."""
        return (noise < outputs_MV.sigmoid()).to(outputs_MV.dtype)

    def hessian(self, outputs_MV: Tensor, v_MV: Tensor) -> Tensor:
        """Return p (1 - p) v [M, V]."""
        p_MV = outputs_MV.sigmoid()
        return p_MV * (1 - p_MV) * v_MV


class Gaussian(Likelihood):
    """V values; outputs are their means, the loss is the squared error: the variance is 1/2."""

    def losses(self, outputs_MV: Tensor, labels_MK: Tensor) -> Tensor:
        """Return the squared error [M], summed over values."""
        return (outputs_MV - labels_MK.to(outputs_MV.dtype)).square().sum(1)

    def noise(self, generator: np.random.Generator, count: int, values: int) -> Noise:
        """Draw an error for each value [M, V]."""
        return generator.standard_normal((count, values), dtype=np.float32) * np.float32(0.5**0.5)

    def sampled(self, outputs_MV: Tensor, noise: Tensor) -> Tensor:
        """Return the outputs with errors [M, V]."""
        return outputs_MV + noise.to(outputs_MV.dtype)

    def hessian(self, outputs_MV: Tensor, v_MV: Tensor) -> Tensor:
        """Return 2 v [M, V]."""
        del outputs_MV
        return 2 * v_MV
