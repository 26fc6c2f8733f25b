"""Preconditioned gradients of queries as they are held while documents pass: in the format of products, or in bytes.

Eight bits a value hold it as a multiple of a step, which is a 127th of the largest magnitude among some 64 values of a
row: it is off by at most half a step. So a layer's influence is off by at most the sum over its weights of that times
|G_d|. Errors of many weights cancel: docs/decisions/0017-held-queries.md says what is left, and why the gradients are
not held as factors of low rank.

Axes: Q queries, O layer outputs, I layer inputs, C runs of a row, W values of a run.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from gindex.model.layers import TrackedLayer
from gindex.model.number_formats import Formats
from gindex.vectors.product_format import product_format

RUN = 64
"""Most values of a row that share a step."""

STEPS = 127
"""Steps to the largest magnitude of a run: what a signed byte holds."""

Index = int | slice | tuple[slice, slice]
"""A query, some queries, or some outputs of some queries."""


class HeldGradients(Protocol):
    """Gradients [Q, O, I] of a layer, a part of which is read at a time; a tensor is one."""

    @property
    def shape(self) -> torch.Size:
        """Q, O, I."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Number format of what is read, which products run in."""
        ...

    @property
    def device(self) -> torch.device:
        """Where they are."""
        ...

    def __getitem__(self, index: Index) -> Tensor:
        """A part of them: [O, I] of a query, [Q, O, I] of some."""
        ...


Hold = Callable[[Tensor], HeldGradients]
"""Makes gradients [Q, O, I] what is held of them."""


class RoundedGradients:
    """Gradients [Q, O, I] as signed bytes, with a step for each run of a row."""

    def __init__(self, rounded_QOCW: Tensor, steps_QOC1: Tensor, inputs: int, dtype: torch.dtype) -> None:
        """Take the multiples of steps, the steps, I without what fills up the last run, and the format to be read."""
        self._rounded, self._steps, self._inputs = rounded_QOCW, steps_QOC1, inputs
        self.dtype = dtype

    @classmethod
    def of(cls, X_QOI: Tensor) -> "RoundedGradients":
        """Round gradients [Q, O, I]."""
        inputs, (runs, width) = X_QOI.shape[2], _runs(X_QOI.shape[2])
        X_QOCW = pad(X_QOI, (0, runs * width - inputs)).unflatten(2, (runs, width))
        # The steps are rounded first, so that their own rounding costs nothing.
        steps_QOC1 = (X_QOCW.abs().amax(3, keepdim=True) / STEPS).to(torch.bfloat16)
        divisors_QOC1 = torch.where(steps_QOC1 == 0, 1.0, steps_QOC1.to(X_QOI.dtype))
        rounded_QOCW = (X_QOCW / divisors_QOC1).round_().clamp_(-STEPS, STEPS).to(torch.int8)
        return cls(rounded_QOCW, steps_QOC1, inputs, _format(X_QOI))

    @classmethod
    def joined(cls, parts: Sequence["RoundedGradients"]) -> "RoundedGradients":
        """The queries of all parts, in their order."""
        rounded, steps = torch.cat([part._rounded for part in parts]), torch.cat([part._steps for part in parts])
        return cls(rounded, steps, parts[0]._inputs, parts[0].dtype)

    @property
    def shape(self) -> torch.Size:
        """Q, O, I."""
        return torch.Size((*self._rounded.shape[:2], self._inputs))

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self._rounded.device

    def __getitem__(self, index: Index) -> Tensor:
        """A part of them: [O, I] of a query, [Q, O, I] of some."""
        read = self._rounded[index].to(self.dtype).mul_(self._steps[index].to(self.dtype))
        return read.flatten(-2)[..., : self._inputs]


def whole(X_QOI: Tensor) -> Tensor:
    """Hold gradients [Q, O, I] in the format of products."""
    return X_QOI.to(_format(X_QOI))


def joined(parts: list[dict[str, HeldGradients]]) -> dict[str, HeldGradients]:
    """The queries of all parts by layer name, in their order; the parts are emptied, a layer at a time."""
    if len(parts) == 1:
        return parts[0]
    return {name: join([part.pop(name) for part in parts]) for name in list(parts[0])}


def join(parts: Sequence[HeldGradients]) -> HeldGradients:
    """The queries of all parts of one layer, in their order."""
    if len(parts) == 1:
        return parts[0]
    rounded = [part for part in parts if isinstance(part, RoundedGradients)]
    if rounded:
        return RoundedGradients.joined(rounded)
    return torch.cat([part for part in parts if isinstance(part, Tensor)])


def rounded(X_QOI: Tensor) -> HeldGradients:
    """Hold gradients [Q, O, I] rounded to bytes; those of float64, which is chosen for its digits, whole."""
    return whole(X_QOI) if X_QOI.dtype == torch.float64 else RoundedGradients.of(X_QOI)


def whole_bytes(layers: Sequence[TrackedLayer], formats: Formats, device: torch.device) -> int:
    """Bytes of a query that is held whole.

    Args:
        layers: Tracked layers.
        formats: Number formats of the gradients of each.
        device: Where the model is.
    """
    return sum(_whole_bytes(layer, formats[layer.name], device) for layer in layers)


def rounded_bytes(layers: Sequence[TrackedLayer], formats: Formats, device: torch.device) -> int:
    """Bytes of a query that is held rounded, as `rounded` does it.

    Args:
        layers: Tracked layers.
        formats: Number formats of the gradients of each.
        device: Where the model is.
    """
    taken = 0
    for layer in layers:
        if formats[layer.name] == torch.float64:
            taken += _whole_bytes(layer, torch.float64, device)
        else:
            count, width = _runs(layer.inputs)
            taken += layer.outputs * count * (width + torch.bfloat16.itemsize)
    return taken


def _whole_bytes(layer: TrackedLayer, dtype: torch.dtype, device: torch.device) -> int:
    return product_format(dtype, device, layer.parameters).itemsize * layer.parameters


def _format(X_QOI: Tensor) -> torch.dtype:
    """The format that products with gradients [Q, O, I] run in."""
    return product_format(X_QOI.dtype, X_QOI.device, X_QOI.shape[1] * X_QOI.shape[2])


def _runs(inputs: int) -> tuple[int, int]:
    """How many runs a row is cut into, and the values of each: as even as can be, the last one filled up."""
    count = max(1, -(-inputs // RUN))
    return count, -(-inputs // count)
