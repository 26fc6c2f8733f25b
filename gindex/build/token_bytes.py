"""What a token's pass keeps in memory, measured: one over a document is watched for what waits for the way back."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from gindex.model.checkpointing import checkpointed
from gindex.model.isolation import defaults
from gindex.model.layers import TrackedLayer
from gindex.model.number_formats import wide_range
from gindex.model.quantisation import plain_tensors
from gindex.model.tracked_model import TrackedModel

TOKEN_SLACK = 1.5
"""What a pass takes beside what it keeps: gradients on their way down, copies of a layer's activations."""

BLOCK_SLACK = 5.0
"""The same of a checkpointed block, beside what enters all of them."""

VOCABULARY_COPIES = 4
"""Values that a token takes for each entry of a tracked lookup table: the gradient of its logits, the unit vector of
what it looks up, and both joined and rotated. A wide output head takes as many: the gradient of its logits as it comes,
in the number format of the factors, the finite part, and rotated."""


@dataclass(frozen=True, kw_only=True)
class TokenBytes:
    """What a token's pass keeps.

    Attributes:
        saved: What the model keeps until it comes back.
        activations: What its layers read, as it was read and rotated.
        entering: What the model keeps where its blocks are checkpointed.
        blocks: How many they are.
    """

    saved: float
    activations: int
    entering: float
    blocks: int

    def plain(self, activations: float = 1.0) -> int:
        """What is taken for a token, with so much of the activations."""
        return int(TOKEN_SLACK * (self.saved + activations * self.activations))

    @property
    def checkpointed(self) -> int:
        """What is taken for a token where blocks are checkpointed."""
        if not self.blocks:
            return self.plain()
        return int(self.entering + BLOCK_SLACK * (self.saved + self.activations) / self.blocks)


_measured: WeakKeyDictionary[TrackedModel, dict[int, TokenBytes]] = WeakKeyDictionary()


def token_bytes(model: TrackedModel, longest: int) -> TokenBytes:
    """Measure what a token's pass keeps, over a document of the greatest length; once for an model."""
    found = _measured.setdefault(model, {})
    if longest not in found:
        layers, blocks = model.table.layers, model.blocks
        activations = sum(_read_bytes(model, layer) for layer in layers if layer.name == layer.reads)
        saved = _saved_bytes(model, longest)
        with checkpointed(blocks):
            entering = _saved_bytes(model, longest)
        entries = sum(of.outputs for of in layers if of.output_side.is_unit and of.inputs > 1)
        wide = VOCABULARY_COPIES * wide_range(model.dtype).itemsize * entries
        found[longest] = TokenBytes(
            saved=saved + wide, activations=int(activations), entering=entering + wide, blocks=len(blocks)
        )
    return found[longest]


def _read_bytes(model: TrackedModel, layer: TrackedLayer) -> float:
    """What a layer reads of a token, in its own number format, and in that of its factors."""
    own = next(layer.module.parameters()).element_size()
    return (own + model.factor_formats[layer.name].itemsize) * layer.token_share * layer.inputs


@defaults()
def _saved_bytes(model: TrackedModel, longest: int) -> float:
    """What autograd keeps of a pass over a document outside checkpointed blocks, in bytes a token."""
    batch = model.trial(longest)
    weights = (part for weight in model.loaded.model.parameters() for part in plain_tensors(weight))
    owned = {part.untyped_storage().data_ptr() for part in weights}
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        for part in plain_tensors(tensor):
            storage = part.untyped_storage()
            if storage.data_ptr() not in owned:
                seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with model.from_embeddings(), hooks:
        graph = model.task.losses(batch)
    del graph
    return sum(seen.values()) / longest
