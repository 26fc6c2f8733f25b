"""Preconditioned gradients of queries as they are held while documents pass: whole, or rounded to half the bytes.

A row is rounded to float16 after division by its largest magnitude, so that no value over- or underflows. A value has
11 significant bits left: it is off by at most 2^-11 of itself, or 2^-25 of the largest of its row where that is more.
So a layer's influence is off by at most the sum over its weights of that times |G_d|. Errors of many weights cancel:
docs/decisions/0017-held-queries.md says what is left, and why the gradients are not held as factors of low rank.

Axes: Q queries, O layer outputs, I layer inputs.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from gindex.model.layers import TrackedLayer
from gindex.model.number_formats import Formats

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
        """Number format of what is read."""
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
    """Gradients [Q, O, I] rounded to float16, with a scale for each row."""

    def __init__(self, rounded_QOI: Tensor, scales_QO1: Tensor) -> None:
        """Take the rounded values, and what each row is multiplied by."""
        self._rounded, self._scales = rounded_QOI, scales_QO1

    @classmethod
    def of(cls, X_QOI: Tensor) -> "RoundedGradients":
        """Round gradients [Q, O, I]."""
        scales_QO1 = X_QOI.abs().amax(2, keepdim=True)
        divisors_QO1 = torch.where(scales_QO1 == 0, 1.0, scales_QO1)
        return cls((X_QOI / divisors_QO1).to(torch.float16), scales_QO1)

    @classmethod
    def joined(cls, parts: Sequence["RoundedGradients"]) -> "RoundedGradients":
        """The queries of all parts, in their order."""
        return cls(torch.cat([part._rounded for part in parts]), torch.cat([part._scales for part in parts]))

    @property
    def shape(self) -> torch.Size:
        """Q, O, I."""
        return self._rounded.shape

    @property
    def dtype(self) -> torch.dtype:
        """Number format of what is read."""
        return self._scales.dtype

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self._rounded.device

    def __getitem__(self, index: Index) -> Tensor:
        """A part of them: [O, I] of a query, [Q, O, I] of some."""
        return self._rounded[index].to(self.dtype) * self._scales[index]


def whole(X_QOI: Tensor) -> Tensor:
    """Hold gradients [Q, O, I] as they are."""
    return X_QOI


def joined(parts: list[dict[str, HeldGradients]]) -> dict[str, HeldGradients]:
    """The queries of all parts by layer name, in their order; the parts are emptied, a layer at a time."""
    if len(parts) == 1:
        return parts[0]
    return {name: _joined([part.pop(name) for part in parts]) for name in list(parts[0])}


def _joined(parts: list[HeldGradients]) -> HeldGradients:
    rounded = [part for part in parts if isinstance(part, RoundedGradients)]
    if rounded:
        return RoundedGradients.joined(rounded)
    return torch.cat([part for part in parts if isinstance(part, Tensor)])


def rounded(X_QOI: Tensor) -> HeldGradients:
    """Hold gradients [Q, O, I] of float32 rounded; others have no bits to spare, or are chosen for them."""
    return RoundedGradients.of(X_QOI) if X_QOI.dtype == torch.float32 else X_QOI


def whole_bytes(layers: Sequence[TrackedLayer], formats: Formats) -> int:
    """Bytes of a query that is held whole, in the number formats of its layers."""
    return sum(formats[layer.name].itemsize * layer.parameters for layer in layers)


def rounded_bytes(layers: Sequence[TrackedLayer], formats: Formats) -> int:
    """Bytes of a query that is held rounded."""
    narrow = [layer for layer in layers if formats[layer.name] == torch.float32]
    spared = sum(2 * layer.parameters - 4 * layer.outputs for layer in narrow)
    return whole_bytes(layers, formats) - spared
