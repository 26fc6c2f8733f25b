"""Tasks beyond language modelling: classification and regression with any torch module.

Both see the model as a function to outputs [N, V] and differ in what the outputs mean: the loss, how labels are sampled
from it, and its Hessian, which Gauss-Newton products need.

Axes: N documents, V classes or values.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gindex.errors import LabelError, ModelError, ShapeError
from gindex.model.devices import to_device
from gindex.model.losses import sample_labels, softmax_hessian
from gindex.model.tensors import Inputs, TensorBatch


class TensorTask(ABC):
    """A module with a loss of its outputs: `OutputTask[TensorBatch]`."""

    def __init__(self, model: nn.Module) -> None:
        """Wrap a module; its weights are frozen, and dropout and batch statistics are off.

        Args:
            model: Returns outputs [N, V] (or [N] for one value), or an object that has them as `logits`, as the
                sequence classifiers of transformers do. It is called with the inputs of a batch.

        Raises:
            ModelError: Weights were made in `torch.inference_mode()`.
        """
        if any(weight.is_inference() for weight in model.parameters()):
            raise ModelError(
                field=type(model).__name__,
                expected="weights that gradients pass",
                found="some that were made in torch.inference_mode()",
                remedy="make the model outside of it, or give a copy.deepcopy made outside",
            )
        self.model = model.requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        """Device of the model's weights."""
        return next(self.model.parameters()).device

    def run(self, inputs: Inputs) -> Tensor:
        """Return the outputs [N, V], float32 or wider.

        Raises:
            ModelError: The model returns something else than one row of outputs for each document.
        """
        if isinstance(inputs, Mapping):
            returned = self.model(**{name: self._input(x) for name, x in inputs.items()})
        else:
            returned = self.model(self._input(inputs))
        outputs = getattr(returned, "logits", returned)
        if not isinstance(outputs, Tensor) or outputs.dim() not in (1, 2):
            found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ModelError(
                field=type(self.model).__name__,
                expected="outputs of shape [documents, values]",
                found=found,
                remedy="wrap the model in a module that returns them",
            )
        outputs = outputs[:, None] if outputs.dim() == 1 else outputs
        return outputs.to(torch.promote_types(outputs.dtype, torch.float32))

    def _input(self, x: Tensor) -> Tensor:
        return _usable(x).to(self.device)

    def outputs(self, batch: TensorBatch) -> Tensor:
        """Return the outputs [N, V], differentiable."""
        return self.run(batch.inputs)

    @abstractmethod
    def losses(self, batch: TensorBatch) -> Tensor:
        """Return the loss [N] of each document with the data's labels, in nats."""

    @abstractmethod
    def sampled_losses(self, batch: TensorBatch, seeds: Sequence[int]) -> Tensor:
        """Return the loss [N] with labels sampled from the model, one seed [N] a document."""

    @abstractmethod
    def output_hessian(self, outputs_NV: Tensor, v_NV: Tensor) -> Tensor:
        """Return the Hessian of the loss in the outputs times v [N, V]."""


class Classification(TensorTask):
    """One class for each document; outputs are logits, the loss is the cross-entropy in nats."""

    def losses(self, batch: TensorBatch) -> Tensor:
        """Return the cross-entropy [N] of the labels.

        Raises:
            LabelError: A label is not one of the model's classes.
        """
        outputs_NV = self.outputs(batch)
        return F.cross_entropy(outputs_NV, _classes(batch, outputs_NV), reduction="none")

    def sampled_losses(self, batch: TensorBatch, seeds: Sequence[int]) -> Tensor:
        """Return the cross-entropy [N] of labels drawn from the model."""
        outputs_NV = self.outputs(batch)
        drawn = np.array([np.random.Generator(np.random.Philox(seed)).random(dtype=np.float32) for seed in seeds])
        labels_N = sample_labels(outputs_NV.detach().softmax(1), to_device(drawn, self.device))
        return F.cross_entropy(outputs_NV, labels_N, reduction="none")

    def output_hessian(self, outputs_NV: Tensor, v_NV: Tensor) -> Tensor:
        """Return (diag(p) - p p^T) v [N, V]."""
        return softmax_hessian(outputs_NV, v_NV)


class Regression(TensorTask):
    """Values for each document; outputs are the means of Gaussians of unit variance.

    The loss is half the squared error, the negative log-likelihood in nats but for a constant. Scale the values so that
    their noise is about 1, or read damping as relative to it: it is a multiple of the curvature's own mean.
    """

    def losses(self, batch: TensorBatch) -> Tensor:
        """Return half the squared error [N].

        Raises:
            LabelError: A value is not finite.
            ShapeError: There are more or fewer values than outputs.
        """
        outputs_NV = self.outputs(batch)
        return _half_squares(outputs_NV - _values(batch, outputs_NV))

    def sampled_losses(self, batch: TensorBatch, seeds: Sequence[int]) -> Tensor:
        """Return half the squared error [N] of the outputs with noise as labels."""
        outputs_NV = self.outputs(batch)
        noise = [np.random.Generator(np.random.Philox(seed)).standard_normal(outputs_NV.shape[1]) for seed in seeds]
        labels_NV = outputs_NV.detach() + torch.from_numpy(np.stack(noise)).to(outputs_NV)
        return _half_squares(outputs_NV - labels_NV)

    def output_hessian(self, outputs_NV: Tensor, v_NV: Tensor) -> Tensor:
        """Return v [N, V]: the Hessian is the identity."""
        del outputs_NV
        return v_NV


def _usable(x: Tensor) -> Tensor:
    """Return a tensor that autograd may keep, which it may not if that was made in inference mode."""
    return x.clone() if x.is_inference() else x


def _half_squares(error_NV: Tensor) -> Tensor:
    return error_NV.square().sum(1) / 2


def _classes(batch: TensorBatch, outputs_NV: Tensor) -> Tensor:
    labels_N, classes = _usable(batch.labels).to(outputs_NV.device), outputs_NV.shape[1]
    if labels_N.shape != outputs_NV.shape[:1] or labels_N.dtype.is_floating_point:
        raise ShapeError(
            field="labels",
            expected=f"one whole number for each of {len(outputs_NV)} documents",
            found=f"shape {tuple(labels_N.shape)} of {labels_N.dtype}",
        )
    bad = torch.nonzero((labels_N < 0) | (labels_N >= classes))[:, 0]
    if len(bad):
        raise LabelError(
            field=f"document {batch.ordinals[int(bad[0])]}",
            expected=f"a label from 0 to {classes - 1}, the model's classes",
            found=int(labels_N[bad[0]]),
            remedy="correct the label or leave the document out",
        )
    return labels_N.long()


def _values(batch: TensorBatch, outputs_NV: Tensor) -> Tensor:
    labels = _usable(batch.labels).to(outputs_NV)
    labels_NV = labels[:, None] if labels.dim() == 1 else labels
    if labels_NV.shape != outputs_NV.shape:
        raise ShapeError(
            field="labels",
            expected=f"{outputs_NV.shape[1]} values for each of {len(outputs_NV)} documents",
            found=f"shape {tuple(labels.shape)}",
        )
    bad = torch.nonzero(~torch.isfinite(labels_NV).all(1))[:, 0]
    if len(bad):
        raise LabelError(
            field=f"document {batch.ordinals[int(bad[0])]}",
            expected="finite values as labels",
            found="NaN or infinity",
            remedy="correct the label or leave the document out",
        )
    return labels_NV
