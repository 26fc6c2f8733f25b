"""Covariances of activations and pseudo-gradients, the first pass of EK-FAC.

A = E[a a^T] and S = E[s s^T] over the real tokens of the documents. Layers that read the same activations share A.
Of a side whose basis is block-diagonal the diagonal blocks alone are summed, of one with unit vectors the diagonal.
Experts that share factors have A and S of the tokens of all of them: a token counts once for each that it goes to.

Axes: N documents, T tokens, M real tokens, I layer inputs, O layer outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from gindex.curvature.products import add_second_moment, symmetric
from gindex.errors import ShapeError
from gindex.model.capture import append_one
from gindex.model.devices import kept_rows, to_device
from gindex.model.layers import TrackedLayer
from gindex.model.observer import Observer
from gindex.model.sides import Side


@dataclass
class TokenMoment:
    """A sum of outer products, the part of it that the basis of its side is made of, and how many tokens are in it.

    Attributes:
        side: The side and its structure.
        totals: The upper triangle of each diagonal block [B, B]: of one, where the basis is one matrix. For unit
            vectors the diagonal [X].
        tokens: The number of tokens.
    """

    side: Side
    totals: list[Tensor]
    tokens: Tensor

    @classmethod
    def zeros(cls, side: Side, dtype: torch.dtype, device: torch.device) -> Self:
        """Start with none."""
        shapes = [(side.width,)] if side.is_unit else [(block.stop - block.start,) * 2 for block in side.blocks]
        totals = [torch.zeros(shape, dtype=dtype, device=device) for shape in shapes]
        return cls(side, totals, torch.zeros((), dtype=torch.int64, device=device))

    def add(self, x_MX: Tensor, real_M: Tensor) -> None:
        """Add those of M tokens that are real and finite."""
        wide = torch.promote_types(x_MX.dtype, torch.float32)  # float16 may not hold a sum of what it holds
        counted_M = real_M & torch.isfinite(x_MX.sum(1, dtype=wide))  # a NaN or an infinity spoils its token's sum
        x_MX = kept_rows(x_MX, counted_M)
        if self.side.is_unit:
            self.totals[0] += x_MX.to(self.totals[0].dtype).square().sum(0)
        for total_BB, block in zip(self.totals, self.side.blocks, strict=False):
            add_second_moment(total_BB, x_MX[:, block])
        self.tokens += counted_M.sum()

    def add_moment(self, other: "TokenMoment") -> None:
        """Add the sums of other tokens."""
        for total, more in zip(self.totals, other.totals, strict=True):
            total += more
        self.tokens += other.tokens

    def mean(self, block: int = 0) -> Tensor:
        """The mean over the tokens of a block [B, B], or the diagonal's [X]; zeros where there were none."""
        total = self.totals[block]
        return (total if self.side.is_unit else symmetric(total)) / self.tokens.clamp(min=1)


@dataclass(kw_only=True)
class CovarianceObserver(Observer):
    """Accumulates A per source and S per layer, or layers that share it; give it to `observe` after `begin`.

    Documents whose loss is not finite are left out whole, so activations wait for the backward pass.
    """

    dtype: torch.dtype = torch.float32
    activation_moments: dict[str, TokenMoment] = field(default_factory=dict)
    gradient_moments: dict[str, TokenMoment] = field(default_factory=dict)
    _counted: set[str] = field(default_factory=set)
    _positions: dict[str, Tensor] = field(default_factory=dict)
    _uses: dict[str, Sequence[int]] = field(default_factory=dict)
    _masks: tuple[Tensor, ...] = ()

    def begin(self, *masks_NT: Tensor) -> None:
        """Start a batch.

        Args:
            masks_NT: Its real tokens [N, T]; [N, 1] stands for all positions of every layer. Of an encoder-decoder
                those of both sides, of which a layer has the one of as many positions as it has.
        """
        self._masks = masks_NT
        self._counted.clear()
        self._positions.clear()
        self._uses.clear()

    def routed(self, layer: TrackedLayer, positions_NT: Tensor) -> None:
        """Keep the positions [N, T] of an expert's tokens."""
        self._positions[layer.name] = positions_NT

    def used(self, layer: TrackedLayer, tokens: Sequence[int]) -> None:
        """Keep how many tokens each use of a layer reads."""
        self._uses[layer.name] = tokens

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
        """Keep a batch's activations [N, T, I - bias]: layers that share them hold the same."""
        return a_NTI

    def losses(self, losses_N: Tensor) -> None:
        """Leave out the documents whose loss [N] is not finite."""
        if self._masks[0].device != losses_N.device:
            self._masks = tuple(to_device(mask_NT.numpy(), losses_N.device) for mask_NT in self._masks)
        self._masks = tuple(mask_NT & torch.isfinite(losses_N)[:, None] for mask_NT in self._masks)

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        """Add a batch's pseudo-gradients [N, T, O] to S, and its activations to A, once for all that share them.

        A layer that no gradient comes to has no token; another one that reads the same may have them.
        """
        if layer.reads not in self._counted:
            if kept.shape[1]:
                self._counted.add(layer.reads)
            moment = self._moment(self.activation_moments, layer.source, layer.input_side, kept)
            self._add(moment, append_one(kept, layer), layer)
        self._add(self._moment(self.gradient_moments, layer.factors, layer.output_side, g_NTO), g_NTO, layer)

    def _moment(self, moments: dict[str, TokenMoment], name: str, side: Side, like: Tensor) -> TokenMoment:
        if name not in moments:
            moments[name] = TokenMoment.zeros(side, self.dtype, like.device)
        return moments[name]

    def _add(self, moment: TokenMoment, x_NTX: Tensor, layer: TrackedLayer) -> None:
        if x_NTX.shape[1]:
            moment.add(x_NTX.flatten(0, 1), self._real(layer, x_NTX.shape[1]).flatten())

    def _real(self, layer: TrackedLayer, positions: int) -> Tensor:
        """Which positions of a layer are real tokens [N, positions]."""
        positions_NT = self._positions.get(layer.name)
        if positions_NT is None:
            uses = self._uses.get(layer.name, [positions])
            return torch.cat([self._real_of_use(tokens, layer.name) for tokens in uses], 1)
        (mask_NT,) = self._masks  # encoder-decoders with experts are refused
        if mask_NT.shape[1] == 1:
            return mask_NT & (positions_NT >= 0)
        return mask_NT.gather(1, positions_NT.clamp(min=0)) & (positions_NT >= 0)

    def _real_of_use(self, positions: int, name: str) -> Tensor:
        own = next((mask_NT for mask_NT in self._masks if mask_NT.shape[1] == positions), self._masks[0])
        return real_positions(own, positions, name)


def real_positions(mask_NT: Tensor, positions: int, name: str) -> Tensor:
    """The positions of a layer that are real [N, positions].

    Args:
        mask_NT: Real tokens [N, T]. A mask of one column stands for all positions of a document, and a layer of one
            position, behind a model's pooling, is real where any token is.
        positions: Positions that the layer has for each document; 0 where no gradient comes to it.
        name: The layer, for the error.

    Raises:
        ShapeError: The layer has neither one position nor one for each token.
    """
    if positions == mask_NT.shape[1]:
        return mask_NT
    if positions == 0:
        return mask_NT[:, :0]
    if mask_NT.shape[1] == 1:
        return mask_NT.expand(-1, positions)
    if positions == 1:
        return mask_NT.any(1, keepdim=True)
    raise ShapeError(field=name, expected=f"{mask_NT.shape[1]} positions, one for each token, or 1", found=positions)
