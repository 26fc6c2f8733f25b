"""Observers of passes that tests share."""

from torch import Tensor

from gindex.model.capture import append_one
from gindex.model.observer import Observer


class Gradients(Observer):
    """Document gradients [N, O, I] by layer name."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}

    def activations(self, layer, a_NTI):
        return append_one(a_NTI, layer)

    def gradients(self, layer, kept, g_NTO):
        self.found[layer.name] = g_NTO.mT @ kept
