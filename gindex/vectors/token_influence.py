"""Exact influence of one document, told apart by its tokens and by layers.

The influence sum over layers of <X_q, G_d>, X_q the preconditioned gradient of the query, is a sum over the tokens too:
G_d = sum_t g_t a_t^T, so token t contributes g_t^T X_q a_t. Position t is where the model reads token t; its output
gradient holds all losses from there on that the token takes part in.

Axes: L layers, N documents, T tokens, I layer inputs, O layer outputs.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from gindex.model.capture import append_one, observe
from gindex.model.layers import TrackedLayer
from gindex.model.observer import Observer
from gindex.vectors.held_gradients import HeldGradients


def token_influence(
    layers: Sequence[TrackedLayer],
    preconditioned: Mapping[str, HeldGradients],
    documents: int,
    losses: Callable[[], Tensor],
    texts: int = 1,
    widths: Sequence[int] = (),
) -> Tensor:
    """The influence of every token of a batch of documents on one query, in every layer.

    Args:
        layers: Tracked layers.
        preconditioned: H^-1 G [1, O, I] of the query by layer name.
        documents: N.
        losses: Runs the model on the documents and returns their summed losses [N].
        texts: See `observe`; T is the tokens of all texts, each padded.
        widths: Padded tokens of a document, where T is to be as many at least; of an encoder-decoder those of its
            source and of its target, which no layer reads together: T is both, one behind the other, and a layer is of
            the one that has as many tokens as it.

    Returns:
        [L, N, T], float32; its sum over L and T is `exact_influence` up to rounding, and padding is zero.
    """
    observer = _TokenObserver(preconditioned, widths)
    observe(layers, observer, documents, losses, texts)
    found = [observer.influence[layer.name] for layer in layers]
    # A layer without a gradient has no tokens, and an expert none behind its last.
    longest = max(sum(widths), *(influence_NT.shape[1] for influence_NT in found))
    return torch.stack([pad(influence_NT, (0, longest - influence_NT.shape[1])) for influence_NT in found])


class _TokenObserver(Observer):
    def __init__(self, preconditioned: Mapping[str, HeldGradients], widths: Sequence[int]) -> None:
        self.influence: dict[str, Tensor] = {}
        self._preconditioned = preconditioned
        self._positions: dict[str, Tensor] = {}
        self._uses: dict[str, Sequence[int]] = {}
        self._widths = widths

    def used(self, layer: TrackedLayer, tokens: Sequence[int]) -> None:
        self._uses[layer.name] = tokens

    def routed(self, layer: TrackedLayer, positions_NT: Tensor) -> None:
        self._positions[layer.name] = positions_NT

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
        return append_one(a_NTI, layer)

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        X_OI = self._preconditioned[layer.name][0]
        terms_NTI = (g_NTO.to(X_OI.dtype) @ X_OI) * kept.to(X_OI.dtype)
        influence_NT = terms_NTI.sum(2, dtype=torch.promote_types(X_OI.dtype, torch.float32))
        if layer.name in self._positions:
            influence_NT = _at(influence_NT, self._positions.pop(layer.name))
        uses = influence_NT.split(list(self._uses.pop(layer.name, [influence_NT.shape[1]])), 1)
        self.influence[layer.name] = _summed([_behind(use_NT, self._widths) for use_NT in uses])


def _behind(influence_NT: Tensor, widths: Sequence[int]) -> Tensor:
    """The influence of tokens behind that of the sides before theirs."""
    before = 0
    for width in widths:
        if influence_NT.shape[1] == width:
            return pad(influence_NT, (before, 0))
        before += width
    return influence_NT


def _summed(uses: Sequence[Tensor]) -> Tensor:
    """The influence of tokens in all uses of a layer, of which each may have read some of them."""
    longest = max(use_NT.shape[1] for use_NT in uses)
    return torch.stack([pad(use_NT, (0, longest - use_NT.shape[1])) for use_NT in uses]).sum(0)


def _at(influence_NT: Tensor, positions_NT: Tensor) -> Tensor:
    """The influence of an expert's tokens at their positions in the documents; what fills up is zero."""
    spread_NT = influence_NT.new_zeros(len(influence_NT), int(positions_NT.max()) + 1)
    return spread_NT.scatter_add(1, positions_NT.clamp(min=0), influence_NT)
