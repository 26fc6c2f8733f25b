"""Small sketches of document gradients, by which passes are compared: those of a large model would not fit in memory.

A layer's gradient G [O, I] becomes L^T G R with random signs L [O, K] and R [I, K] divided by sqrt(K). Norms, and inner
products between sketches made with the same signs, are those of the gradients up to some percent, and equal gradients
have equal sketches.

Axes: N documents, T tokens, I layer inputs, O layer outputs, K size of a sketch.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gindex.corpus.batches import TokenBatch
from gindex.corpus.objectives import Objective
from gindex.model.capture import append_one, observe
from gindex.model.layers import TrackedLayer
from gindex.model.observer import Observer
from gindex.model.tracked_model import TrackedModel

SIZE = 16
"""K."""

LEAST_SHARE = 1e-3
"""Norm of a layer's gradient, as a share of that of the whole, below which its error is measured by that share: what a
softmax cancels has no digits of its own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sketches:
    """Sketches of the gradients of N documents.

    Attributes:
        by_layer: [N, K, K] by layer name, on the CPU, float64.
    """

    by_layer: dict[str, Tensor]

    def difference(self, expected: "Sketches") -> tuple[float, str]:
        """The largest relative difference of a document's gradient in a layer, and that layer."""
        whole_N = expected._norms().clamp(min=torch.finfo(torch.float64).tiny)
        worst = 0.0, next(iter(self.by_layer))
        for name, expected_NKK in expected.by_layer.items():
            size_N = expected_NKK.flatten(1).norm(dim=1).maximum(LEAST_SHARE * whole_N)
            error_N = (self.by_layer[name] - expected_NKK).flatten(1).norm(dim=1) / size_N
            worst = max(worst, (float(error_N.nan_to_num(torch.inf).max()), name))
        return worst

    @property
    def is_finite(self) -> bool:
        """Whether the gradients of all documents are."""
        return bool(torch.isfinite(self._norms()).all())

    def cosine(self, expected: "Sketches") -> float:
        """The least cosine of a document's whole gradient with what it should be; missing layers count as 0."""
        common = self.by_layer.keys() & expected.by_layer.keys()
        products = [(self.by_layer[name] * expected.by_layer[name]).flatten(1).sum(1) for name in sorted(common)]
        cosines_N = torch.stack(products).sum(0) / (self._norms() * expected._norms())
        return float(cosines_N.nan_to_num(0).min())

    def _norms(self) -> Tensor:
        return torch.stack([of.flatten(1).square().sum(1) for of in self.by_layer.values()]).sum(0).sqrt()


def sketch(model: TrackedModel, objectives: Sequence[Objective], *, together: bool = True) -> Sketches:
    """Sketch the gradients of documents along the passes that a build makes.

    Args:
        model: The model.
        objectives: N documents.
        together: Run those of a kind in one batch; else each alone.
    """
    most = sum(objective.longest * len(objective.texts) for objective in objectives) * len(objectives)
    batches: list[TokenBatch] = model.batches(objectives, np.arange(len(objectives)), most if together else 1)
    wide = torch.zeros(len(objectives), SIZE, SIZE, dtype=torch.float64, device="cpu")
    by_layer = {layer.name: wide.clone() for layer in model.table.layers}
    for batch in batches:
        observer = _SketchObserver()
        observe(
            model.table.layers,
            observer,
            len(batch.ordinals),
            lambda batch=batch: model.task.losses(batch),  # type: ignore[misc]
            batch.texts,
        )
        for name, sketch_NKK in observer.sketches.items():
            by_layer[name][torch.from_numpy(batch.ordinals)] = sketch_NKK.double().cpu()
    return Sketches(by_layer=by_layer)


class _SketchObserver(Observer):
    def __init__(self) -> None:
        self.sketches: dict[str, Tensor] = {}

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
        return _reduced(append_one(a_NTI, layer), f"activation {layer.name}")

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        self.sketches[layer.name] = _reduced(g_NTO, f"gradient {layer.name}").mT @ kept


def _reduced(x_NTX: Tensor, name: str) -> Tensor:
    """Multiply by signs [X, K] that go by a name, in float32 or wider."""
    wide, generator = torch.promote_types(x_NTX.dtype, torch.float32), torch.Generator("cpu")
    generator.manual_seed(zlib.crc32(name.encode()))
    bits_XK = torch.randint(2, (x_NTX.shape[2], SIZE), generator=generator, device="cpu")
    signs_XK = (2 * bits_XK - 1).to(x_NTX.device, wide)
    reduced_NTK: Tensor = x_NTX.to(wide) @ signs_XK / SIZE**0.5
    return reduced_NTK
