"""Whether the gradients of tracked layers are those of autograd, seen on a few documents.

The formula G_n = sum_t g_nt a_nt^T rests on much that a look at the model cannot tell: that a weight is used nowhere
else, that the output is not changed on its way, that rows of the input are documents in order. All of it is proved at
once. Each document gets a weight c_n of its own in one loss, and autograd's gradient of the layer's weights must be
sum_n c_n G_n, with the a and g of a pass as all passes are. Documents that mix, or lie elsewhere than assumed, have the
wrong c_n in it; another use of a weight adds what the formula lacks.

Axes: N documents, T tokens, I layer inputs, O layer outputs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from gindex.errors import ModelError, NonFiniteError
from gindex.model.capture import Observer, append_one, observe
from gindex.model.layers import TrackedLayer, affine_parameters

Probe = Callable[[int], Tensor]
"""Runs a model on a number of documents and returns its outputs [N, ...]; see `tracking.track_layers`."""

GRADIENT_TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-3}
"""How far a gradient may be from autograd's, relative: the same sums in another order, in TF32 at worst.
In 16 bits, accelerators also add up what flows back through attention in an order of the moment."""
COARSE_GRADIENT_TOLERANCE = 3e-2

CANCELLED = 1e-4
"""Share of its terms' sizes below which a gradient is taken for what their rounding leaves, and judged by them."""


def disproved(layers: Sequence[TrackedLayer], probe: Probe, documents: int) -> dict[str, str]:
    """Return the layers whose gradients are not those of autograd, with the reason.

    Weights need gradients meanwhile, one layer's of which is held at a time.

    Args:
        layers: Layers to prove.
        probe: Runs the model.
        documents: N.

    Raises:
        ModelError: Autograd can't differentiate the model by these weights.
        NonFiniteError: The model's outputs are not finite.
    """
    if not layers:
        return {}
    recorder = _Recorder()
    observe(layers, recorder, documents, lambda: _losses(probe, documents))
    proofs = {layer.name: _Proof(layer, *recorder.seen[layer.name]) for layer in layers}
    with torch.enable_grad(), _needing_gradients(proofs.values()):
        losses_N = _losses(probe, documents)
        if losses_N.requires_grad:
            _differentiate((losses_N * _weights(losses_N)).sum())
    return {name: reason for name, proof in proofs.items() if (reason := proof.reason())}


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
    """Return a loss [N] of each document that all its outputs take part in, each in its own way.

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
    """Return c [N], powers of two with either sign: what is multiplied by them is rounded as it was before."""
    numbers = torch.arange(len(like_N), device="cpu")
    return (torch.pow(2.0, (numbers // 2 - 2).double()) * (1 - 2 * (numbers % 2))).to(like_N)


@contextmanager
def _needing_gradients(proofs: Iterable["_Proof"]) -> Iterator[None]:
    """Let the weights of layers need gradients, which are compared and dropped one by one."""
    handles, parameters = [], []
    for proof in proofs:
        for parameter in affine_parameters(proof.layer.module):
            parameters.append(parameter)
            parameter.requires_grad_(True)
            handles.append(parameter.register_post_accumulate_grad_hook(proof.compare))
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

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
        return append_one(a_NTI, layer)

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        self.seen[layer.name] = kept, g_NTO


class _Proof:
    """Compares sum_n c_n G_n of one layer with autograd's gradient."""

    def __init__(self, layer: TrackedLayer, a_NTI: Tensor, g_NTO: Tensor) -> None:
        self.layer = layer
        self._dtype = next(layer.module.parameters()).dtype
        wide = torch.promote_types(self._dtype, torch.float32)
        self._a_MI = a_NTI.flatten(0, 1).to(wide)
        self._g_MO = (g_NTO.to(wide) * _weights(g_NTO.new_empty(len(g_NTO), dtype=wide))[:, None, None]).flatten(0, 1)
        self._left = list(affine_parameters(layer.module))
        self._differences: list[Tensor] = []
        self._sizes: list[Tensor] = []

    def compare(self, parameter: Tensor) -> None:
        """Take autograd's gradient of the weight or the bias."""
        if parameter.grad is None:
            return
        found, expected = parameter.grad.to(self._a_MI.dtype), self._formula(parameter)
        parameter.grad = None
        self._left = [other for other in self._left if other is not parameter]
        self._differences.append(torch.linalg.vector_norm(found.reshape(expected.shape).sub_(expected)))
        self._sizes.append(torch.linalg.vector_norm(expected))

    def reason(self) -> str | None:
        """Say what speaks against the layer, None where nothing does."""
        if not len(self._a_MI) and not self._differences:
            return "no gradient reaches it"
        for parameter in self._left:  # autograd has no gradient for it
            self._differences.append(torch.linalg.vector_norm(self._formula(parameter)))
        terms = (self._a_MI.norm(dim=1) * self._g_MO.norm(dim=1)).sum()
        difference, size = _norm(self._differences), max(_norm(self._sizes), CANCELLED * float(terms))
        error = 0.0 if difference == 0 else difference / size if size else 1.0
        if error <= GRADIENT_TOLERANCE.get(self._dtype, COARSE_GRADIENT_TOLERANCE):
            return None
        return (
            f"the gradient of its weights is not the one that its inputs and outputs give, by {min(error, 1):.0%}: its "
            "weights are used elsewhere too, or documents mix in it"
        )

    def _formula(self, parameter: Tensor) -> Tensor:
        """Return sum_n c_n G_n of the weight, in the weight's own order of axes, or of the bias."""
        weight, *_ = affine_parameters(self.layer.module)
        if parameter is not weight:
            return self._g_MO.sum(0)
        a_MI = self._a_MI[:, : self.layer.inputs - self.layer.has_bias]
        return a_MI.T @ self._g_MO if isinstance(self.layer.module, Conv1D) else self._g_MO.T @ a_MI


def _norm(norms: Sequence[Tensor]) -> float:
    """Return the norm of a whole by those of its parts."""
    return float(torch.stack(list(norms)).norm()) if norms else 0.0
