"""What sees the layers in a pass, whoever runs it: see `capture`.

Axes: N documents, T tokens (of a convolution: output positions), I layer inputs, O layer outputs.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from gindex.model.layers import TrackedLayer


class Observer(ABC):
    """Sees each tracked layer twice in a pass: with its activations forward, with its output gradients backward."""

    @abstractmethod
    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Any:
        """Take the layer's activations (1 not appended); return what to keep until the backward pass.

        In a checkpointed block, this comes in the backward pass too, right before the layer's gradients.
        """

    def routed(self, layer: TrackedLayer, positions_NT: Tensor) -> None:  # noqa: B027  few observers need it
        """Take the positions in their documents of the tokens that a layer gets, right before its activations.

        Layers that read every token once, in order, have none. Of an expert T is then the most tokens that a document
        of the batch has there; -1 fills up the others' tokens, and their activations and gradients are zero.
        """

    def used(self, layer: TrackedLayer, tokens: Sequence[int]) -> None:  # noqa: B027  few observers need it
        """Take the tokens that each use of a layer reads, right before its activations, which join all uses.

        Other layers than those that `TrackedLayer.is_repeated` have one use, and no call of this.
        """

    def losses(self, losses_N: Tensor) -> None:  # noqa: B027  most observers have no use for them
        """Take the documents' losses, between the forward and the backward pass."""

    @abstractmethod
    def gradients(self, layer: TrackedLayer, kept: Any, g_NTO: Tensor) -> None:
        """Take the layer's output gradients together with what was kept; those that pass float16 come in float32."""


class Chosen(Observer):
    """Shows an observer some of the layers of a pass, which is the pass, to the bit, in which it sees all."""

    def __init__(self, observer: Observer, names: Collection[str]) -> None:
        """Show `observer` the layers of these names."""
        self._observer, self._names = observer, names

    def routed(self, layer: TrackedLayer, positions_NT: Tensor) -> None:
        """Show the positions of a chosen layer's tokens."""
        if layer.name in self._names:
            self._observer.routed(layer, positions_NT)

    def used(self, layer: TrackedLayer, tokens: Sequence[int]) -> None:
        """Show the tokens of each use of a chosen layer."""
        if layer.name in self._names:
            self._observer.used(layer, tokens)

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Any:
        """Show a chosen layer's activations; of the others nothing is kept."""
        return self._observer.activations(layer, a_NTI) if layer.name in self._names else None

    def losses(self, losses_N: Tensor) -> None:
        """Show the losses."""
        self._observer.losses(losses_N)

    def gradients(self, layer: TrackedLayer, kept: Any, g_NTO: Tensor) -> None:
        """Show a chosen layer's output gradients."""
        if layer.name in self._names:
            self._observer.gradients(layer, kept, g_NTO)


class Uses(Observer):
    """Gathers the uses of layers that may have several in a pass, which an observer sees as one at its end."""

    def __init__(self) -> None:
        """Begin with none."""
        self._found: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
        """Keep the activations of a use."""
        return a_NTI

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        """Keep the gradients of a use with them."""
        self._found.setdefault(layer.name, []).append((kept, g_NTO))

    def taken(self, layers: Iterable[TrackedLayer]) -> Iterator[tuple[TrackedLayer, list[int], Tensor, Tensor]]:
        """Each layer that was used, the tokens of each use, and activations and gradients of all, which are let go."""
        for layer in layers:
            if uses := self._found.pop(layer.name, None):
                a_NTI, g_NTO = (torch.cat(side, 1) for side in zip(*uses, strict=True))
                yield layer, [g.shape[1] for _, g in uses], a_NTI, g_NTO
