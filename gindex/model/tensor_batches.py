"""Batches of documents that are tensors: features, pictures, or the keyword inputs of a transformers model.

Axes: N documents, T tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.errors import ShapeError

Inputs = Tensor | Mapping[str, Tensor]
"""One tensor [N, ...], or keyword arguments of the model, [N, ...] each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TensorBatch:
    """Some documents with their labels.

    Attributes:
        inputs: Inputs of the model.
        labels: Classes [N] or values [N] or [N, V].
        ordinals: The documents' numbers [N]: they decide which labels are sampled, and errors name them.
    """

    inputs: Inputs
    labels: Tensor
    ordinals: npt.NDArray[np.int64]

    @property
    def texts(self) -> int:
        """Rows of each document."""
        return 1

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Real tokens [N, T] of an `attention_mask` among the inputs; else [N, 1], all positions of a document.

        Raises:
            ShapeError: The mask is not one of 1 for real tokens and 0 for padding.
        """
        if isinstance(self.inputs, Mapping) and "attention_mask" in self.inputs:
            given = self.inputs["attention_mask"]
            real: npt.NDArray[np.bool_] = (given == 1).cpu().numpy()
            if given.dim() != 2 or not bool(((given == 1) | (given == 0)).all()) or not real.any(1).all():
                raise ShapeError(
                    field="attention_mask",
                    expected="[documents, tokens] with 1 for real tokens, one a document at least, and 0 for padding",
                    found=f"shape {tuple(given.shape)} of {given.dtype}",
                    remedy="a model that takes another kind of mask can be wrapped in a module that makes it from "
                    "this one",
                )
            return real
        return np.ones((len(self.ordinals), 1), dtype=bool)

    @property
    def masks(self) -> tuple[npt.NDArray[np.bool_], ...]:
        """The mask alone: all layers have the same positions, or one."""
        return (self.mask,)

    def some(self, count: int) -> Inputs:
        """Return the inputs of the first `count` documents, repeated from the first where there are fewer."""
        rows = torch.arange(count, device="cpu") % len(self.ordinals)
        return _each(self.inputs, lambda x: x[rows.to(x.device)])


def tensor_batches(
    inputs: Inputs, labels: Tensor, size: int = 256, ordinals: Sequence[int] | npt.NDArray[np.int64] | None = None
) -> list[TensorBatch]:
    """Cut tensors into batches, in order.

    Args:
        inputs: Inputs of the model, of all documents.
        labels: Labels of the documents, first axis N.
        size: Documents in a batch.
        ordinals: The documents' numbers [N]; 0, 1, 2, ... where none are given.

    Raises:
        ShapeError: The first axes differ, or there are no documents.
    """
    tensors = [inputs] if isinstance(inputs, Tensor) else list(inputs.values())
    numbers = np.arange(len(labels)) if ordinals is None else np.asarray(ordinals, np.int64)
    counts = {len(x) for x in tensors} | {len(labels), len(numbers)}
    if counts == {0} or len(counts) != 1:
        raise ShapeError(
            field="tensors",
            expected="one label and one ordinal for each of at least one document",
            found=(f"{', '.join(str(len(x)) for x in tensors)} inputs, {len(labels)} labels, {len(numbers)} ordinals"),
        )
    cuts = [slice(start, start + size) for start in range(0, len(labels), size)]
    return [
        TensorBatch(inputs=_each(inputs, itemgetter(cut)), labels=labels[cut], ordinals=numbers[cut]) for cut in cuts
    ]


def _each(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    return change(inputs) if isinstance(inputs, Tensor) else {name: change(x) for name, x in inputs.items()}
