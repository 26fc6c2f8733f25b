"""Texts of queries to models that predict the next token: completions, conversations, and prepared tokens."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from gindex.config import COMPLETION, LAST_TURN, MESSAGES, TOKENS
from gindex.corpus.messages import ASSISTANT, Message, assistant_turns, parse_messages, parse_tools
from gindex.errors import QueryError
from gindex.queries.completions import Prompted, encode_completion
from gindex.queries.conversations import CountedTurns, answer_turn, encode_turns
from gindex.queries.counted_text import CountedText, TokenLimit, encode_alike
from gindex.queries.forms import name_of
from gindex.queries.prepared_tokens import encode_prepared
from gindex.queries.query import Query
from gindex.queries.reader import QueryReader


def predicted_texts(query: Query, form: str, reader: QueryReader, limit: TokenLimit) -> list[CountedText]:
    """Texts of a query of any form but a set or a preference; see `QueryReader.query_texts`."""
    beside = next((name for name in ("label", "pair", "image", "tensors") if getattr(query, name) is not None), None)
    if beside is not None:
        reads = "reads no pictures" if beside == "image" else "predicts the next token, and gives no labels"
        raise QueryError(
            field=f"{name_of(query)}, {beside}",
            expected=f"none: the model {reads}",
            found="one",
            remedy="say with `completion` what the model said",
        )
    return _TEXTS[form](query, reader, limit)


def check_completion(query: Query) -> None:
    """Check that a contrast or a span has a completion beside it.

    Raises:
        QueryError: It has none.
    """
    beside = next((name for name in ("contrast", "span") if getattr(query, name) is not None), None)
    if query.completion is None and beside is not None:
        raise QueryError(
            field=name_of(query),
            expected=f"a completion beside the {beside}",
            found="a prompt alone",
            remedy="say with `completion` what the model said",
        )


def _completion(query: Query, reader: QueryReader, limit: TokenLimit) -> list[CountedText]:
    check_completion(query)
    name = name_of(query)
    asked = [Prompted(prompt=query.prompt, completion=query.completion, span=query.span, name=name)]
    if query.contrast is not None:
        if not isinstance(query.contrast, str):
            raise QueryError(
                field=f"{name}, contrast", expected="a text, as the completion is", found="messages", remedy="give that"
            )
        asked.append(Prompted(prompt=query.prompt, completion=query.contrast, name=f"{name}, contrast"))
    return encode_alike([partial(encode_completion, reader.tokenizer, each) for each in asked], limit)


def _conversation(query: Query, reader: QueryReader, limit: TokenLimit) -> list[CountedText]:
    name = name_of(query)
    messages = parse_messages(query.messages, f"{name}, messages")
    asked = [replace(_turns(query, messages, name), span=query.span)]
    if query.contrast is not None:
        place = f"{name}, contrast"
        asked.append(_turns(query, _other_messages(query, messages, place), place))
    return encode_alike([partial(encode_turns, reader.tokenizer, each) for each in asked], limit)


def _turns(query: Query, messages: Sequence[Message], name: str) -> CountedTurns:
    """A conversation, and which of its turns a query counts."""
    loss, tools = query.loss or LAST_TURN, parse_tools(query.tools, f"{name}, tools")
    turns = [answer_turn(messages, query.turn, name)] if loss == LAST_TURN else None
    return CountedTurns(messages=messages, tools=tools, loss=loss, turns=turns, name=name)


def _other_messages(query: Query, messages: Sequence[Message], name: str) -> Sequence[Message]:
    """The conversation of a contrast: one that is given whole, or the query's with another answer."""
    if not isinstance(query.contrast, str):
        return parse_messages(query.contrast, name)
    turn = query.turn or max(assistant_turns(messages), default=len(messages) - 1) + 1
    answer = {"role": ASSISTANT, "content": query.contrast}
    return parse_messages([*messages[: turn - 1], answer, *messages[turn:]], name)


_TEXTS: dict[str, Callable[[Query, QueryReader, TokenLimit], list[CountedText]]] = {
    COMPLETION: _completion,
    MESSAGES: _conversation,
    TOKENS: lambda query, reader, limit: [encode_prepared(query, reader, limit)],
}
"""What gives the texts of a form: what was said and, where there is one, the contrast."""
