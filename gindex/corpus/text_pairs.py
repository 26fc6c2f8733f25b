"""Texts with the text that an encoder-decoder is to make of them: translations, summaries, answers.

Axes: T tokens, of source and target.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.corpus.encoding import EncodedDocument, weighted
from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.corpus.records import Document
from gindex.corpus.tokens import Offsets, Part
from gindex.errors import CorpusError

ARROW = " => "
"""What stands in the text of a document between source and target."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadSide:
    """What an encoder reads, or what a decoder is to predict.

    Attributes:
        ids: Token ids [T].
        offsets: Characters [start, end) of each token; empty ones for those that the tokenizer adds.
        added: Which tokens the tokenizer adds [T].
    """

    ids: list[int]
    offsets: Offsets
    added: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, tokenizer: Any, text: str, *, target: bool) -> "ReadSide":
        """Cut a text into tokens, those that the tokenizer adds to a source or to a target included."""
        encoded = tokenizer(
            **{"text_target" if target else "text": [text]},
            add_special_tokens=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
        columns = ("input_ids", "offset_mapping", "special_tokens_mask")
        (ids,), (offsets,), (added,) = (encoded[name] for name in columns)
        return cls(ids=list(ids), offsets=list(offsets), added=np.array(added, bool))

    def within(self, most_tokens: int) -> "ReadSide":
        """At most so many tokens: a longer text loses its last ones, but none that the tokenizer adds."""
        own = np.flatnonzero(~self.added)
        surplus = min(len(own), max(0, len(self.ids) - most_tokens))
        places = np.delete(np.arange(len(self.ids)), own[len(own) - surplus :])
        chosen = places.tolist()
        return ReadSide(
            ids=[self.ids[n] for n in chosen], offsets=[self.offsets[n] for n in chosen], added=self.added[places]
        )


def asked_for(source: ReadSide, target: ReadSide, counted: npt.NDArray[np.bool_]) -> WeightedTokens:
    """A source, and a target of which some tokens count [T]."""
    weights = np.concatenate([np.zeros(len(source.ids)), counted]).astype(np.float32)
    return WeightedTokens(np.array([*source.ids, *target.ids], np.uint32), weights, second=len(source.ids))


class PairEncoder:
    """Makes one part of source and target; a longer one loses its end, as in training."""

    def __init__(self, tokenizer: Any, most_tokens: int) -> None:
        """Take the tokenizer of a model, and the most tokens of either text."""
        self._tokenizer, self._most = tokenizer, most_tokens

    def encode(self, documents: Sequence[Document]) -> list[EncodedDocument]:
        """Read sources and targets.

        Raises:
            CorpusError: A prompt or completion is a conversation, or has no token.
        """
        return [weighted(self._paired(document)) for document in documents]

    def _paired(self, document: Document) -> EncodedDocument:
        prompt, completion = (document.content[name] for name in ("prompt", "completion"))
        place = f"document {document.document_id!r}"
        if not isinstance(prompt, str) or not isinstance(completion, str):
            raise CorpusError(
                field=place,
                expected="texts as prompt and completion of an encoder-decoder",
                found="messages",
                remedy="write them as texts",
            )
        sides = {"prompt": ReadSide.of(self._tokenizer, prompt, target=False)}
        sides["completion"] = ReadSide.of(self._tokenizer, completion, target=True)
        notes: tuple[str, ...] = ()
        for name, side in sides.items():
            if not side.ids:
                raise CorpusError(field=place, expected=f"a {name} with a token", found="none", remedy="remove it")
            if len(side.ids) > self._most:
                notes += (f"its {name} has {len(side.ids)} tokens, of which {self._most} are kept",)
        source, target = (side.within(self._most) for side in sides.values())
        text = f"{prompt}{ARROW}{completion}"
        asked = asked_for(source, target, np.ones(len(target.ids), bool))
        part = Part(part=0, start=0, end=len(text), objective=Objective((asked,)))
        return EncodedDocument(document=replace(document, text=text), parts=[part], notes=notes)
