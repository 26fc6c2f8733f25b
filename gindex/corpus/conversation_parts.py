"""Parts of conversations that are longer than what the model takes: cut at turns where possible.

A conversation is a row of exchanges: what is asked, and the turns of the assistant and its tools after it. Parts are
made of whole exchanges. One that is too long is cut at a turn, or else within one, and goes on with as much of it as
fits as context.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from gindex.corpus.conversation import EncodedConversation
from gindex.corpus.messages import ASSISTANT, TOOL
from gindex.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ConversationPart:
    """Tokens [start, end) of a conversation that are run through the model at once.

    Attributes:
        start: First token.
        first: First token of its own; those before it are context, and count in the part before if at all.
        end: Token past the last.
    """

    start: int
    first: int
    end: int


def cut_conversation(encoded: EncodedConversation, max_tokens: int) -> list[ConversationPart]:
    """Cut a conversation into parts of at most `max_tokens` tokens.

    Every token that counts is a part's own exactly once, with a token before it in the part. A part of which no token
    counts is left out. A conversation that fits is one part.

    Args:
        encoded: The conversation.
        max_tokens: Most tokens of a part, at least 2.

    Raises:
        ConfigError: max_tokens is below 2, so that no part could predict anything.
    """
    if max_tokens < 2:
        raise ConfigError(field="max_tokens", expected="at least 2", found=max_tokens)
    exchanges, turns = _beginnings(encoded)
    parts: list[ConversationPart] = []
    first, total = 0, len(encoded.tokens)
    while first < total:
        exchange = exchanges[bisect_right(exchanges, first) - 1]
        # The token before an exchange is taken where it predicts one that counts.
        earliest = max(0, exchange - encoded.counted[exchange])
        limit = min(total, first + max_tokens - (first > earliest))
        end = _last_beginning(exchanges, first, limit) or _last_turn(turns, first, limit, max_tokens) or limit
        if any(encoded.counted[first:end]):
            parts.append(ConversationPart(start=max(earliest, end - max_tokens), first=first, end=end))
        first = end
    return parts


def _beginnings(encoded: EncodedConversation) -> tuple[list[int], list[int]]:
    """First tokens of exchanges and of turns, both with the count of all tokens at the end."""
    total = len(encoded.tokens)
    roles = [message["role"] for message in encoded.messages]
    starts = [start for start, _ in encoded.turns]
    turns = sorted({0, *starts, total})
    asked = {
        start
        for start, (before, role) in zip(starts[1:], pairwise(roles), strict=True)
        if before == ASSISTANT and role not in (ASSISTANT, TOOL)
    }
    return sorted({0, *asked, total}), turns


def _last_beginning(beginnings: Sequence[int], first: int, limit: int) -> int | None:
    """The last of the beginnings after `first`, up to `limit`."""
    position = bisect_right(beginnings, limit) - 1
    return beginnings[position] if beginnings[position] > first else None


def _last_turn(turns: Sequence[int], first: int, limit: int, max_tokens: int) -> int | None:
    """The last turn that begins up to `limit`, unless it has to be cut all the same."""
    begin = _last_beginning(turns, first, limit)
    if begin is None:
        return None
    end = turns[bisect_left(turns, begin) + 1]
    return begin if end - begin < max_tokens else None
