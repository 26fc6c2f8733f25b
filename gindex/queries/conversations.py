"""Conversations of queries as the model reads them, and which of their tokens count.

A question about an answer is about that answer: the assistant's last turn counts, or one that is named. Of a
conversation that is too long, whole exchanges are left out from its beginning; what counts is never cut.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gindex.config import LAST_TURN
from gindex.corpus.chat_template import ChatTokenizer
from gindex.corpus.conversation import EncodedConversation, encode_conversation, select_characters
from gindex.corpus.messages import ASSISTANT, Message, assistant_turns
from gindex.corpus.objectives import WeightedTokens
from gindex.errors import QueryError
from gindex.queries.counted_text import CountedText, TokenLimit

_OPENING = ("system", "developer")
"""Roles of turns that a conversation begins with, and keeps where others are left out."""


@dataclass(frozen=True, kw_only=True)
class CountedTurns:
    """A conversation, and which of its tokens count.

    Attributes:
        messages: The turns, as `parse_messages` gives them.
        tools: Tools that the assistant may call, as JSON schemas.
        loss: What counts, one of `LOSSES`.
        turns: Numbers, from 0, of the assistant's turns that may count; all by default.
        span: First character, and that past the last, of the content of the only turn that counts, if the tokens of
            these alone do.
        name: What messages of errors call the query.
    """

    messages: Sequence[Message]
    tools: list[dict[str, Any]] | None = None
    loss: str = LAST_TURN
    turns: Collection[int] | None = None
    span: tuple[int, int] | None = None
    name: str = "query"

    def without(self, first: int, end: int) -> "CountedTurns":
        """The same without the turns [first, end)."""
        turns = None if self.turns is None else [turn - (end - first) for turn in self.turns if turn >= end]
        return replace(self, messages=[*self.messages[:first], *self.messages[end:]], turns=turns)


def answer_turn(messages: Sequence[Message], turn: int | None, name: str) -> int:
    """Number, from 0, of the turn that a query is about: the one that is named, or the last.

    Args:
        messages: The turns.
        turn: Its number from 1; None for the last.
        name: What messages of errors call the query.

    Raises:
        QueryError: There is no such turn, or it is not the assistant's.
    """
    found = len(messages) if turn is None else turn
    role = messages[found - 1]["role"] if 1 <= found <= len(messages) else None
    if role == ASSISTANT:
        return found - 1
    if turn is None:
        raise QueryError(
            field=name,
            expected="a conversation that ends with the assistant's answer, which is asked about",
            found=f"a turn of {role!r} at its end",
            remedy="add the answer" + (", or name a turn with `turn`" if assistant_turns(messages) else ""),
        )
    numbers = ", ".join(str(n + 1) for n in assistant_turns(messages)) or "none"
    raise QueryError(
        field=f"{name}, turn",
        expected=f"the number of a turn of the assistant, from 1: {numbers}",
        found=turn if role is None else f"{turn}, a turn of {role!r}",
    )


def encode_turns(tokenizer: ChatTokenizer, asked: CountedTurns, limit: TokenLimit) -> CountedText:
    """Write a conversation by the chat template and cut it into tokens, as `encode_conversation` does.

    What follows the last token that counts is left out: no loss depends on it.

    Raises:
        CorpusError: See `encode_conversation`.
        TokenizerError: The tokenizer has no chat template.
        QueryError: It has too many tokens; the span is not in the turn, or no token of it counts.
    """
    encoded = _encode(tokenizer, asked)
    length = _length(encoded)
    if length <= limit.most:
        return _counted_text(encoded)
    if not limit.cuts:
        raise QueryError(
            field=asked.name,
            expected=f"at most {limit.text}",
            found=length,
            remedy="shorten it, or leave its earliest turns out with `long_queries` cut",
        )
    opening = next((n for n, message in enumerate(asked.messages) if message["role"] not in _OPENING), 0)
    for first in _exchanges(asked, opening):
        if length - _tokens_between(encoded, opening, first) > limit.most:
            continue  # not worth to be written again
        shorter = _encode(tokenizer, asked.without(opening, first))
        if _length(shorter) <= limit.most:
            return _counted_text(shorter, (_left_out_note(asked, opening + 1, first, limit),))
    raise QueryError(
        field=asked.name,
        expected=f"at most {limit.text}",
        found=f"{length}, and too many without the earlier turns, too",
        remedy="shorten the last ones",
    )


def _encode(tokenizer: ChatTokenizer, asked: CountedTurns) -> EncodedConversation:
    encoded = encode_conversation(
        tokenizer, asked.messages, tools=asked.tools, loss=asked.loss, turns=asked.turns, place=asked.name
    )
    if asked.span is None:
        return encoded
    (turn,) = asked.turns or ()
    return select_characters(encoded, turn, *asked.span)


def _counted_text(encoded: EncodedConversation, notes: tuple[str, ...] = ()) -> CountedText:
    end = _length(encoded)
    weights = np.array(encoded.counted[:end], np.float32)
    return CountedText(WeightedTokens(np.array(encoded.tokens[:end], np.uint32), weights), (*encoded.notes, *notes))


def _left_out_note(asked: CountedTurns, first: int, last: int, limit: TokenLimit) -> str:
    """What is to be told where the turns from `first` to `last`, numbered from 1, are left out."""
    turns = f"turn {first} is" if first == last else f"turns {first} to {last} are"
    rest = "" if asked.turns is not None else " and do not count"
    return f"of {len(asked.messages)} turns, {turns} left out{rest}, to keep {limit.text}"


def _length(encoded: EncodedConversation) -> int:
    """Tokens up to the last that counts."""
    return len(encoded.counted) - encoded.counted[::-1].index(True)


def _exchanges(asked: CountedTurns, opening: int) -> list[int]:
    """Turns with which a shorter conversation may begin after its opening, so that what has to count still does."""
    messages = asked.messages
    last = min(asked.turns) if asked.turns else max(assistant_turns(messages), default=len(messages) - 1)
    roles = [message["role"] for message in messages]
    return [
        n for n in range(opening + 1, last + 1) if roles[n - 1] == ASSISTANT and roles[n] not in (ASSISTANT, "tool")
    ]


def _tokens_between(encoded: EncodedConversation, first: int, end: int) -> int:
    """Tokens of the turns [first, end)."""
    return sum(stop - start for start, stop in encoded.turns[first:end])
