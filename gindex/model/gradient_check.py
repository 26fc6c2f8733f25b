"""A check of tracked layers' gradients against autograd, on a few documents.

The formula G_n = sum_t g_nt a_nt^T assumes much that a model's modules do not show: that a weight is used nowhere else,
that the output is not changed on its way, that rows of the input are documents in order. One check covers all of it.
Each document gets a weight c_n of its own in one loss, and autograd's gradient of the layer's weights must be sum_n c_n
G_n, with the a and g of a pass as all passes are. Documents that mix, or lie elsewhere than assumed, have the wrong c_n
in it; another use of a weight adds what the formula lacks. Experts of a fused weight are checked as one, against
autograd through the model's own implementation of them.

Axes: N documents, T tokens, I layer inputs, O layer outputs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from gindex.errors import ModelError, NonFiniteError
from gindex.model.capture import append_one, observe
from gindex.model.convolution import Convolution
from gindex.model.inner_linears import ExpertLinears
from gindex.model.layers import TrackedLayer, affine_parameters
from gindex.model.library_messages import first_line
from gindex.model.loss_scaling import FIRST, LAST, STEP
from gindex.model.observer import Observer

Probe = Callable[[int], Tensor]
"""Runs a model on a number of documents and returns its outputs [N, ...]; see `tracking.track_layers`."""

GRADIENT_TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-3}
"""Largest relative difference from autograd's gradient: the same sums in another order, in TF32 at worst."""

COARSE_GRADIENT_TOLERANCE = 3e-2
"""The same in 16 bits, where accelerators also sum gradients of attention in an order that changes with each run."""

CANCELLED = 1e-4
"""Size of a gradient relative to its terms, below which it may be their rounding alone and is judged by their size."""


def wrong_gradients(
    layers: Sequence[TrackedLayer], probe: Probe, documents: int, positions: Set[int] | None = None
) -> dict[str, str]:
    """Return the layers whose gradients are not those of autograd, with the reason; experts by their fused weight.

    Args and errors are those of `gradient_errors`; and

    Args:
        layers: Layers to check.
        probe: Runs the model.
        documents: N.
        positions: How many positions a document may have in a layer; None allows any number. Where documents are
            padded, which positions are real is known of one for each token, or of a single one.
    """
    if not layers:
        return {}
    recorder = _recorded(layers, probe, documents, 1)
    reasons = {} if positions is None else recorder.misplaced(positions)
    errors = _errors(layers, recorder, probe, documents)
    return {name: reason for name, error in errors.items() if (reason := error.reason())} | reasons


@dataclass(frozen=True, kw_only=True)
class GradientError:
    """How far the gradient of a weight and its bias is from autograd's.

    Attributes:
        relative: |found - expected| / |expected|; None where no gradient reaches the layer.
        tolerance: What counts as rounding in the number format of the weight.
    """

    relative: float | None
    tolerance: float

    def reason(self) -> str | None:
        """The reason against the layer, None where its gradient is right."""
        if self.relative is None:
            return "no gradient reaches it"
        if self.relative <= self.tolerance:
            return None
        return (
            f"the gradient of its weights is not the one that its inputs and outputs give, by "
            f"{min(self.relative, 1):.0%}: its weights are used elsewhere too, or documents mix in it"
        )


def gradient_errors(
    layers: Sequence[TrackedLayer], probe: Probe, documents: int, texts: int = 1
) -> dict[str, GradientError]:
    """Compare the layers' gradients with those of autograd; experts are one by their fused weight.

    Weights require gradients meanwhile; one layer's gradient is held at a time.

    Args:
        layers: Layers to check.
        probe: Runs the model.
        documents: N.
        texts: See `observe`.

    Raises:
        ModelError: Autograd can't differentiate the model by these weights, or an operation has no kernel for it.
        NonFiniteError: The model's outputs are not finite.
    """
    if not layers:
        return {}
    return _errors(layers, _recorded(layers, probe, documents, texts), probe, documents)


def _recorded(layers: Sequence[TrackedLayer], probe: Probe, documents: int, texts: int) -> "_Recorder":
    """What a pass shows of the layers."""
    recorder = _Recorder()
    try:
        observe(layers, recorder, documents, lambda: _losses(probe, documents), texts)
    except NotImplementedError as error:
        raise ModelError(
            field="the model",
            expected="operations that can be run and differentiated in its number format on its device",
            found=f"that one cannot ({first_line(error)})",
            remedy="try another `dtype`, as float32",
        ) from error
    return recorder


def _errors(
    layers: Sequence[TrackedLayer], recorder: "_Recorder", probe: Probe, documents: int
) -> dict[str, GradientError]:
    """Compare what was recorded, which is dropped, with autograd's gradients."""
    checks = {
        whole: _GradientCheck([(layer, *recorder.seen.pop(layer.name)) for layer in those])
        for whole, those in _by_weight(layers).items()
    }
    for scale in _scales(layers):
        left = [check for check in checks.values() if not check.is_finite]
        for check in left:
            check.begin(scale)
        if not left:
            break
        with torch.enable_grad(), _needing_gradients(left):
            losses_N = _losses(probe, documents)
            if losses_N.requires_grad:
                _differentiate((losses_N * _weights(losses_N)).sum() * scale)
    return {name: check.error() for name, check in checks.items()}


def _scales(layers: Sequence[TrackedLayer]) -> Sequence[float]:
    """What autograd's loss is multiplied by, until a weight's gradient is finite; 1 where none passes float16."""
    if not any(layer.through_float16 for layer in layers):
        return (1.0,)
    return [2.0**exponent for exponent in range(FIRST, LAST - 1, -STEP)]


def _by_weight(layers: Iterable[TrackedLayer]) -> dict[str, list[TrackedLayer]]:
    found: dict[str, list[TrackedLayer]] = {}
    for layer in layers:
        found.setdefault(layer.whole, []).append(layer)
    return found


def _differentiate(loss: Tensor) -> None:
    try:
        loss.backward()
    except RuntimeError as error:
        raise ModelError(
            field="the model",
            expected="that the weights of its layers have gradients",
            found=f"that autograd fails ({str(error).splitlines()[0][:200]})",
            remedy="leave the layers out that it cannot differentiate, with `untrack`",
        ) from error


def _losses(probe: Probe, documents: int) -> Tensor:
    """Return a loss [N] of each document: the sum of its outputs with a random weight each.

    Their gradients have a norm of about 1, as that of one token's loss: larger ones would overflow in float16.
    """
    outputs = probe(documents)
    if not torch.isfinite(outputs).all():
        raise NonFiniteError(
            field="the model",
            expected=f"finite outputs of {documents} documents that it was tried on",
            found="NaN or infinity",
            remedy="check the model's weights or run with `dtype` float32",
        )
    outputs_NX = outputs.reshape(documents, -1).to(torch.promote_types(outputs.dtype, torch.float32))
    generator = torch.Generator("cpu").manual_seed(0)
    ways = torch.randn(outputs_NX.shape[1], generator=generator, dtype=torch.float32, device="cpu")
    ways /= max(1, len(ways)) ** 0.5
    return outputs_NX @ ways.to(outputs_NX)


def _weights(like_N: Tensor) -> Tensor:
    """Return c [N], powers of two with either sign: a multiplication by them rounds nothing."""
    numbers = torch.arange(len(like_N), device="cpu")
    return (torch.pow(2.0, (numbers // 2 - 2).double()) * (1 - 2 * (numbers % 2))).to(like_N)


@contextmanager
def _needing_gradients(checks: Iterable["_GradientCheck"]) -> Iterator[None]:
    """Let the weights of layers require gradients, which are compared and dropped one by one."""
    handles, parameters = [], []
    for check in checks:
        for parameter in affine_parameters(check.module):
            parameters.append(parameter)
            parameter.requires_grad_(True)
            handles.append(parameter.register_post_accumulate_grad_hook(check.compare))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None


class _Recorder(Observer):
    """Keeps activations (1 appended) and output gradients of every layer."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[Tensor, Tensor]] = {}
        self._routed: set[str] = set()
        self._positions: dict[str, tuple[str, Sequence[int]]] = {}

    def routed(self, layer: TrackedLayer, positions_NT: Tensor) -> None:
        self._routed.add(layer.name)

    def used(self, layer: TrackedLayer, tokens: Sequence[int]) -> None:
        self._positions[layer.name] = layer.whole, tokens

    def misplaced(self, allowed: Set[int]) -> dict[str, str]:
        """The layers that have another number of positions in a use than is allowed, with the reason."""
        tokens = " or ".join(str(number) for number in sorted(allowed - {1}))
        return {
            whole: f"it has {count} positions for a text of {tokens} tokens: which of them are padding is not known"
            for name, (whole, counts) in self._positions.items()
            for count in counts
            if count not in {0, *allowed} and name not in self._routed
        }

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
        return append_one(a_NTI, layer)

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        self.seen[layer.name] = kept, g_NTO
        self._positions.setdefault(layer.name, (layer.whole, [g_NTO.shape[1]]))


class _Terms:
    """The terms of sum_n c_n G_n of one layer: the activations and weighted gradients of M tokens."""

    def __init__(self, layer: TrackedLayer, a_NTI: Tensor, g_NTO: Tensor, dtype: torch.dtype) -> None:
        self.layer = layer
        self.a_MI = a_NTI.flatten(0, 1).to(dtype)
        self.g_MO = (g_NTO.to(dtype) * _weights(g_NTO.new_empty(len(g_NTO), dtype=dtype))[:, None, None]).flatten(0, 1)

    def size(self) -> Tensor:
        """The sum of the terms' norms."""
        sizes: Tensor = torch.linalg.vector_norm(self.a_MI, dim=1) @ torch.linalg.vector_norm(self.g_MO, dim=1)
        return sizes

    def of_weight(self) -> Tensor:
        """The gradient of the weight [O, I]."""
        return self.g_MO.T @ self.a_MI[:, : self.layer.inputs - self.layer.has_bias]

    def of_bias(self) -> Tensor:
        """The gradient of the bias [O]."""
        return self.g_MO.sum(0)


class _GradientCheck:
    """Compares sum_n c_n G_n of one weight and its bias with autograd's gradient."""

    def __init__(self, seen: Sequence[tuple[TrackedLayer, Tensor, Tensor]]) -> None:
        self.module = seen[0][0].module
        self._dtype = next(self.module.parameters()).dtype
        wide = torch.promote_types(self._dtype, torch.float32)
        self._terms = [_Terms(layer, a_NTI, g_NTO, wide) for layer, a_NTI, g_NTO in seen]
        self._left: list[nn.Parameter] = []
        self._scale, self.is_finite = 1.0, False

    def begin(self, scale: float) -> None:
        """Begin to compare with gradients of a loss that is multiplied by a scale."""
        self._scale, self._left = scale, list(affine_parameters(self.module))
        self._differences: list[Tensor] = []
        self._sizes: list[Tensor] = []
        self.is_finite = True

    def compare(self, parameter: Tensor) -> None:
        """Take autograd's gradient of the weight or the bias."""
        if parameter.grad is None:
            return
        gradient, parameter.grad = parameter.grad, None
        if self._scale != 1:
            gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32)).div_(self._scale)
        self._left = [other for other in self._left if other is not parameter]
        for found, expected in self._pairs(parameter, gradient):
            self._differences.append(torch.linalg.vector_norm(found.to(expected.dtype) - expected))
            self._sizes.append(torch.linalg.vector_norm(expected))
        self.is_finite &= bool(torch.isfinite(gradient).all())

    def error(self) -> GradientError:
        """How far the layer's gradient is from autograd's."""
        tolerance = GRADIENT_TOLERANCE.get(self._dtype, COARSE_GRADIENT_TOLERANCE)
        if not any(len(terms.a_MI) for terms in self._terms) and not self._differences:
            return GradientError(relative=None, tolerance=tolerance)
        for parameter in self._left:  # autograd has no gradient for it
            self._differences += [torch.linalg.vector_norm(e) for _, e in self._pairs(parameter, parameter)]
        cancelled = CANCELLED * float(torch.stack([terms.size() for terms in self._terms]).sum())
        difference, size = _norm(self._differences), max(_norm(self._sizes), cancelled)
        error = 0.0 if difference == 0 else difference / size if size else 1.0
        return GradientError(relative=error, tolerance=tolerance)

    def _pairs(self, parameter: Tensor, gradient: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Return the parts of a gradient of the weight or the bias, and what the formula gives for each."""
        is_weight = parameter is affine_parameters(self.module)[0]
        parts = gradient[None]
        if isinstance(self.module, ExpertLinears):
            parts = self.module.by_expert(gradient)
        elif isinstance(self.module, Convolution):
            parts = gradient.unflatten(0, (self.module.groups, -1))
        elif is_weight and isinstance(self.module, Conv1D):
            parts = parts.mT
        for part, terms in zip(parts, self._terms, strict=True):
            expected = terms.of_weight() if is_weight else terms.of_bias()
            yield part.reshape(expected.shape), expected


def _norm(norms: Sequence[Tensor]) -> float:
    """Return the norm of a whole from the norms of its parts."""
    return float(torch.stack(list(norms)).norm()) if norms else 0.0
