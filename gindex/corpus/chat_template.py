"""A tokenizer's chat template, which writes a conversation as the text that the model reads."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from gindex.corpus.messages import Message
from gindex.corpus.tokens import Tokenizer
from gindex.errors import CorpusError, TokenizerError


class ChatTokenizer(Tokenizer, Protocol):
    """The interface of a Hugging Face tokenizer with a chat template, as far as it is used."""

    chat_template: str | dict[str, str] | None

    def get_chat_template(self, chat_template: str | None = None, tools: Any = None) -> str:
        """Template for a conversation with these tools."""
        ...

    def apply_chat_template(self, conversation: list[Message], /, **options: Any) -> Any:
        """Text of a conversation, or its tokens."""
        ...


class ChatTemplate:
    """The chat template of a tokenizer, for conversations with the same tools.

    Attributes:
        tools: The tools, as JSON schemas.
        marks_generation: Whether it marks what the assistant says, by {% generation %}.
    """

    def __init__(self, tokenizer: ChatTokenizer, tools: list[dict[str, Any]] | None = None) -> None:
        """Take the tokenizer's template.

        Raises:
            TokenizerError: It has none, or several without a default.
        """
        self._tokenizer, self.tools = tokenizer, tools
        if not getattr(tokenizer, "chat_template", None):
            raise TokenizerError(
                field="tokenizer",
                expected="a chat template, to read conversations with",
                found="none",
                remedy="take the tokenizer of a chat model, put the template that the model was trained with into "
                "chat_template.jinja beside it, or give the conversations as text",
            )
        try:
            self.marks_generation = _marks_generation(tokenizer.get_chat_template(tools=tools))
        except ValueError as error:
            raise TokenizerError(field="tokenizer", expected="one chat template", found=str(error)) from error

    def render(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        """Text of a conversation.

        Args:
            messages: All turns.
            generation_prompt: Whether the header of an answer follows.

        Raises:
            CorpusError: The template refuses the conversation, or fails.
        """
        try:
            text: str = self._tokenizer.apply_chat_template(
                list(messages), tools=self.tools, tokenize=False, add_generation_prompt=generation_prompt
            )
        except Exception as error:  # A template is a program, which may fail in any way.
            raise CorpusError(
                field="chat template",
                expected="a conversation that it takes",
                found=f"{type(error).__name__}: {error}",
                remedy="correct the conversation, or use the template that the model was trained with",
            ) from error
        return text

    def attempt(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str | None:
        """Text of a part of a conversation, or None where the template does not take it."""
        try:
            return self.render(messages, generation_prompt=generation_prompt) if messages else None
        except CorpusError:
            return None

    def encode_marked(self, messages: Sequence[Message]) -> Mapping[str, Any]:
        """Tokens, offsets, and the mask of what the template marks as said by the assistant, as transformers has it."""
        encoded: Mapping[str, Any] = self._tokenizer.apply_chat_template(
            list(messages),
            tools=self.tools,
            return_dict=True,
            return_assistant_tokens_mask=True,
            tokenizer_kwargs={"return_offsets_mapping": True, "verbose": False},
        )
        return encoded

    def without_tools(self) -> "ChatTemplate":
        """The template for the same conversations, were there no tools."""
        return ChatTemplate(self._tokenizer)


@lru_cache
def _marks_generation(template: str) -> bool:
    return re.search(r"\{%-?\s*generation\s*-?%\}", template) is not None
