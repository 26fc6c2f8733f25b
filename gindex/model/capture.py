"""The only hooks: what a tracked layer read, the gradient of what it wrote, and how that changes along its weights.

Weights stay frozen, so no weight gradient is ever formed. A layer whose inputs need no gradient gets its output made a
leaf, which also ends the backward pass at the first tracked layer.

Axes: N documents, T tokens (of a convolution: output positions), I layer inputs, O layer outputs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from gindex.errors import ShapeError
from gindex.model.checkpointing import is_checkpointed, keep
from gindex.model.convolution import patches, positions_last
from gindex.model.layers import TrackedLayer, layer_input
from gindex.model.passes import alone, own
from gindex.progress import pause, undisturbed
from gindex.threads import Lock

_tangents = Lock()
"""Forward differentiation and the choice of a kernel belong to the whole process, so one thread at a time has them."""


class Observer(ABC):
    """Sees each tracked layer twice in a pass: going forward, and coming back."""

    @abstractmethod
    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Any:
        """Take the layer's activations (1 not appended); return what to keep until the backward pass.

        In a checkpointed block, this comes in the backward pass too, right before the layer's gradients.
        """

    def losses(self, losses_N: Tensor) -> None:  # noqa: B027  most observers need not know
        """Take the documents' losses, between the forward and the backward pass."""

    @abstractmethod
    def gradients(self, layer: TrackedLayer, kept: Any, g_NTO: Tensor) -> None:
        """Take the layer's output gradients together with what was kept."""


def observe(layers: Sequence[TrackedLayer], observer: Observer, documents: int, losses: Callable[[], Tensor]) -> Tensor:
    """Run one forward and backward pass under an observer, alone and in a neutral state: see `passes`.

    Args:
        layers: Layers to observe.
        observer: Called back for each of them, forward and backward.
        documents: N, the number of documents in the batch.
        losses: Runs the model and returns the summed loss [N] of each document, in nats.

    Returns:
        The losses [N], detached.

    Raises:
        ShapeError: A layer's first axis is not the document axis.
    """
    with alone(layers[0].module), _hooks(layers, observer, documents):
        losses_N = losses()
        observer.losses(losses_N.detach())
        if losses_N.requires_grad:
            losses_N.sum().backward()
    return losses_N.detach()


@contextmanager
def _hooks(layers: Sequence[TrackedLayer], observer: Observer, documents: int) -> Iterator[None]:
    handles = [
        layer.module.register_forward_hook(own(_forward_hook(layer, observer, documents)), with_kwargs=True)
        for layer in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _forward_hook(
    layer: TrackedLayer, observer: Observer, documents: int
) -> Callable[[nn.Module, tuple[Tensor, ...], dict[str, Tensor], Tensor], Tensor]:
    def forward(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor) -> Tensor:
        pause()
        a = layer_input(args, kwargs).detach()
        if a.shape[0] != documents:
            raise ShapeError(
                f"{layer.name}: expected activations of {documents} documents, found shape {tuple(a.shape)}; "
                "the layer mixes documents and cannot be tracked"
            )
        load = _keep(layer, observer, a, documents)

        def backward(g: Tensor) -> None:
            pause()  # on an accelerator another thread comes here, which must never stand still
            g = positions_last(g) if isinstance(layer.module, nn.Conv2d) else g
            observer.gradients(layer, load(), g.detach().reshape(documents, -1, g.shape[-1]))

        if output.requires_grad:
            output.register_hook(backward)
            return output
        leaf = output.requires_grad_(True)
        leaf.register_hook(backward)
        return leaf.clone()  # what follows may work in place, which a leaf does not allow

    return forward


def _keep(layer: TrackedLayer, observer: Observer, a: Tensor, documents: int) -> Callable[[], Any]:
    """Return what gives the observer's view of the activations; of a checkpointed block, once they are there again."""
    if is_checkpointed():
        take = keep(a)
        return lambda: observer.activations(layer, _by_position(layer, take(), documents))
    kept = observer.activations(layer, _by_position(layer, a, documents))
    return lambda: kept


def _by_position(layer: TrackedLayer, x: Tensor, documents: int) -> Tensor:
    """Return a layer's input as [N, T, I]: T tokens, patches, or 1 where a document has one row."""
    if isinstance(layer.module, nn.Conv2d):
        x = patches(layer.module, x)
    return x.reshape(documents, -1, x.shape[-1])


def append_one(a_NTI: Tensor, layer: TrackedLayer) -> Tensor:
    """Append the constant 1 of the bias to activations [..., I - 1] where the layer has one."""
    if not layer.has_bias:
        return a_NTI
    return torch.cat([a_NTI, a_NTI.new_ones(*a_NTI.shape[:-1], 1)], dim=-1)


def outputs_and_tangent(
    layers: Sequence[TrackedLayer], directions: Mapping[str, Tensor], outputs: Callable[[], Tensor]
) -> tuple[Tensor, Tensor]:
    """Run a model and differentiate its outputs along a direction of the weights, in one forward pass.

    Args:
        layers: Tracked layers.
        directions: V [O, I] by layer name, the bias last.
        outputs: Runs the model and returns its outputs, of any shape.

    Returns:
        The outputs, differentiable, and J v, their derivative along the direction, of the same shape.
    """
    # Only the plain attention can be differentiated forward, and it is chosen for all threads.
    with undisturbed(), _tangents, forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
        handles = [
            layer.module.register_forward_hook(own(_tangent_hook(layer, directions[layer.name])), with_kwargs=True)
            for layer in layers
        ]
        try:
            dual = forward_ad.unpack_dual(outputs())
        finally:
            for handle in handles:
                handle.remove()
        tangent = torch.zeros_like(dual.primal) if dual.tangent is None else dual.tangent
        return dual.primal, tangent.detach().clone()


def _tangent_hook(
    layer: TrackedLayer, V_OI: Tensor
) -> Callable[[nn.Module, tuple[Tensor, ...], dict[str, Tensor], Tensor], Tensor]:
    def forward(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor) -> Tensor:
        a = layer_input(args, kwargs).detach()
        a_NTI = append_one(_by_position(layer, a, len(a)), layer)
        change_NTO = a_NTI @ V_OI.to(a_NTI.dtype).T
        change = change_NTO.mT if isinstance(layer.module, nn.Conv2d) else change_NTO
        dual = forward_ad.make_dual(torch.zeros_like(output), change.reshape(output.shape).to(output.dtype))
        changed: Tensor = output + dual
        return changed

    return forward
