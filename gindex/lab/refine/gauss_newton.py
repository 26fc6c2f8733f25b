"""Products with the Gauss-Newton matrix of the tracked weights, without ever forming it.

With J the Jacobian of a document's outputs in the weights and H the Hessian of its loss in the outputs, the matrix is
the mean over documents of J^T H J. EK-FAC approximates it: its Lambda is a mean over documents, of the summed loss
of each. One product is a forward pass that carries J v along and a backward pass from H J v; where an operation has no
forward derivative, J v comes from a pass of its own with two backward passes.

Axes: Q vectors, W tracked weights, N documents, T tokens, I layer inputs, O layer outputs.
"""

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from gindex.curvature.fit import DocumentBatch
from gindex.errors import ConfigError, NonFiniteError
from gindex.lab.refine.tangents import outputs_and_tangent, tangent_by_reverse
from gindex.model.capture import append_one, observe
from gindex.model.layers import TrackedLayer
from gindex.model.losses import OutputTask
from gindex.model.observer import Observer
from gindex.vectors.influence import WeightSpace

Batch = TypeVar("Batch", bound=DocumentBatch)

DENSE_WEIGHTS = 8192
"""Most weights of a matrix that is formed: half a gigabyte in float64."""


class Curvature(Protocol):
    """A positive semidefinite matrix [W, W] that vectors can be multiplied with."""

    def product(self, v_QW: Tensor) -> Tensor:
        """The matrix times each vector [Q, W]."""
        ...


class GaussNewton(Generic[Batch]):
    """The Gauss-Newton matrix of some documents: `Curvature`.

    Attributes:
        space: The tracked weights as one axis.
        batches: The batches of documents.
        documents: How many there are in all.
    """

    def __init__(
        self,
        layers: Sequence[TrackedLayer],
        task: OutputTask[Batch],
        batches: Sequence[Batch],
        done: Callable[[int], None] = lambda _documents: None,
    ) -> None:
        """Compute nothing yet.

        Args:
            layers: Tracked layers.
            task: The model with its loss.
            batches: Batches of documents, at least one.
            done: Called with the number of documents after each batch of each product.

        Raises:
            ConfigError: The model is in float16, whose range derivatives along a direction leave.
        """
        if any(layer.through_float16 for layer in layers):
            raise ConfigError(
                field="refine",
                expected="a model in float32 or bfloat16, for Gauss-Newton products",
                found="one in float16",
                remedy="leave `refine` out, or build with `dtype` bfloat16 or float32",
            )
        self.space, self.batches = WeightSpace(layers), batches
        self.documents = sum(len(batch.ordinals) for batch in batches)
        self._layers, self._task, self._done = layers, task, done
        self._forward = True

    def product(self, v_QW: Tensor) -> Tensor:
        """The matrix times each vector [Q, W].

        Raises:
            NonFiniteError: See `batch_product`.
        """
        total_QW = torch.zeros_like(v_QW)
        for number in range(len(self.batches)):
            total_QW.add_(self.batch_product(v_QW, number), alpha=1 / len(self.batches))
        return total_QW

    def batch_product(self, v_QW: Tensor, number: int) -> Tensor:
        """One batch's part of the matrix, times the number of batches, times each vector [Q, W].

        The mean over the batches is the matrix, however many documents each has.

        Args:
            v_QW: The vectors.
            number: Which batch.

        Raises:
            NonFiniteError: A document's outputs are not finite, or don't change finitely.
        """
        batch, result_QW = self.batches[number], torch.empty_like(v_QW)
        for v_1W, result_1W in zip(v_QW.split(1), result_QW.split(1), strict=True):
            self._one(batch, v_1W, result_1W)
            self._done(len(batch.ordinals))
        return result_QW

    def _one(self, batch: Batch, v_1W: Tensor, result_1W: Tensor) -> None:
        directions = {name: V_1OI[0] for name, V_1OI in self.space.split(v_1W).items()}
        if self._forward:
            try:
                self._pull(
                    batch, result_1W, lambda: outputs_and_tangent(self._layers, directions, self._outputs(batch))
                )
                return
            except NotImplementedError:
                self._forward = False
        tangent = tangent_by_reverse(self._layers, directions, self._outputs(batch))
        self._pull(batch, result_1W, lambda: (self._task.outputs(batch), tangent))

    def _outputs(self, batch: Batch) -> Callable[[], Tensor]:
        return lambda: self._task.outputs(batch)

    def _pull(self, batch: Batch, result_1W: Tensor, run: Callable[[], tuple[Tensor, Tensor]]) -> None:
        """Write J^T H J v, by a backward pass from H J v; `run` gives the outputs and J v."""
        share = len(self.batches) / self.documents

        def losses() -> Tensor:
            outputs, tangent = run()
            pulled = self._task.output_hessian(outputs.detach(), tangent)
            if not torch.isfinite(pulled).all():
                raise NonFiniteError(
                    field="Gauss-Newton product",
                    expected=f"finite outputs of documents {batch.ordinals.tolist()[:5]}...",
                    found="NaN or infinity",
                    remedy="leave such documents out, or run with `dtype` float32",
                )
            return (outputs * (pulled * share)).sum()[None]  # its backward pass starts from H J v

        sums = {name: part[0] for name, part in self.space.split(result_1W).items()}
        observe(self._layers, _SumObserver(sums), len(batch.ordinals), losses, batch.texts)


class _SumObserver(Observer):
    """Writes each layer's gradient, summed over documents and tokens, to where it belongs."""

    def __init__(self, sums: dict[str, Tensor]) -> None:
        self._sums = sums
        for total in sums.values():
            total.zero_()  # a layer behind which nothing is differentiable is never called back

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
        return append_one(a_NTI, layer)

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        G_OI = g_NTO.flatten(0, 1).T @ kept.flatten(0, 1).to(g_NTO.dtype)
        self._sums[layer.name].copy_(G_OI)


def dense_matrix(curvature: Curvature, weights: int, like: Tensor) -> Tensor:
    """Form the matrix [W, W] by products with unit vectors.

    Args:
        curvature: The curvature.
        weights: W.
        like: A tensor of the number format and on the device to work in.

    Raises:
        ConfigError: There are too many weights.
    """
    if weights > DENSE_WEIGHTS:
        raise ConfigError(
            field="dense Gauss-Newton matrix",
            expected=f"at most {DENSE_WEIGHTS:,} tracked weights",
            found=f"{weights:,}",
            remedy="take conjugate gradients",
        )
    matrix_WW = curvature.product(torch.eye(weights, dtype=like.dtype, device=like.device))
    return (matrix_WW + matrix_WW.T) / 2
