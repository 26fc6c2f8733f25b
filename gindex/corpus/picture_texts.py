"""Texts with pictures: each picture is one character of the text, and a processor makes tokens of both.

A vision-language model's processor puts many placeholder tokens in the place of a picture. Until then a picture is the
character that Unicode has for objects within a text, so that a conversation is written, cut and counted as any other.

Axes: T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gindex.corpus.chat_template import ChatTokenizer
from gindex.corpus.contents import OBJECT, PICTURE_TEXT, Content, tensor_content
from gindex.corpus.conversation import EncodedConversation
from gindex.corpus.objectives import WeightedTokens
from gindex.errors import CorpusError

_TEXT = "text"


@dataclass(frozen=True, kw_only=True)
class PictureText:
    """A text with its pictures.

    Attributes:
        text: The text, with `OBJECT` where each picture stands.
        pictures: The pictures in order, each in its own encoding.
    """

    text: str
    pictures: tuple[Content, ...]

    def content(self) -> Content:
        """Both as an index keeps them: the text and the pictures' files as arrays of bytes in a safetensors file."""
        files = {f"{n:06d} {picture.type}": picture.data for n, picture in enumerate(self.pictures)}
        arrays = {name: np.frombuffer(data, np.uint8) for name, data in (files | {_TEXT: self.text.encode()}).items()}
        return Content(PICTURE_TEXT, tensor_content(arrays).data)

    @classmethod
    def of(cls, content: Content) -> "PictureText":
        """What an index has kept.

        Raises:
            ShapeError: The bytes are damaged.
        """
        arrays = content.tensors()
        text = arrays.pop(_TEXT).tobytes().decode()
        pictures = (Content(name.partition(" ")[2], array.tobytes()) for name, array in sorted(arrays.items()))
        return cls(text=text, pictures=tuple(pictures))


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpandedText:
    """The tokens that a processor makes of a text with pictures.

    Attributes:
        ids: Token ids [T].
        characters: Number of the character of the text that each token ends with [T]; -1 for tokens of pictures, and
            for those that the tokenizer adds.
        pictures_end: Position past the last token of a picture.
    """

    ids: npt.NDArray[np.uint32]
    characters: npt.NDArray[np.int64]
    pictures_end: int


class PictureTexts(Protocol):
    """What reads texts with pictures: a model's processor and tokenizer."""

    @property
    def placeholder(self) -> str:
        """What stands for a picture in what its chat template writes."""
        ...

    @property
    def tokenizer(self) -> ChatTokenizer:
        """The tokenizer of conversations in which `OBJECT` stands for each picture."""
        ...

    @property
    def fingerprint(self) -> str:
        """Fingerprint of how pictures become tokens and pixels."""
        ...

    def check(self) -> None:
        """Check that pictures can be read.

        Raises:
            CorpusError: There is no processor that can be used.
        """
        ...

    def expand(self, text: PictureText) -> ExpandedText:
        """Tokens of a text with its pictures.

        Raises:
            CorpusError: The processor does not take them.
        """
        ...


def weighted_conversation(
    encoded: EncodedConversation, pictures: Sequence[Content], texts: PictureTexts, most_tokens: int | None
) -> tuple[WeightedTokens, int]:
    """A conversation with pictures as one text, of which the tokens count that count without pictures.

    Args:
        encoded: The conversation, with one token for each picture.
        pictures: The pictures in order.
        texts: What makes tokens of both.
        most_tokens: Most tokens that are kept, from the beginning; None for those up to the last that counts.

    Returns:
        The tokens, none of a picture counting, and how many there were.

    Raises:
        CorpusError: There are not as many pictures as the text has places for, tokens that count are not those of the
            text alone, a picture has no room, or nothing that counts has.
    """
    texts.check()
    text = PictureText(text=encoded.text, pictures=tuple(pictures))
    places = text.text.count(OBJECT)
    if places != len(pictures):
        raise CorpusError(
            field="conversation",
            expected=f"as many places for pictures in what the chat template writes as there are, {len(pictures)}",
            found=places,
            remedy=f"correct the record, in whose text {texts.placeholder} must not stand, or the template",
        )
    expanded = texts.expand(text)
    counted = _counted(encoded, expanded)
    total = len(expanded.ids)
    needed = max(expanded.pictures_end, int(counted.argmax()) + 1)
    last = int(np.flatnonzero(counted).max(initial=0)) + 1
    end = max(expanded.pictures_end, last) if most_tokens is None else min(most_tokens, total)
    if end < needed or not counted.any():
        raise CorpusError(
            field="conversation",
            expected=f"at most {end} tokens of pictures and what goes before an answer, which are never cut",
            found=needed if counted.any() else "no answer",
            remedy="give more with `max_tokens`, where the model takes more, or smaller or fewer pictures",
        )
    return WeightedTokens(expanded.ids[:end], counted[:end].astype(np.float32), content=text.content()), total


def _counted(encoded: EncodedConversation, expanded: ExpandedText) -> npt.NDArray[np.bool_]:
    """Which tokens of a text with pictures count [T]: those of the characters that count without them.

    Raises:
        CorpusError: They are other tokens.
    """
    alone = [
        is_counted and OBJECT not in encoded.text[start:end]
        for is_counted, (start, end) in zip(encoded.counted, encoded.offsets, strict=True)
    ]
    characters = np.zeros(len(encoded.text) + 1, np.bool_)
    for (start, end), is_counted in zip(encoded.offsets, alone, strict=True):
        characters[start:end] = is_counted
    counted: npt.NDArray[np.bool_] = characters[expanded.characters] & (expanded.characters >= 0)
    counted[:1] = False
    expected = [token for token, is_counted in zip(encoded.tokens, alone, strict=True) if is_counted]
    if expanded.ids[counted].tolist() != expected:
        raise CorpusError(
            field="conversation",
            expected="pictures that leave the tokens which count as they are",
            found="other ones where they are put into the text",
            remedy="put text between a picture and what counts",
        )
    return counted
