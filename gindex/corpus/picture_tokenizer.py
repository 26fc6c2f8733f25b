"""A tokenizer to which a picture in a text is one character, and the chat template of a vision-language model."""

from collections.abc import Mapping, Sequence
from typing import Any

from gindex.corpus.contents import OBJECT
from gindex.corpus.messages import Message
from gindex.corpus.tokens import Offsets

_TRIED = "tried"


class PictureTokenizer:
    """A fast tokenizer of transformers for conversations in which `OBJECT` stands for each picture.

    What it gives has one token for each picture, or as many as its placeholder has; offsets are those of `OBJECT`.
    """

    def __init__(self, tokenizer: Any, template: str | dict[str, str] | None, placeholder: str) -> None:
        """Wrap a tokenizer.

        Args:
            tokenizer: The tokenizer.
            template: The chat template of the processor.
            placeholder: What the template writes for a picture.
        """
        self._tokenizer, self.chat_template, self._placeholder = tokenizer, template, placeholder
        self._takes_pieces: bool | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    @property
    def is_fast(self) -> bool:
        """Whether it gives the characters of every token."""
        return bool(self._tokenizer.is_fast)

    def __call__(self, text: list[str], /, **options: Any) -> Mapping[str, Any]:
        """Encode texts."""
        encoded = self._tokenizer([each.replace(OBJECT, self._placeholder) for each in text], **options)
        if not any(OBJECT in each for each in text) or "offset_mapping" not in encoded:
            return encoded  # type: ignore[no-any-return]
        offsets = zip(text, encoded["offset_mapping"], strict=True)
        return {**encoded, "offset_mapping": [self._of_objects(each, own) for each, own in offsets]}

    def get_chat_template(self, chat_template: str | None = None, tools: Any = None) -> str:
        """Template for a conversation with these tools."""
        return str(self._tokenizer.get_chat_template(chat_template or self.chat_template, tools=tools))

    def apply_chat_template(self, conversation: Sequence[Message], /, **options: Any) -> Any:
        """Text of a conversation, with `OBJECT` for each picture, or its tokens."""
        if self._takes_pieces is None:
            self._takes_pieces = self._try_pieces()
        written = [self._message(message) for message in conversation]
        found = self._tokenizer.apply_chat_template(written, chat_template=self.chat_template, **options)
        return found.replace(self._placeholder, OBJECT) if isinstance(found, str) else found

    def _try_pieces(self) -> bool:
        """Whether the template takes contents as lists of pieces, as most such templates do, or as one text."""
        message = {"role": "user", "content": [{"type": "text", "text": _TRIED}]}
        try:
            text = self._tokenizer.apply_chat_template([message], chat_template=self.chat_template, tokenize=False)
        except Exception:  # a template is a program, which may fail in any way
            return False
        return _TRIED in text and "'type'" not in text and '"type"' not in text

    def _message(self, message: Message) -> Message:
        content = message.get("content")
        if not isinstance(content, str):
            return message
        if not self._takes_pieces:
            return message | {"content": content.replace(OBJECT, self._placeholder)}
        before, *others = content.split(OBJECT)
        pieces: list[dict[str, str]] = _piece(before)
        for text in others:
            pieces += [{"type": "image"}, *_piece(text)]
        return message | {"content": pieces or [{"type": "text", "text": ""}]}

    def _of_objects(self, text: str, offsets: Offsets) -> Offsets:
        """Offsets in a text with placeholders as those in the text with `OBJECT`."""
        lengths = [len(self._placeholder) if character == OBJECT else 1 for character in text]
        places = [n for n, length in enumerate(lengths) for _ in range(length)]
        return [(places[start], places[end - 1] + 1) if end > start else (0, 0) for start, end in offsets]


def _piece(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}] if text else []
