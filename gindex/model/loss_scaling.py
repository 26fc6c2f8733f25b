"""Scales of losses whose gradients pass float16 on their way back, and gradients without them.

float16 ends at 65,504 and has no number below 6e-8, where gradients of a loss in nats have both larger and smaller
ones. So each document's loss is multiplied by a power of two before the backward pass, and what arrives at a layer is
divided by it in float32: but for subnormal numbers, neither rounds. The scale is 2^6, over the loss where that is below
1, since the gradient of a likelihood is small where its loss is. Where a gradient overflows all the same, the pass is
run again with the scale of that document divided by 2^6, until no layer's does.

A layer is shown to the observer once, in the first pass in which the gradients of all documents are finite there: what
overflows closer to the input does not change them. So a document's scale depends on its own loss and gradients alone.
Its neighbours decide only in which of its passes a layer is taken: gradients then differ by at most 2^-35 of the
largest value in the document's, where rounding moves every value by up to 2^-11 of itself.

Axes: N documents, T tokens, X features.

Source: Micikevicius et al. 2018, arXiv:1710.03740; the scale of each document by itself is this project's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gindex.model.layers import TrackedLayer

FIRST = 6
"""Exponent of the scale of a loss of 1 and more: gradients up to 1,023 do not overflow, and 1e-9 is not zero. The
largest of SmolLM2-135M is 62, behind the norm in front of its first block; medians of its layers are 1e-5 to .1."""

STEP = 6
"""By how much the exponent is lowered where a gradient overflows: half of what is between there and subnormals."""

LAST = FIRST - 5 * STEP
"""The least exponent: gradients up to 1e12 do not overflow. Larger ones are shown as infinite."""

SMALLEST_LOSS = -100
"""Exponent of losses below which the scale grows no more: float32 ends at 2^-126."""


class LossScaling:
    """The scales of a batch in its passes, and which layers have been shown; none where nothing is in float16."""

    def __init__(self, layers: Sequence[TrackedLayer], documents: int) -> None:
        """Begin with a batch of N documents.

        Args:
            layers: The layers that are observed.
            documents: N.
        """
        self._needed = any(layer.through_float16 for layer in layers)
        device = next(layers[0].module.parameters()).device
        self._lowered_N = torch.zeros(documents, dtype=torch.int32, device=device)
        self._exponents_N = self._overflowed_N = self._lowered_N
        self._lost_N = self._lowered_N > 0
        self._shown: set[str] = set()

    def scaled(self, losses_N: Tensor) -> Tensor:
        """The losses [N] times their scales: what the backward pass starts from."""
        if not self._needed:
            return losses_N
        wide_N = losses_N.to(torch.promote_types(losses_N.dtype, torch.float32))
        _, exponents_N = torch.frexp(wide_N.detach())
        usable_N = torch.isfinite(wide_N.detach()) & (wide_N.detach() != 0)
        small_N = torch.where(usable_N, exponents_N.clamp(SMALLEST_LOSS, 0), 0)
        self._exponents_N = FIRST - small_N - self._lowered_N
        self._lost_N = ~torch.isfinite(wide_N.detach()) | (self._lowered_N >= FIRST - LAST)
        self._overflowed_N = torch.zeros_like(self._lost_N)
        return wide_N * _power_of_two(self._exponents_N)

    def is_shown(self, layer: TrackedLayer) -> bool:
        """Whether the observer has had the gradients of a layer in an earlier pass."""
        return layer.name in self._shown

    def shows(self, layer: TrackedLayer, *gradients_NTX: Tensor) -> bool:
        """Whether the observer takes gradients [N, T, X] of a layer now: no document has to come again for them."""
        if not self._needed:
            return True
        for x_NTX in gradients_NTX:
            self._overflowed_N = self._overflowed_N | ~torch.isfinite(x_NTX).flatten(1).all(1)
        again_N = self._overflowed_N & ~self._lost_N
        if again_N.any():
            return False
        self._shown.add(layer.name)
        return True

    def unscaled(self, x_NTX: Tensor) -> Tensor:
        """Gradients [N, T, X] that have come back, divided by the scale of their document, in float32 or wider."""
        if not self._needed:
            return x_NTX
        wide_NTX = x_NTX.to(torch.promote_types(x_NTX.dtype, torch.float32))
        return wide_NTX * _power_of_two(-self._exponents_N).view(-1, *[1] * (x_NTX.dim() - 1))

    def lowers(self) -> bool:
        """Lower the scales of documents whose gradients overflowed; whether there were any, for another pass."""
        if not self._needed:
            return False
        again_N = self._overflowed_N & ~self._lost_N
        self._lowered_N = self._lowered_N + STEP * again_N.to(self._lowered_N.dtype)
        return bool(again_N.any())


def _power_of_two(exponents_N: Tensor) -> Tensor:
    """2 to whole exponents [N] from -126 to 127, float32, which functions such as exp2 may round."""
    return (exponents_N + 127).bitwise_left_shift(23).view(torch.float32)
