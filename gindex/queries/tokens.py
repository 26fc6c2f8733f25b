"""Queries as the model reads them: texts of tokens, and how much each token counts."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from gindex.config import COMPLETION, LAST_TURN, MESSAGES, PREFERENCE, TOKENS
from gindex.corpus.messages import ASSISTANT, Message, assistant_turns, parse_messages, parse_tools
from gindex.corpus.objectives import Objective
from gindex.errors import CorpusError, QueryError, TokenizerError
from gindex.model.load import LoadedModel
from gindex.queries.completions import Prompted, encode_completion
from gindex.queries.conversations import CountedTurns, answer_turn, encode_turns
from gindex.queries.counted_text import CountedText, TokenLimit, encode_alike, token_limit
from gindex.queries.forms import SET, form_of, name_of
from gindex.queries.preferences import encode_preference
from gindex.queries.prepared_tokens import encode_prepared, words_of_tokens
from gindex.queries.query import FailedQuery, Query
from gindex.queries.sums import Term, difference, shares, weighted_sum
from gindex.search_options import MEAN, REFUSE

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class QueryTokens:
    """A query as the model reads it.

    Attributes:
        objective: Its texts, and the tokens that count in its loss.
        notes: What is to be told of how the texts became tokens.
        words: The text whose words are looked for.
    """

    objective: Objective
    notes: tuple[str, ...] = ()
    words: str = ""


def tokenize_queries(
    queries: Sequence[Query], loaded: LoadedModel, *, long_queries: str = REFUSE, max_tokens: int | None = None
) -> list[QueryTokens | FailedQuery]:
    """Cut queries into tokens; one that cannot be used does not stop the others. See `tokenize_query`."""
    found: list[QueryTokens | FailedQuery] = []
    for query in queries:
        try:
            found.append(tokenize_query(query, loaded, long_queries=long_queries, max_tokens=max_tokens))
        except QueryError as error:
            found.append(FailedQuery(query=query, error=error))
    return found


def tokenize_query(
    query: Query, loaded: LoadedModel, *, long_queries: str = REFUSE, max_tokens: int | None = None
) -> QueryTokens:
    """Cut a query into tokens.

    Args:
        query: The query.
        loaded: The model with its tokenizer.
        long_queries: `cut` leaves out the beginning of a prompt or the earliest turns of a conversation where there are
            more tokens than the model takes; `refuse` refuses.
        max_tokens: Most tokens of a text, where that is fewer than the model takes.

    Raises:
        QueryError: It is of no form or of several, has nothing to predict, too many tokens, or a sum of zero; its
            messages are malformed, or the model's chat template cannot write them.
    """
    form, limit = form_of(query), token_limit(loaded, long_queries, max_tokens)
    with _as_query_errors():
        if form == PREFERENCE:
            return QueryTokens(*encode_preference(query, loaded, limit), query.text)
        return (_tokenize_set if form == SET else _tokenize)(query, loaded, limit)


def tokenize_all(queries: Sequence[Query], loaded: LoadedModel) -> list[QueryTokens]:
    """Cut queries into tokens, none of which may fail; that some have notes goes to the log. See `tokenize_query`.

    Raises:
        QueryError: The first query that cannot be used.
    """
    found = [tokenize_query(query, loaded) for query in queries]
    log_notes([tokens.notes for tokens in found])
    return found


def log_notes(notes: Sequence[tuple[str, ...]]) -> None:
    """Warn where some queries have notes, with the first of them, where no result would tell them."""
    told = [of_query for of_query in notes if of_query]
    if told:
        logger.warning("notes on %d of %d queries, the first: %s", len(told), len(notes), told[0][0])


def _tokenize(query: Query, loaded: LoadedModel, limit: TokenLimit) -> QueryTokens:
    """Tokens of a query of any form but a set or a preference."""
    terms, notes = _terms(query, loaded, limit)
    weighted = [(query.weight * weight, tokens) for weight, tokens in terms]
    return QueryTokens(weighted_sum(weighted, name_of(query)), notes, _words(query, loaded))


def _words(query: Query, loaded: LoadedModel) -> str:
    return query.text if query.input_ids is None else words_of_tokens(query, loaded)


def _terms(query: Query, loaded: LoadedModel, limit: TokenLimit) -> tuple[list[Term], tuple[str, ...]]:
    """Texts and what their losses are multiplied by, without the query's weight; and what is to be told of them."""
    texts = _TEXTS[form_of(query)](query, loaded, limit)
    notes = tuple(note for text in texts for note in text.notes)
    if len(texts) == 1:
        return [(1.0, texts[0].tokens)], notes
    said, contrast = texts
    return difference(said.tokens, contrast.tokens, name_of(query)), notes


def _tokenize_set(query: Query, loaded: LoadedModel, limit: TokenLimit) -> QueryTokens:
    """Tokens of a set: those of all its queries, each times its share."""
    members = [replace(each, id=each.id or str(n)) for n, each in enumerate(query.queries or (), 1)]
    for member in members:
        if form_of(member) in (SET, PREFERENCE):
            raise QueryError(
                field=name_of(member),
                expected="a query of texts or tokens within a set",
                found="another set" if form_of(member) == SET else "a preference",
                remedy="ask it by itself, or give the rejected side of a preference as `contrast`",
            )
    portions = shares([member.weight for member in members], query.aggregate == MEAN, name_of(query))
    terms: list[Term] = []
    notes: list[str] = []
    for member, share in zip(members, portions, strict=True):
        own, told = _terms(member, loaded, limit)
        terms += [(query.weight * share * weight, tokens) for weight, tokens in own]
        notes += [f"{name_of(member)}: {note}" for note in told]
    words = "\n".join(_words(member, loaded) for member in members)
    return QueryTokens(weighted_sum(terms, name_of(query)), tuple(notes), words)


def _completion(query: Query, loaded: LoadedModel, limit: TokenLimit) -> list[CountedText]:
    name = name_of(query)
    asked = [Prompted(prompt=query.prompt, completion=query.completion, span=query.span, name=name)]
    if query.contrast is not None:
        if not isinstance(query.contrast, str):
            raise QueryError(
                field=f"{name}, contrast", expected="a text, as the completion is", found="messages", remedy="give that"
            )
        asked.append(Prompted(prompt=query.prompt, completion=query.contrast, name=f"{name}, contrast"))
    return encode_alike([partial(encode_completion, loaded.tokenizer, each) for each in asked], limit)


def _conversation(query: Query, loaded: LoadedModel, limit: TokenLimit) -> list[CountedText]:
    name = name_of(query)
    messages = parse_messages(query.messages, f"{name}, messages")
    asked = [replace(_turns(query, messages, name), span=query.span)]
    if query.contrast is not None:
        place = f"{name}, contrast"
        asked.append(_turns(query, _other_messages(query, messages, place), place))
    return encode_alike([partial(encode_turns, loaded.tokenizer, each) for each in asked], limit)


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


_TEXTS: dict[str, Callable[[Query, LoadedModel, TokenLimit], list[CountedText]]] = {
    COMPLETION: _completion,
    MESSAGES: _conversation,
    TOKENS: lambda query, loaded, limit: [encode_prepared(query, loaded, limit)],
}
"""What gives the texts of a form: what was said and, where there is one, the contrast."""


@contextmanager
def _as_query_errors() -> Iterator[None]:
    """Raise what is wrong with a conversation, or with how it can be written, as an error of the query."""
    try:
        yield
    except (CorpusError, TokenizerError) as error:
        raise QueryError(**error.parts()) from error
