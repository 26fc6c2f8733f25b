"""Texts with a label, or pairs of texts, as classifiers of transformers are trained on them.

Axes: T tokens, K values of a label.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gindex.config import LABEL
from gindex.corpus.encoding import EncodedDocument, weighted
from gindex.corpus.labels import Label, Labels
from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.corpus.records import Document
from gindex.corpus.tokens import Part, with_offsets
from gindex.errors import TokenizerError

PAIR = " [and] "
"""What stands in the text of a pair between both."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadText:
    """A text, or a pair of them, as a classifier reads it.

    Attributes:
        ids: Token ids [T].
        second: Position where the second text begins, for models that tell both apart; None elsewhere.
        tokens: Tokens that there are in all, before any were left out.
    """

    ids: list[int]
    second: int | None
    tokens: int

    def asked(self, label: Label) -> WeightedTokens:
        """The same, asked for one label of the whole."""
        weights = np.zeros(len(self.ids), np.float32)
        weights[0] = 1
        return WeightedTokens(np.array(self.ids, np.uint32), weights, label[None].astype(np.float32), self.second)


class LabelEncoder:
    """Makes one part of each text; a longer one loses its end, as in training."""

    def __init__(self, tokenizer: Any, labels: Labels, most_tokens: int) -> None:
        """Take the tokenizer and the labels of a model, and the most tokens of a part."""
        self._tokenizer, self._labels, self._most = tokenizer, labels, most_tokens

    def encode(self, documents: Sequence[Document]) -> list[EncodedDocument]:
        """Read texts and labels.

        Raises:
            CorpusError: A label is none of the model's.
        """
        return [weighted(self._labelled(document)) for document in documents]

    def _labelled(self, document: Document) -> EncodedDocument:
        pair, name = document.content.get("pair"), f"document {document.document_id!r}"
        label = self._labels.read(document.content["label"], f"{name}, label")
        read = read_text(self._tokenizer, document.text, pair, self._most)
        text = shown_text(document.text, pair, self._labels.text(label))
        notes = (
            (f"it has {read.tokens} tokens, of which {len(read.ids)} are kept",) if read.tokens > len(read.ids) else ()
        )
        part = Part(part=0, start=0, end=len(text), objective=Objective((read.asked(label),)))
        return EncodedDocument(document=replace(document, text=text, form=LABEL), parts=[part], notes=notes)


def shown_text(text: str, pair: str | None, label: str) -> str:
    """A labelled text as people read it."""
    return f"[{label}] {text}" + ("" if pair is None else f"{PAIR}{pair}")


def read_text(tokenizer: Any, text: str, pair: str | None, most_tokens: int) -> ReadText:
    """Cut a text or a pair into tokens, those that the tokenizer puts around and between them included.

    Args:
        tokenizer: The tokenizer.
        text: The text, or the first of a pair.
        pair: The second one.
        most_tokens: Most tokens; beyond, the longer text loses its last ones.

    Raises:
        TokenizerError: The tokenizer numbers the texts of a pair otherwise than by 0 and 1, one after the other.
    """
    texts: list[Any] = [text if pair is None else (text, pair)]
    (encoding,) = with_offsets(tokenizer, texts, add_special_tokens=True).encodings  # type: ignore[attr-defined]
    kept = _kept(encoding.sequence_ids, most_tokens)
    ids, types = ([values[place] for place in kept] for values in (encoding.ids, encoding.type_ids))
    if pair is not None and (types != sorted(types) or not set(types) <= {0, 1}):
        raise TokenizerError(
            field="tokenizer",
            expected="a pair of texts as 0 and 1, one after the other",
            found=f"types {sorted(set(types))} in another order",
            remedy="join the texts yourself, in one field",
        )
    told_apart = pair is not None and "token_type_ids" in tokenizer.model_input_names
    second = types.index(1) if told_apart and 1 in types[1:] else None
    return ReadText(ids=ids, second=second, tokens=len(encoding.ids))


def _kept(sequences: Sequence[int | None], most_tokens: int) -> list[int]:
    """Places of the tokens that are kept: of the longer text the last go first."""
    own = {number: [n for n, of in enumerate(sequences) if of == number] for number in (0, 1)}
    left_out: set[int] = set()
    while len(sequences) - len(left_out) > most_tokens and any(own.values()):
        left_out.add(max(own.values(), key=len).pop())
    return [place for place in range(len(sequences)) if place not in left_out]
