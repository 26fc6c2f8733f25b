"""Derivatives of a model's outputs along a direction of the tracked weights, which Gauss-Newton products need.

Axes: N documents, T tokens (of a convolution: output positions), I layer inputs, O layer outputs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from gindex.errors import ModelError
from gindex.model.capture import append_one, by_module, by_position, channels
from gindex.model.convolution import Convolution
from gindex.model.expansion import OwnParameter, present_expansion
from gindex.model.inner_linears import ExpertLinears, opened
from gindex.model.isolation import alone, own
from gindex.model.layers import TrackedLayer, layer_input
from gindex.model.tables import Table
from gindex.progress import undisturbed
from gindex.thread_safety import Lock

_tangents = Lock()
"""Forward differentiation and the choice of a kernel hold for the whole process: one thread at a time uses them."""

PASS_ERROR = 1e-3
"""Largest relative difference of two passes in float32 that counts as rounding: sums over all outputs round to 1e-6."""


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

    Raises:
        NotImplementedError: An operation of the model has no forward derivative: see `tangent_by_reverse`.
    """

    def joined(output: Tensor, change: Tensor) -> Tensor:
        changed: Tensor = output + forward_ad.make_dual(torch.zeros_like(output), change)
        return changed

    # Only the plain attention can be differentiated forward, and it is chosen for all threads.
    with (
        undisturbed(),
        _tangents,
        forward_ad.dual_level(),
        sdpa_kernel(SDPBackend.MATH),
        _changed_outputs(layers, directions, joined),
    ):
        dual = forward_ad.unpack_dual(outputs())
        tangent = torch.zeros_like(dual.primal) if dual.tangent is None else dual.tangent
        return dual.primal, tangent.detach().clone()


def tangent_by_reverse(
    layers: Sequence[TrackedLayer], directions: Mapping[str, Tensor], outputs: Callable[[], Tensor]
) -> Tensor:
    """Return J v by backward passes, where operations of the model (fused experts) have no forward derivative.

    With a step e along v, the first gives <u, d outputs / de> for a u that stays a variable; it is linear in u, and the
    second differentiates it by u. A third, of the first kind, must give <J v, J v>: what can be differentiated only
    once silently drops out of the second. No observer may be active: none of these starts from a loss.

    Args:
        layers: Tracked layers.
        directions: V [O, I] by layer name, the bias last.
        outputs: Runs the model and returns its outputs, of any shape.

    Raises:
        ModelError: An operation of the model can be differentiated only once.
    """
    weights = next(layers[0].module.parameters())
    # Only the plain attention can be differentiated twice, and it is chosen for all threads.
    with alone(layers[0].place), undisturbed(), _tangents, sdpa_kernel(SDPBackend.MATH):
        dtype = torch.promote_types(weights.dtype, torch.float32)
        step = torch.zeros((), dtype=dtype, device=weights.device, requires_grad=True)
        with _changed_outputs(layers, directions, lambda output, change: output + step * change):
            output = outputs()
        u = torch.zeros_like(output, requires_grad=True)
        try:
            (along,) = torch.autograd.grad(output, step, u, create_graph=True)
            (tangent,) = torch.autograd.grad(along, u)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # NotImplementedError is one
            raise _differentiable_once(str(error).partition("\n")[0]) from error
        tangent = tangent.detach()
        (again,) = torch.autograd.grad(output, step, tangent)
    expected = float(tangent.double().square().sum())
    if abs(float(again) - expected) > max(PASS_ERROR, 16 * torch.finfo(weights.dtype).eps) * expected:
        raise _differentiable_once(f"two passes give {float(again):.6g} and {expected:.6g} for one number")
    return tangent


def _differentiable_once(found: str) -> ModelError:
    return ModelError(
        field="Gauss-Newton product",
        expected="a model that can be differentiated twice",
        found=f"one that cannot ({found})",
        remedy="leave refining out, or load the model without kernels of its own",
    )


@contextmanager
def _changed_outputs(
    layers: Sequence[TrackedLayer], directions: Mapping[str, Tensor], joined: Callable[[Tensor, Tensor], Tensor]
) -> Iterator[None]:
    """Replace each layer's output by `joined(output, change)`, where a step along the direction adds the change.

    A parameter that is a layer by itself, or a lookup table, is replaced in the same way.
    """
    tables = {layer.name: layer.module.weight for layer in layers if isinstance(layer.module, Table)}
    parameters = {layer.name: layer.module.weight for layer in layers if isinstance(layer.module, OwnParameter)}
    weights = tables | parameters

    def move(name: str, x: Tensor) -> Tensor:
        change = directions[name].reshape(weights[name].shape).to(x.dtype)
        return joined(x, change.expand(x.shape).contiguous())

    with ExitStack() as stack:
        expansion = present_expansion() if parameters else None
        if expansion is not None:  # a pass that takes the gradients of parameters has copies of them
            stack.enter_context(expansion.moved(move))
        moved = weights if expansion is None else tables
        if moved:
            stack.enter_context(_Moved({id(weight): move(name, weight) for name, weight in moved.items()}))
        stack.enter_context(opened(layer.module for layer in layers))
        for those in by_module(layer for layer in layers if not isinstance(layer.module, OwnParameter | Table)):
            hook = own(_change_hook(those, directions, joined))
            for module in (those[0].module, *those[0].copies):
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        yield


class _Moved(TorchFunctionMode):
    """Runs a model with other tensors in the place of some of its parameters, by their identity."""

    def __init__(self, moved: Mapping[int, Tensor]) -> None:
        super().__init__()
        self._moved = moved

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        args, kwargs = tree_map(lambda x: self._moved.get(id(x), x), (args, kwargs or {}))
        return func(*args, **kwargs)


def _change_hook(
    layers: Sequence[TrackedLayer], directions: Mapping[str, Tensor], joined: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Tensor], Tensor]:
    def change_of(layer: TrackedLayer, a: Tensor) -> Tensor:
        return append_one(a, layer) @ directions[layer.name].to(a.dtype).T

    def forward(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        a = layer_input(args, kwargs).detach()
        if isinstance(module, ExpertLinears):
            tokens = a.split(list(args[1].sizes))
            change = torch.cat([change_of(layer, tokens[layer.expert or 0]) for layer in layers])
        else:
            a_NTX = by_position(layers[0], a, len(a))
            change = torch.cat([change_of(layer, channels(layer, a_NTX)) for layer in layers], -1)
            change = change.mT if isinstance(module, Convolution) else change
        return joined(output, change.reshape(output.shape).to(output.dtype))

    return forward
