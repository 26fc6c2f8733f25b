"""Objectives of similar length, padded into batches.

Axes: N objectives, S texts of each, R = N S texts, T tokens, M tokens that count, K values of a label.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gindex.corpus.contents import Content
from gindex.corpus.objectives import Objective, Preference
from gindex.errors import ShapeError


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """What an encoder or a decoder has to do with, of each objective.

    Attributes:
        tokens: Token ids, padded on the right [N, T].
        lengths: Tokens without padding [N].
        weights: What the loss of each is multiplied by [N, T].
    """

    tokens: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Mask of the real tokens [N, T]."""
        return _real(self.lengths, self.tokens.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class TokenBatch:
    """Padded tokens, with what is needed to tell real tokens and targets.

    Attributes:
        ordinals: What each objective is called: of a part, its ordinal in the table [N].
        tokens: Token ids, padded on the right [R, T]; the S texts of an objective follow on each other.
        lengths: Tokens of each text without padding [R].
        weights: What the loss of each token is multiplied by; 0 where it does not count [R, T].
        preferences: How the losses of two texts become one, for each objective; None where losses are summed.
        labels: What is asked at each token that counts, text by text [M, K]; None where tokens are predicted.
        seconds: Position where a second text begins, the length where there is none [R]; None where no text has one.
        contents: Pictures or tensors [R], where the model reads these in the place of tokens or, of the one text of a
            batch, beside them; None where it reads tokens alone.
    """

    ordinals: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    preferences: tuple[Preference, ...] | None = None
    labels: npt.NDArray[np.float32] | None = None
    seconds: npt.NDArray[np.int64] | None = None
    contents: tuple[Content, ...] | None = None

    @property
    def texts(self) -> int:
        """S, the texts of each objective."""
        return len(self.tokens) // max(1, len(self.ordinals))

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Mask of the real tokens by objective [N, S T]; padding is False. Of pictures and tensors [N, 1], all.

        So it is where pictures are read beside tokens: their text is alone in its batch, without padding.
        """
        if self.contents is not None:
            return np.ones((len(self.ordinals), 1), bool)
        return _real(self.lengths, self.tokens.shape[1]).reshape(len(self.ordinals), -1)

    @property
    def masks(self) -> tuple[npt.NDArray[np.bool_], ...]:
        """Masks of the real positions of a layer: the one of as many positions as it has. See `sides`."""
        return (self.mask,) if self.sides is None else tuple(side.mask for side in self.sides)

    @property
    def sides(self) -> tuple[Side, Side] | None:
        """What an encoder reads and what a decoder predicts; None where no text is decoded.

        The first is padded by one more where both would have as many positions: then these tell layers that read the
        one, wherever in the model they are, from those that read the other.
        """
        if self.seconds is None or self.labels is not None:
            return None
        lengths = self.seconds, self.lengths - self.seconds
        widths = [int(length.max(initial=1)) for length in lengths]
        widths[0] = max(2, widths[0] + (widths[0] == widths[1]))  # one position stands for all of a document's
        widths[0] += widths[0] == widths[1]
        starts = np.zeros_like(self.seconds), self.seconds
        return (
            self._side(starts[0], lengths[0], widths[0]),
            self._side(starts[1], lengths[1], widths[1]),
        )

    def _side(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], width: int) -> Side:
        """The tokens from some position on, padded by repeating the last."""
        places_NT = starts[:, None] + np.minimum(np.arange(width), lengths[:, None] - 1)
        return Side(
            tokens=np.take_along_axis(self.tokens, places_NT, 1),
            lengths=lengths,
            weights=np.take_along_axis(self.weights, places_NT, 1) * _real(lengths, width),
        )

    @property
    def targets(self) -> npt.NDArray[np.bool_]:
        """Mask of the tokens that count [R, T]: the position before each is to predict it, or it has a label."""
        targets: npt.NDArray[np.bool_] = self.weights != 0
        return targets


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


def batch_objectives(
    objectives: Sequence[Objective], ordinals: npt.NDArray[np.int64], batch_tokens: int
) -> list[TokenBatch]:
    """Cut objectives into padded batches of like lengths, each of objectives of one kind.

    Args:
        objectives: N objectives.
        ordinals: What each is called in its batch [N].
        batch_tokens: Most tokens of a batch, padding included; a longer objective is a batch of its own, and so is one
            with pictures.

    Raises:
        ShapeError: There is not one ordinal per objective.
    """
    kinds: dict[tuple[int, bool, int, str], list[int]] = {}
    for n, objective in enumerate(objectives):
        kinds.setdefault(objective.kind, []).append(n)
    batches = []
    for _, positions in sorted(kinds.items()):
        # An objective is padded to its longest text: it takes as many tokens as that, times its texts.
        lengths = [objectives[n].longest * len(objectives[n].texts) for n in positions]
        most = 1 if objectives[positions[0]].is_alone else batch_tokens
        for group in form_batches(positions, lengths, most):
            batches.append(pad([objectives[n] for n in group], ordinals[group]))
    return batches


def one_text_each(objectives: Sequence[Objective]) -> tuple[list[Objective], npt.NDArray[np.int64]]:
    """Take sums of any numbers of texts apart, for batches of one kind: gradients are summed as losses are.

    Returns:
        Objectives of one text, or of a preference, and for each the position of the objective that it belongs to.
    """
    texts, owners = [], []
    for n, objective in enumerate(objectives):
        own = [objective] if objective.preference is not None else [Objective((text,)) for text in objective.texts]
        texts += own
        owners += [n] * len(own)
    return texts, np.array(owners, dtype=np.int64)


def pad(objectives: Sequence[Objective], ordinals: Sequence[int] | npt.NDArray[np.int64]) -> TokenBatch:
    """Pad the texts of N objectives on the right, to the longest of them, by repeating each one's last token.

    A repeated token reads no row of the embedding that the text does not read itself: a NaN in another row stays out.

    Args:
        objectives: N objectives of one kind.
        ordinals: What each is called [N].

    Raises:
        ShapeError: There is not one ordinal per objective, or they are of different kinds.
    """
    kinds = {objective.kind for objective in objectives}
    texts = [text for objective in objectives for text in objective.texts]
    crowded = len(texts) > 1 and any(text.has_pictures for text in texts)
    if len(objectives) != len(ordinals) or len(kinds) > 1 or crowded:
        raise ShapeError(
            field="pad",
            expected=f"one ordinal per objective, {len(objectives)}, objectives of one kind, or one text with pictures",
            found=f"{len(ordinals)} and {len(kinds)} kinds of {len(texts)} texts",
        )
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    shape = len(lengths), int(lengths.max(initial=0))
    tokens, weights = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = text.ids
        tokens[row, len(text) :] = text.ids[-1] if len(text) else 0
        weights[row, : len(text)] = text.weights
    preferences = tuple(found for objective in objectives if (found := objective.preference) is not None)
    labels = [text.labels for text in texts if text.labels is not None]
    seconds = [len(text) if text.second is None else text.second for text in texts]
    contents = tuple(text.content for text in texts if text.content is not None)
    return TokenBatch(
        ordinals=np.asarray(ordinals, dtype=np.int64),
        tokens=tokens,
        lengths=lengths,
        weights=weights,
        preferences=preferences or None,
        labels=np.concatenate(labels) if labels else None,
        seconds=np.array(seconds, np.int64) if any(text.second is not None for text in texts) else None,
        contents=contents or None,
    )


def _real(lengths: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.bool_]:
    """Mask of the real tokens of texts [R, width]."""
    real: npt.NDArray[np.bool_] = np.arange(width)[None, :] < lengths[:, None]
    return real
