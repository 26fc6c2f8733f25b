"""Documents joined into sequences of one length, as pre-training joins them.

A model that was trained on packed sequences read each document after those that came before it in its sequence. The
gradient of a document is that of the loss of its tokens in this place: a part holds the sequence up to the document's
end, and only the document's own tokens count. Summed over the documents of a sequence, gradients are the sequence's.

Axes: T tokens.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.corpus.tokens import Part, span_of


class Packer:
    """Takes documents one after the other, in the order of the corpus."""

    def __init__(self, length: int) -> None:
        """Begin the first sequence.

        Args:
            length: Tokens of a sequence, at least 2.
        """
        self._length = length
        self._sequence: list[int] = []

    def add(
        self, tokens: Sequence[int], offsets: Sequence[tuple[int, int]], weights: npt.NDArray[np.float32]
    ) -> list[Part]:
        """Put a document behind those before it, and return its parts: one for each sequence that it counts in.

        Args:
            tokens: Token ids of the document [T].
            offsets: Characters [start, end) of each token [T].
            weights: How much each token counts [T]; that of a token that begins a sequence is not used.
        """
        parts: list[Part] = []
        done = 0
        while done < len(tokens):
            before = len(self._sequence)
            end = min(len(tokens), done + self._length - before)
            self._sequence += tokens[done:end]
            counts = np.zeros(len(self._sequence), np.float32)
            counts[before:] = weights[done:end]
            counts[0] = 0
            if counts.any():
                start, stop = span_of(offsets[done:end], parts[-1].end if parts else 0)
                text = WeightedTokens(np.array(self._sequence, np.uint32), counts)
                parts.append(Part(part=len(parts), start=start, end=stop, objective=Objective((text,))))
            if len(self._sequence) == self._length:
                self._sequence = []
            done = end
        return parts
