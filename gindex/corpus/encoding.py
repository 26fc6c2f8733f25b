"""Documents of every form as the model reads them: cut into parts of tokens, and which of these count.

Axes: T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gindex.config import (
    ALL_TOKENS,
    ASSISTANT_TURNS,
    COMPLETION,
    MESSAGES,
    PREFERENCE,
    TEXT,
    TOKENS,
    USUAL_TOKENS,
    CorpusConfig,
)
from gindex.corpus.contents import OBJECT
from gindex.corpus.conversation import EncodedConversation, encode_conversation
from gindex.corpus.conversation_parts import cut_conversation
from gindex.corpus.objectives import Objective, Preference, WeightedTokens
from gindex.corpus.packing import Packer
from gindex.corpus.picture_texts import PictureTexts, weighted_conversation
from gindex.corpus.records import Document
from gindex.corpus.tokens import Encoding, Offsets, Part, Tokenizer, cut, decode_each, encode_texts, span_of
from gindex.errors import CorpusError

Weights = npt.NDArray[np.float32]

REJECTED = "\n\n[rejected]\n\n"
"""What stands in the text of a preference between the chosen text and the rejected answer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedDocument:
    """A document as the model reads it.

    Attributes:
        document: The document, with its text.
        parts: Its parts; none where no token counts.
        notes: What is to be told of how it became tokens.
    """

    document: Document
    parts: list[Part]
    notes: tuple[str, ...] = ()


class Encoder(Protocol):
    """What makes objectives of documents, as a task asks for."""

    def encode(self, documents: Sequence[Document]) -> list[EncodedDocument]:
        """Documents as the model reads them.

        Raises:
            CorpusError: One cannot be made a part of; names it.
            TokenizerError: The tokenizer cannot do what is needed.
        """
        ...


class DocumentEncoder:
    """Cuts documents for models that predict the next token into parts, as the settings say."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: CorpusConfig,
        vocabulary: int | None = None,
        pictures: PictureTexts | None = None,
    ) -> None:
        """Take the tokenizer of a model.

        Args:
            tokenizer: The tokenizer.
            config: How documents are cut, and which of their tokens count.
            vocabulary: How many tokens the model has; prepared tokens are checked against it.
            pictures: What reads conversations, and their pictures, where the model reads these.
        """
        self._tokenizer: Any = tokenizer
        self._chat: Any = tokenizer if pictures is None else pictures.tokenizer
        self._pictures = pictures
        self._config, self._vocabulary = config, vocabulary
        self._max_tokens = config.pack or config.max_tokens or USUAL_TOKENS
        self._packer = Packer(config.pack) if config.pack else None

    def encode(self, documents: Sequence[Document]) -> list[EncodedDocument]:
        """Cut documents into parts, texts with one call of the tokenizer.

        Raises:
            CorpusError: A document has no token, or its form cannot be written as one text; names it.
            TokenizerError: The tokenizer cannot tell offsets, or has no chat template for a conversation.
        """
        plain = [n for n, document in enumerate(documents) if _is_plain(document)]
        whole = {n: replace(documents[n], text=_whole_text(documents[n])) for n in plain}
        texts = [document.text for document in whole.values()]
        encodings = dict(zip(plain, encode_texts(self._tokenizer, texts) if texts else [], strict=True))
        return [
            weighted(self._plain(whole[n], encodings[n]) if n in whole else self._other(document))
            for n, document in enumerate(documents)
        ]

    def _plain(self, document: Document, encoding: Encoding) -> EncodedDocument:
        """A text, or a completion of a text."""
        weights = _counting(len(encoding.tokens))
        notes: tuple[str, ...] = ()
        if document.form == COMPLETION and self._config.loss != ALL_TOKENS:
            weights, notes = _completion_weights(document, encoding.offsets, weights)
        tokens, offsets = encoding.tokens, encoding.offsets
        if self._packer is not None and document.form == TEXT and tokens:
            weights[0] = 1  # the end of the document before predicts it
            end = self._tokenizer.eos_token_id
            if not encoding.after and end is not None and tokens[-1] != end:
                tokens, offsets, weights = [*tokens, end], [*offsets, (0, 0)], np.append(weights, np.float32(1))
        return EncodedDocument(document=document, parts=self._cut(document, tokens, offsets, weights), notes=notes)

    def _other(self, document: Document) -> EncodedDocument:
        try:
            if document.form == TOKENS:
                return self._prepared(document)
            if document.form == PREFERENCE:
                return self._preference(document)
            return self._conversation(document)
        except CorpusError as error:
            place = f"document {document.document_id!r}"
            if error.field.startswith(place):
                raise
            raise CorpusError(
                field=f"{place}, {error.field}" if error.field else place,
                expected=error.expected,
                found=error.found,
                remedy=error.remedy,
            ) from error

    def _prepared(self, document: Document) -> EncodedDocument:
        tokens = document.tokens
        if tokens is None:
            raise CorpusError(field="tokens", expected="prepared tokens", found="none", remedy="read the record again")
        if self._vocabulary is not None and int(tokens.ids.max()) >= self._vocabulary:
            raise CorpusError(
                field="input_ids",
                expected=f"tokens of the model, below {self._vocabulary:,}",
                found=f"{int(tokens.ids.max()):,}",
                remedy="prepare them with this model's tokenizer",
            )
        pieces = decode_each(self._tokenizer, tokens.ids.tolist())
        ends = np.cumsum([len(piece) for piece in pieces]).tolist()
        offsets = [(end - len(piece), end) for end, piece in zip(ends, pieces, strict=True)]
        document = replace(document, text="".join(pieces))
        parts = self._cut(document, tokens.ids.tolist(), offsets, tokens.weights)
        return EncodedDocument(document=document, parts=parts)

    def _conversation(self, document: Document) -> EncodedDocument:
        encoded = self._encoded(document.content, *_turns(document), self._config.loss)
        if self._pictures is not None and (document.pictures or OBJECT in encoded.text):
            return self._pictured(document, encoded, self._pictures)
        document = replace(document, text=encoded.text)
        if self._packer is not None:
            weights = np.array(encoded.counted, np.float32)
            parts = self._packer.add(encoded.tokens, encoded.offsets, weights)
            return EncodedDocument(document=document, parts=parts, notes=encoded.notes)
        parts = []
        for number, part in enumerate(cut_conversation(encoded, self._max_tokens)):
            weights = np.array(encoded.counted[part.start : part.end], np.float32)
            weights[: max(1, part.first - part.start)] = 0
            ids = np.array(encoded.tokens[part.start : part.end], np.uint32)
            start, end = span_of(encoded.offsets[part.first : part.end], 0)
            objective = Objective((WeightedTokens(ids, weights),))
            parts.append(Part(part=number, start=start, end=end, objective=objective))
        notes = encoded.notes
        if len(parts) > 1:
            notes += (f"it has {len(encoded.tokens)} tokens and is cut at turns into {len(parts)} parts",)
        return EncodedDocument(document=document, parts=parts, notes=notes)

    def _pictured(self, document: Document, encoded: EncodedConversation, texts: PictureTexts) -> EncodedDocument:
        """A conversation with pictures, which is one part; its end is cut off where that is too long."""
        if self._packer is not None:
            raise CorpusError(
                field="pack", expected="documents without pictures", found="some", remedy="leave `pack` out"
            )
        shown = encoded.text.replace(OBJECT, texts.placeholder)
        read, total = weighted_conversation(encoded, document.pictures, texts, self._max_tokens)
        part = Part(part=0, start=0, end=len(shown), objective=Objective((read,)))
        cut_off = (f"it has {total} tokens with its pictures, of which the first {len(read)} are kept",)
        notes = encoded.notes + cut_off * (len(read) < total)
        return EncodedDocument(document=replace(document, text=shown), parts=[part], notes=notes)

    def _encoded(self, content: dict[str, Any], messages: list[Any], prompt: int, loss: str) -> EncodedConversation:
        """A conversation of which the assistant's turns after a number of turns count."""
        said = [n for n, message in enumerate(messages) if message["role"] == "assistant" and n >= prompt]
        chosen = None if loss == ALL_TOKENS or not prompt else said
        return encode_conversation(
            self._chat, messages, tools=content.get("tools"), loss=loss, turns=chosen, place="conversation"
        )

    def _preference(self, document: Document) -> EncodedDocument:
        if self._packer is not None:
            raise CorpusError(
                field="pack", expected="documents of one text", found="a preference", remedy="leave `pack` out"
            )
        content = document.content
        if isinstance(content["chosen"], str):
            sides = [self._answered(content["prompt"], content[name]) for name in ("chosen", "rejected")]
        else:
            sides = [self._answered_turns(content, content[name]) for name in ("chosen", "rejected")]
        (chosen, first), (rejected, second) = sides
        shared = next((n for n, pair in enumerate(zip(chosen, rejected, strict=False)) if pair[0] != pair[1]), 0)
        text = chosen + REJECTED + rejected[shared:]
        texts = tuple(_kept_end(side, self._max_tokens) for side in (first, second))
        longest = max(len(first), len(second))
        notes: tuple[str, ...] = ()
        if longest > self._max_tokens:
            notes = (f"it has {longest} tokens, of which {self._max_tokens} are kept",)
        preference = Preference(beta=self._config.beta, reference=content["reference"])
        parts = [Part(part=0, start=0, end=len(text), objective=Objective(texts, preference))]
        if not all(text.counted.any() for text in texts):
            parts = []
        return EncodedDocument(document=replace(document, text=text), parts=parts, notes=notes)

    def _answered(self, prompt: str, answer: str) -> tuple[str, WeightedTokens]:
        (encoding,) = encode_texts(self._tokenizer, [prompt + answer])
        weights = _counting(len(encoding.tokens))
        weights[[end <= len(prompt) for _, end in encoding.offsets]] = 0
        weights[len(encoding.tokens) - encoding.after :] = 1
        return prompt + answer, WeightedTokens(np.array(encoding.tokens, np.uint32), weights)

    def _answered_turns(self, content: dict[str, Any], answer: list[Any]) -> tuple[str, WeightedTokens]:
        turns = [*content["prompt"], *answer]
        loss = ASSISTANT_TURNS if self._config.loss == ALL_TOKENS else self._config.loss
        encoded = self._encoded(content, turns, len(content["prompt"]), loss)
        return encoded.text, WeightedTokens(np.array(encoded.tokens, np.uint32), np.array(encoded.counted, np.float32))

    def _cut(self, document: Document, tokens: list[int], offsets: Offsets, weights: Weights) -> list[Part]:
        if not tokens:
            raise CorpusError(
                field=f"document {document.document_id!r}",
                expected="at least one token",
                found="none in its text",
                remedy="remove it",
            )
        if self._packer is not None:
            return self._packer.add(tokens, offsets, weights)
        return cut(tokens, offsets, weights, self._max_tokens, self._config.overlap)


def searched_text(document: Document) -> str:
    """What word searches find a document by: its text; of conversations what is said, without the template's words."""
    content = document.content
    sides = [content.get(name) for name in ("messages", "prompt", "completion", "chosen", "rejected")]
    said = [message.get("content", "") for side in sides if isinstance(side, list) for message in side]
    return "\n".join(said).replace(OBJECT, " ") if said else document.text


def _is_plain(document: Document) -> bool:
    return document.form == TEXT or (document.form == COMPLETION and isinstance(document.content["completion"], str))


def _whole_text(document: Document) -> str:
    if document.form == TEXT:
        return document.text
    return str(document.content["prompt"] + document.content["completion"])


def _turns(document: Document) -> tuple[list[Any], int]:
    """The turns of a conversation, and how many of them are its prompt."""
    content = document.content
    if document.form == MESSAGES:
        return content["messages"], 0
    return [*content["prompt"], *content["completion"]], len(content["prompt"])


def _counting(tokens: int) -> Weights:
    """Weights of a text all of whose tokens count but the first."""
    weights = np.ones(tokens, np.float32)
    weights[:1] = 0
    return weights


def _completion_weights(document: Document, offsets: Offsets, weights: Weights) -> tuple[Weights, tuple[str, ...]]:
    """The weights of a text of which the completion alone counts: the tokens that hold a character of it."""
    boundary = len(document.content["prompt"])
    counted = np.array([end > boundary for _, end in offsets], bool)
    # What the tokenizer adds at the end of a text has no characters, and was trained on as the completion was.
    last = int(np.flatnonzero(counted).max(initial=-1))
    counted[last + 1 :] = last >= 0
    first = int(counted.argmax())
    split = counted.any() and boundary > 0 and offsets[first][0] < boundary
    note = "a token holds the end of the prompt and the beginning of the completion, and counts as a whole"
    return weights * counted, (note,) if split else ()


def _kept_end(text: WeightedTokens, most: int) -> WeightedTokens:
    """At most so many tokens: the prompt loses its beginning, an answer that is longer still its end."""
    if len(text) <= most:
        return text
    first = int(text.counted.argmax())
    start = max(0, min(first - 1, len(text) - most))
    weights = text.weights[start : start + most].copy()
    weights[0] = 0
    return WeightedTokens(text.ids[start : start + most], weights)


def weighted(encoded: EncodedDocument) -> EncodedDocument:
    """Multiply the losses of a document by its weight, and leave out the parts in which nothing counts."""
    weight = encoded.document.weight
    if weight == 1:
        return encoded
    if weight == 0:
        return replace(encoded, parts=[])
    return replace(encoded, parts=[replace(part, objective=part.objective.times(weight)) for part in encoded.parts])
