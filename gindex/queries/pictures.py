"""Queries with pictures: a conversation that has some, or a prompt about one with what the model said."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gindex.config import LAST_TURN
from gindex.corpus.conversation import encode_conversation, select_characters
from gindex.corpus.message_pictures import PictureReader
from gindex.corpus.messages import ASSISTANT, assistant_turns, parse_messages, parse_tools
from gindex.corpus.objectives import WeightedTokens
from gindex.corpus.picture_pieces import PIECES
from gindex.corpus.picture_texts import PictureTexts, weighted_conversation
from gindex.errors import QueryError
from gindex.queries.conversations import answer_turn
from gindex.queries.counted_text import CountedText, TokenLimit
from gindex.queries.forms import name_of
from gindex.queries.query import Query
from gindex.queries.reader import QueryReader


@dataclass(frozen=True)
class ChatReader:
    """A reader whose tokenizer is that of a vision-language model's conversations: a `QueryReader`."""

    reader: QueryReader
    tokenizer: Any

    @property
    def max_tokens(self) -> int:
        """Most tokens that the model takes."""
        return self.reader.max_tokens

    @property
    def vocabulary(self) -> int:
        """How many tokens the model has."""
        return self.reader.vocabulary

    @property
    def query_forms(self) -> Sequence[str]:
        """Forms of queries that the task takes."""
        return self.reader.query_forms

    def stored(self, document_id: str) -> Sequence[WeightedTokens]:
        """Texts of a document that is asked as a query."""
        return self.reader.stored(document_id)

    def query_texts(self, query: Query, form: str, limit: TokenLimit) -> Sequence[CountedText]:
        """Texts of a query."""
        return self.reader.query_texts(query, form, limit)


def has_pictures(query: Query) -> bool:
    """Whether pictures stand in a query's messages or beside them."""
    sides = [query.messages, query.contrast if not isinstance(query.contrast, str) else None]
    return query.image is not None or any(_has_pieces(side) for side in sides if side is not None)


def pictured_texts(query: Query, texts: PictureTexts, limit: TokenLimit) -> list[CountedText]:
    """Texts of a query with pictures: what was said and, where there is one, the contrast.

    A prompt with `image` is what the user says, after the picture, and the completion what the assistant answers.

    Raises:
        CorpusError: There are not as many pictures as places for them, one cannot be taken, or the chat template does
            not write the conversation.
        QueryError: There is nothing that was said, or there are too many tokens.
    """
    name = name_of(query)
    wrong = next((each for each in ("label", "pair") if getattr(query, each) is not None), None)
    if wrong is not None:
        raise QueryError(
            field=f"{name}, {wrong}",
            expected="none: the model predicts the next token",
            found="one",
            remedy="leave it out",
        )
    messages = query.messages if query.messages is not None else _asked_about(query, name)
    found = [_counted(replace(query, messages=messages), texts, limit, name)]
    if query.contrast is not None:
        place = f"{name}, contrast"
        other = _other(query, messages)
        found.append(_counted(replace(query, messages=other, span=None), texts, limit, place))
    return found


def _asked_about(query: Query, name: str) -> list[dict[str, Any]]:
    """The conversation that a prompt about a picture is, with its completion."""
    if query.completion is None:
        raise QueryError(
            field=name,
            expected="a completion beside the picture",
            found="a prompt alone",
            remedy="say with `completion` what the model said",
        )
    return [_said("user", query.prompt), _said(ASSISTANT, query.completion)]


def _other(query: Query, messages: Sequence[Any]) -> Sequence[Any]:
    """The conversation of a contrast: one that is given whole, or the query's with another answer."""
    if not isinstance(query.contrast, str):
        return query.contrast or ()
    roles = [message.get("role", message.get("from")) if isinstance(message, Mapping) else None for message in messages]
    last = max((n for n, role in enumerate(roles, 1) if role in (ASSISTANT, "gpt")), default=len(roles))
    turn = query.turn or last
    return [*messages[: turn - 1], _said(ASSISTANT, query.contrast), *messages[turn:]]


def _counted(query: Query, texts: PictureTexts, limit: TokenLimit, name: str) -> CountedText:
    reader = PictureReader(query.image, f"{name}, messages")
    (read,) = reader.read(query.messages)
    messages = parse_messages(read, f"{name}, messages")
    loss = query.loss or LAST_TURN
    turns = [answer_turn(messages, query.turn, name)] if loss == LAST_TURN else None
    encoded = encode_conversation(
        texts.tokenizer, messages, tools=parse_tools(query.tools, f"{name}, tools"), loss=loss, turns=turns, place=name
    )
    if query.span is not None:
        turn = turns[0] if turns else assistant_turns(messages)[-1]
        encoded = select_characters(encoded, turn, *query.span)
    tokens, _ = weighted_conversation(encoded, reader.pictures, texts, None)
    if len(tokens) > limit.most:
        raise QueryError(
            field=name,
            expected=f"at most {limit.text}; conversations with pictures are not cut",
            found=len(tokens),
            remedy="shorten it, or give smaller or fewer pictures",
        )
    return CountedText(tokens, encoded.notes)


def _has_pieces(messages: Iterable[Any]) -> bool:
    contents = (message.get("content", message.get("value")) for message in messages if isinstance(message, Mapping))
    return any(
        isinstance(piece, Mapping) and piece.get("type") in PIECES
        for content in contents
        if isinstance(content, (list, tuple))
        for piece in content
    )


def _said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}
