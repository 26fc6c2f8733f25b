"""Parts of similar length, padded into batches.

Axes: N parts, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gindex.errors import ShapeError


@dataclass(frozen=True, slots=True, eq=False)
class TokenBatch:
    """Padded tokens and which of them are predicted.

    Attributes:
        ordinals: Ordinals of the parts in the table [N].
        tokens: Token ids, padded on the right [N, T].
        lengths: Tokens of each part without padding [N].
        first_target: Position of the first token that counts as a target [N]: 1 for parts of documents, the length
            of the prompt for a query with a completion.
    """

    ordinals: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    first_target: npt.NDArray[np.int64]

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Which tokens are real [N, T]."""
        return self._positions() < self.lengths[:, None]

    @property
    def targets(self) -> npt.NDArray[np.bool_]:
        """Which tokens count as targets of the position before them [N, T]."""
        return self.mask & (self._positions() >= self.first_target[:, None])

    def _positions(self) -> npt.NDArray[np.int64]:
        return np.arange(self.tokens.shape[1], dtype=np.int64)[None, :]


def form_batches(
    ordinals: Sequence[int] | npt.NDArray[np.int64],
    lengths: Sequence[int] | npt.NDArray[np.int64],
    batch_tokens: int,
) -> list[npt.NDArray[np.int64]]:
    """Group parts of similar length, longest first, ties by ordinal, so that little is padding.

    Args:
        ordinals: Ordinals of the parts [N].
        lengths: Tokens of the same parts, in the same order [N].
        batch_tokens: Most tokens of a batch, padding included; a longer part is a batch of its own.

    Returns:
        Ordinals of each batch; every ordinal is in exactly one.

    Raises:
        ShapeError: The two do not have the same length.
    """
    ordinals_N, lengths_N = np.asarray(ordinals, dtype=np.int64), np.asarray(lengths, dtype=np.int64)
    if ordinals_N.shape != lengths_N.shape:
        raise ShapeError(field="lengths", expected=f"one per ordinal, {ordinals_N.shape}", found=lengths_N.shape)
    order_N = np.lexsort((ordinals_N, -lengths_N))
    batches, start = [], 0
    while start < len(order_N):
        longest = max(1, int(lengths_N[order_N[start]]))
        end = start + max(1, batch_tokens // longest)
        batches.append(ordinals_N[order_N[start:end]])
        start = end
    return batches


def pad(
    token_lists: Sequence[Sequence[int] | npt.NDArray[np.uint32]],
    ordinals: Sequence[int] | npt.NDArray[np.int64],
    first_targets: Sequence[int] | npt.NDArray[np.int64],
) -> TokenBatch:
    """Pad the tokens of N parts on the right, to the longest of them, by repeating each one's last token.

    Padding that a part holds anyway brings no weight into its pass that isn't there already, NaN included.

    Args:
        token_lists: Token ids of each part, N lists.
        ordinals: Ordinals of the parts [N].
        first_targets: Position of the first target of each part [N].

    Raises:
        ShapeError: The three do not have the same length.
    """
    if not len(token_lists) == len(ordinals) == len(first_targets):
        raise ShapeError(
            field="pad",
            expected=f"as many ordinals and first targets as token lists, {len(token_lists)}",
            found=f"{len(ordinals)} and {len(first_targets)}",
        )
    lengths = np.array([len(tokens) for tokens in token_lists], dtype=np.int64)
    padded = np.zeros((len(lengths), int(lengths.max(initial=0))), dtype=np.int64)
    for line, tokens in zip(padded, token_lists, strict=True):
        line[: len(tokens)] = tokens
        line[len(tokens) :] = tokens[-1] if len(tokens) else 0
    return TokenBatch(
        ordinals=np.asarray(ordinals, dtype=np.int64),
        tokens=padded,
        lengths=lengths,
        first_target=np.asarray(first_targets, dtype=np.int64),
    )
