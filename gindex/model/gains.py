"""Gains of adapters, DoRA's magnitudes and the vectors of (IA)^3, as affine layers whose gradients the formula carries.

A gain m multiplies every feature of y = m * z by a number of its own; its gradient is sum_t g_t * z_t. With the gain
written as a layer from a constant 1 to [O], y = (m 1) * z, the gradient of that layer's output is g_t * z_t and its
activation is 1, and the formula sum_t g_t a_t^T gives the same.

Axes: N documents, T tokens, O features.
"""

from typing import Any

import torch
from torch import Tensor, nn


class Gain(nn.Linear):
    """A layer from a constant 1 to a gain of every feature; its weight is [O, 1]."""

    def __init__(self, gain: Tensor) -> None:
        """Take the gains, of any shape with O values."""
        super().__init__(1, gain.numel(), bias=False, device="meta")
        self.weight = nn.Parameter(gain.detach().reshape(-1, 1).clone(), requires_grad=gain.requires_grad)

    def like(self, features: Tensor) -> Tensor:
        """The gains for features [..., O], of the same shape."""
        gains: Tensor = self(features.new_ones(*features.shape[:-1], 1))
        return gains


class DoraGain(nn.Module):
    """DoRA's change of a layer's output, in the place of peft's: each of its layers runs once in a pass.

    With the base's output z = W x, the change of it d = scaling B A x, and the magnitudes m, the adapted output is
    m / |W + scaling B A| * (z + d), the norms over the inputs. The norms are constants to gradients, as they are in
    training; the weights don't change either while gradients are taken, so the norms are computed once.

    Source: Liu et al. 2024, arXiv:2402.09353, section 4.3.
    """

    norm_O: Tensor

    def __init__(self, magnitude_O: Tensor, norm_O: Tensor) -> None:
        """Take magnitudes and norms."""
        super().__init__()
        self.magnitude = Gain(magnitude_O)
        self.register_buffer("norm_O", norm_O.detach(), persistent=False)

    def forward(
        self,
        x: Tensor,
        *,
        lora_A: nn.Module,
        lora_B: nn.Module,
        scaling: float,
        base_layer: nn.Module,
        base_result: Tensor,
        **_other: Any,
    ) -> Tensor:
        """The adapted output less the base's; arguments are those that peft gives its own."""
        bias: Any = base_layer.bias
        z = base_result if bias is None else base_result - bias
        adapted: Tensor = self.magnitude.like(z) / self.norm_O * (z + lora_B(lora_A(x)) * scaling)
        return adapted - z


class ScaledLayer(nn.Module):
    """A layer whose outputs, or inputs, have a gain: (IA)^3.

    Source: Liu et al. 2022, arXiv:2205.05638.
    """

    def __init__(self, base_layer: nn.Module, gain: Tensor, *, on_inputs: bool) -> None:
        """Take the layer and the gain of its outputs, or of its inputs."""
        super().__init__()
        self.base_layer, self.gain, self.on_inputs = base_layer, Gain(gain), on_inputs

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The layer's output with the gain."""
        if self.on_inputs:
            scaled: Tensor = self.base_layer(x * self.gain.like(x), *args, **kwargs)
            return scaled
        y: Tensor = self.base_layer(x, *args, **kwargs)
        return y * self.gain.like(y)


def dora_norms(weight_OI: Tensor, A_RI: Tensor, B_OR: Tensor, scaling: float) -> Tensor:
    """The norms [O] of the rows of W + scaling B A, in float32 or wider.

    Args:
        weight_OI: W [O, I].
        A_RI: A [R, I].
        B_OR: B [O, R].
        scaling: What the product is multiplied by.
    """
    wide = torch.promote_types(weight_OI.dtype, torch.float32)
    adapted_OI = torch.addmm(weight_OI.to(wide), B_OR.to(wide), A_RI.to(wide), alpha=scaling)
    norms_O: Tensor = torch.linalg.vector_norm(adapted_OI, dim=1)
    return norms_O
