"""What a gradient is taken of: a weighted sum of token losses over texts, or the preference of one text over another.

A document is trained on with some of its tokens counting and others not (a prompt, a user's turn), and each may weigh.
A query is the same. So both come down to texts of tokens, and a weight for the loss with which each token is predicted.
Models that label what they read, as classifiers and masked language models do, are asked for labels in the place of
tokens; encoder-decoders read one text and predict the tokens of a second. A picture, or tensors, stand in the place of
tokens where a model reads these.

Axes: T tokens, M tokens that count, K values of a label.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gindex.corpus.contents import Content
from gindex.errors import ShapeError

TokenIds = npt.NDArray[np.uint32]
TokenWeights = npt.NDArray[np.float32]
TokenLabels = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class WeightedTokens:
    """A text as the model reads it, and how much the prediction of each token counts.

    Attributes:
        ids: Token ids [T].
        weights: What the loss of each token is multiplied by [T]; 0 where it does not count. Where tokens predict those
            after them, nothing predicts the first one, whose weight is 0.
        labels: What is asked at each token that counts, in order [M, K]: a number of a class or token, or several
            values; None where tokens themselves are predicted.
        second: Position where a second text begins; None without one. With labels it is read behind the first one, as
            of a pair; without, an encoder reads the first and a decoder predicts the second.
        content: A picture or tensors, where that is what the model reads; the ids are zeros then, as many as it has
            positions, the first of which counts. Or the pictures that it reads beside the tokens.
    """

    ids: TokenIds
    weights: TokenWeights
    labels: TokenLabels | None = None
    second: int | None = None
    content: Content | None = None

    def __post_init__(self) -> None:
        if self.ids.shape != self.weights.shape or self.ids.ndim != 1:
            raise ShapeError(field="weights", expected=f"one per token, {self.ids.shape}", found=self.weights.shape)
        if self.second is not None and not 0 < self.second < len(self.ids):
            raise ShapeError(field="second", expected=f"a position within {len(self.ids)} tokens", found=self.second)
        if self.labels is not None and self.labels.shape[:1] != (np.count_nonzero(self.weights),):
            expected = f"one for each of {np.count_nonzero(self.weights)} tokens that count"
            raise ShapeError(field="labels", expected=expected, found=self.labels.shape)
        is_read = self.content is None or self.content.is_beside
        if self.labels is None and is_read and self.weights[: self.second or 1].any():
            unpredicted = "the first token" if self.second is None else "the text that is read"
            raise ShapeError(field="weights", expected=f"0 for {unpredicted}", found=float(self.weights[0]))

    @classmethod
    def counting(cls, ids: Sequence[int] | npt.NDArray[np.integer], first: int = 1) -> "WeightedTokens":
        """A text whose tokens from `first` on all count alike; nothing predicts the first one."""
        weights = np.ones(len(ids), np.float32)
        weights[: max(1, first)] = 0
        return cls(np.asarray(ids, np.uint32), weights)

    @classmethod
    def of_content(cls, content: Content, positions: int, label: TokenLabels | None = None) -> "WeightedTokens":
        """A picture, or tensors, asked for one label [K] of the whole, where there is one."""
        weights = np.zeros(positions, np.float32)
        weights[0] = 1
        labels = None if label is None else label[None].astype(np.float32)
        return cls(np.zeros(positions, np.uint32), weights, labels, content=content)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def counted(self) -> npt.NDArray[np.bool_]:
        """Which tokens count [T]."""
        counted: npt.NDArray[np.bool_] = self.weights != 0
        return counted

    @property
    def is_decoded(self) -> bool:
        """Whether an encoder reads its first text and a decoder predicts the second."""
        return self.second is not None and self.labels is None

    @property
    def label_values(self) -> int:
        """K, the values of a label; 0 where tokens themselves are predicted."""
        return 0 if self.labels is None else self.labels.shape[1]

    @property
    def has_pictures(self) -> bool:
        """Whether pictures are read beside its tokens."""
        return self.content is not None and self.content.is_beside

    @property
    def question(self) -> tuple[bytes, bytes, int, Content | None]:
        """What is read and what is asked of it, but for the weights: equal for texts whose losses are multiples."""
        labels = b"" if self.labels is None else self.counted.tobytes() + self.labels.tobytes()
        return self.ids.tobytes(), labels, self.second or 0, self.content

    def weighted(self, weights: TokenWeights) -> "WeightedTokens":
        """The same text with other weights [T], none where it has none; labels stay where it still has some."""
        labels = None if self.labels is None else self.labels[(weights != 0)[self.counted]]
        return replace(self, weights=weights, labels=labels)

    def times(self, weight: float) -> "WeightedTokens":
        """The same text with all weights multiplied."""
        return self.weighted(self.weights * np.float32(weight))

    def unweighted(self) -> "WeightedTokens":
        """The same text with the weight 1 wherever a token counts."""
        return self.weighted(self.counted.astype(np.float32))

    def window(self, length: int) -> "WeightedTokens":
        """At most `length` tokens: the first ones, or where none of these count, those about the first that does.

        Of an encoder-decoder's texts both are cut, the first one more; pictures and tensors stay whole.
        """
        if len(self) <= length or self.content is not None:
            return self
        if self.second is not None:
            after = min(len(self) - self.second, max(length - self.second, length // 2))
            before = min(self.second, length - after)
            places = np.r_[0:before, self.second : self.second + after]
            return self._at(places, before)
        first = int(self.counted.argmax())
        start = max(0, min(first - length // 2, len(self) - length))
        return self._at(np.arange(start, start + length), None)

    def _at(self, places: npt.NDArray[np.intp], second: int | None) -> "WeightedTokens":
        """The tokens at some places, in order."""
        weights = self.weights[places]
        labels = self.labels
        if labels is None:
            weights[: second or 1] = 0
        else:
            labels = labels[np.isin(np.flatnonzero(self.counted), places)]
        return WeightedTokens(self.ids[places], weights, labels, second)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """How much more likely the first of two texts is to be than the second: the loss of DPO.

    loss = -weight log sigmoid(beta (log p(chosen) - log p(rejected) - reference)), with log p summed over the tokens
    that count.

    Source: Rafailov et al. 2023, arXiv:2305.18290.

    Attributes:
        beta: Inverse temperature.
        reference: The same difference of log p under the reference model, in nats; 0 without one.
        weight: What the loss is multiplied by.
    """

    beta: float
    reference: float = 0.0
    weight: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """What a gradient is taken of.

    Attributes:
        texts: The texts whose weighted token losses are summed; with a preference, the chosen and the rejected one.
        preference: How the losses of two texts become one loss, in the place of their sum.
    """

    texts: tuple[WeightedTokens, ...]
    preference: Preference | None = None

    def __post_init__(self) -> None:
        if not self.texts or (self.preference is not None and len(self.texts) != 2):
            expected = "a chosen and a rejected text" if self.preference else "at least one text"
            raise ShapeError(field="texts", expected=expected, found=len(self.texts))

    @classmethod
    def counting(cls, ids: Sequence[int] | npt.NDArray[np.integer], first: int = 1) -> "Objective":
        """One text whose tokens from `first` on all count alike."""
        return cls((WeightedTokens.counting(ids, first),))

    def __len__(self) -> int:
        """Tokens of all texts."""
        return sum(map(len, self.texts))

    @property
    def kind(self) -> tuple[int, bool, int, str]:
        """What the objectives of a batch have in common.

        Number of texts, whether it is a preference, values of a label, and the kind of a content that is no text.
        """
        text = self.texts[0]
        kind = "" if text.content is None else text.content.kind
        return len(self.texts), self.preference is not None, text.label_values, kind

    @property
    def is_alone(self) -> bool:
        """Whether it has a batch of its own: what a model makes of pictures has no axis of documents."""
        return any(text.has_pictures for text in self.texts)

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return max(map(len, self.texts))

    @property
    def targets(self) -> int:
        """Number of tokens that count."""
        return int(sum(np.count_nonzero(text.weights) for text in self.texts))

    def times(self, weight: float) -> "Objective":
        """The same with its loss multiplied."""
        if self.preference is not None:
            return Objective(self.texts, replace(self.preference, weight=self.preference.weight * weight))
        return Objective(tuple(text.times(weight) for text in self.texts))

    def unweighted(self) -> "Objective":
        """The sum of the losses of all tokens that count, each once: what curvature is fitted on."""
        return Objective(tuple(text.unweighted() for text in self.texts))

    def window(self, length: int) -> "Objective":
        """The same with at most `length` tokens of each text."""
        if self.longest <= length:
            return self
        return Objective(tuple(text.window(length) for text in self.texts), self.preference)
