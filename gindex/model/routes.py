"""The documents of the tokens that are routed to experts.

Pairs of a token and an expert lie in the order of experts; observers see an expert's tokens by document, [N, T, ...],
where T is the most that a document of the batch has at that expert.

Axes: N documents, T tokens, E experts, S pairs, P places, X features.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gindex.model.inner_linears import Pairs


@dataclass(frozen=True, kw_only=True, eq=False)
class Routes:
    """Where the pairs of each expert lie among its documents' tokens.

    Attributes:
        documents: N.
        offsets: The first of an expert's N * T places among the P of all [E + 1].
        places_S: The place of each pair [S], on the model's device.
        positions_P: Positions in their documents of all places, -1 where there is no token; on the model's device.
    """

    documents: int
    offsets: list[int]
    places_S: Tensor
    positions_P: Tensor

    @classmethod
    def of(cls, pairs: Pairs, documents: int, device: torch.device) -> "Routes":
        """Find the places of pairs, whose tokens are those of documents of equal length one behind the other."""
        rows_S, sizes_E, tokens = pairs.rows.numpy(), np.array(pairs.sizes, np.int64), pairs.tokens // documents
        experts_S = np.repeat(np.arange(len(sizes_E)), sizes_E)
        documents_S = rows_S // tokens
        cells_S = experts_S * documents + documents_S  # a cell is a document at an expert
        counts_C = np.bincount(cells_S, minlength=len(sizes_E) * documents)
        order_S = np.argsort(cells_S, kind="stable")
        firsts_C = np.cumsum(counts_C) - counts_C
        slots_S = np.empty_like(rows_S)
        slots_S[order_S] = np.arange(len(rows_S)) - firsts_C[cells_S[order_S]]
        longest_E = counts_C.reshape(len(sizes_E), documents).max(1)
        offsets = np.concatenate([[0], np.cumsum(longest_E * documents)])
        places_S = offsets[experts_S] + documents_S * longest_E[experts_S] + slots_S
        positions_P = np.full(offsets[-1], -1, np.int64)
        positions_P[places_S] = rows_S % tokens
        return cls(
            documents=documents,
            offsets=offsets.tolist(),
            places_S=torch.from_numpy(places_S).to(device),
            positions_P=torch.from_numpy(positions_P).to(device),
        )

    def spread(self, x_SX: Tensor) -> Tensor:
        """What all pairs have, at the places of all experts [P, X]; 0 where there is no token."""
        return x_SX.new_zeros(self.offsets[-1], x_SX.shape[1]).index_copy_(0, self.places_S, x_SX)

    def by_document(self, expert: int, x_PX: Tensor) -> Tensor:
        """An expert's part of what was spread, by document [N, T, X]."""
        return x_PX[self.offsets[expert] : self.offsets[expert + 1]].view(self.documents, -1, x_PX.shape[1])

    def positions(self, expert: int) -> Tensor:
        """Positions in their documents of an expert's tokens [N, T], -1 where there is none."""
        return self.positions_P[self.offsets[expert] : self.offsets[expert + 1]].view(self.documents, -1)
