"""Queries as the model reads them: texts of tokens, and how much each token counts."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from gindex.config import PREFERENCE
from gindex.corpus.objectives import Objective
from gindex.errors import CorpusError, QueryError, TokenizerError
from gindex.queries.counted_text import TokenLimit, token_limit
from gindex.queries.forms import DOCUMENT, SET, form_of, name_of
from gindex.queries.preferences import encode_preference
from gindex.queries.prepared_tokens import words_of_tokens
from gindex.queries.query import FailedQuery, Query
from gindex.queries.reader import QueryReader
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
    queries: Sequence[Query], reader: QueryReader, *, long_queries: str = REFUSE, max_tokens: int | None = None
) -> list[QueryTokens | FailedQuery]:
    """Cut queries into tokens; one that cannot be used does not stop the others. See `tokenize_query`."""
    found: list[QueryTokens | FailedQuery] = []
    for query in queries:
        try:
            found.append(tokenize_query(query, reader, long_queries=long_queries, max_tokens=max_tokens))
        except QueryError as error:
            found.append(FailedQuery(query=query, error=error))
    return found


def tokenize_query(
    query: Query, reader: QueryReader, *, long_queries: str = REFUSE, max_tokens: int | None = None
) -> QueryTokens:
    """Cut a query into tokens.

    Args:
        query: The query.
        reader: The model, with its tokenizer and its task.
        long_queries: `cut` leaves out the beginning of a prompt or the earliest turns of a conversation where there are
            more tokens than the model takes; `refuse` refuses.
        max_tokens: Most tokens of a text, where that is fewer than the model takes.

    Raises:
        QueryError: It is of no form or of several, has nothing to predict, too many tokens, or a sum of zero; its
            messages are malformed, or the model's chat template cannot write them.
    """
    form, limit = _form_for(query, reader), token_limit(reader.max_tokens, long_queries, max_tokens)
    with _as_query_errors():
        if form == PREFERENCE:
            return QueryTokens(*encode_preference(query, reader, limit), query.text)
        return (_tokenize_set if form == SET else _tokenize)(query, reader, limit)


def tokenize_all(queries: Sequence[Query], reader: QueryReader) -> list[QueryTokens]:
    """Cut queries into tokens, none of which may fail; that some have notes goes to the log. See `tokenize_query`.

    Raises:
        QueryError: The first query that cannot be used.
    """
    found = [tokenize_query(query, reader) for query in queries]
    log_notes([tokens.notes for tokens in found])
    return found


def log_notes(notes: Sequence[tuple[str, ...]]) -> None:
    """Warn where some queries have notes, with the first of them, where no result would tell them."""
    told = [of_query for of_query in notes if of_query]
    if told:
        logger.warning("notes on %d of %d queries, the first: %s", len(told), len(notes), told[0][0])


def _tokenize(query: Query, reader: QueryReader, limit: TokenLimit) -> QueryTokens:
    """Tokens of a query of any form but a set or a preference."""
    terms, notes = _terms(query, reader, limit)
    weighted = [(query.weight * weight, tokens) for weight, tokens in terms]
    return QueryTokens(weighted_sum(weighted, name_of(query)), notes, _words(query, reader))


def _form_for(query: Query, reader: QueryReader) -> str:
    """The form of a query, which is one that the model's task takes."""
    form = form_of(query)
    if form not in (SET, DOCUMENT, *reader.query_forms):
        raise QueryError(
            field=name_of(query),
            expected=f"a prompt: the model of this index takes no other form ({', '.join(reader.query_forms)})",
            found=form,
            remedy="see docs/tasks.md",
        )
    return form


def _words(query: Query, reader: QueryReader) -> str:
    return query.text if query.input_ids is None else words_of_tokens(query, reader)


def _terms(query: Query, reader: QueryReader, limit: TokenLimit) -> tuple[list[Term], tuple[str, ...]]:
    """Texts and what their losses are multiplied by, without the query's weight; and what is to be told of them."""
    form = _form_for(query, reader)
    if form == DOCUMENT:
        return [(1.0, text) for text in reader.stored(query.document or "")], ()
    texts = reader.query_texts(query, form, limit)
    notes = tuple(note for text in texts for note in text.notes)
    if len(texts) == 1:
        return [(1.0, texts[0].tokens)], notes
    said, contrast = texts
    return difference(said.tokens, contrast.tokens, name_of(query)), notes


def _tokenize_set(query: Query, reader: QueryReader, limit: TokenLimit) -> QueryTokens:
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
        own, told = _terms(member, reader, limit)
        terms += [(query.weight * share * weight, tokens) for weight, tokens in own]
        notes += [f"{name_of(member)}: {note}" for note in told]
    words = "\n".join(_words(member, reader) for member in members)
    return QueryTokens(weighted_sum(terms, name_of(query)), tuple(notes), words)


@contextmanager
def _as_query_errors() -> Iterator[None]:
    """Raise what is wrong with a conversation, or with how it can be written, as an error of the query."""
    try:
        yield
    except (CorpusError, TokenizerError) as error:
        raise QueryError(**error.parts()) from error
