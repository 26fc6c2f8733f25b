"""Queries as the model reads them: prompt and completion as one text, cut into tokens once, and checked.

What the model is given when it goes on from a prompt is one text with one beginning. So a query is cut as a document
is, and the tokens that hold characters of the completion count in its loss. What that leaves to be told (a token that
holds characters of both, a prompt that was cut) is in the query's notes.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gindex.config import REFUSE
from gindex.corpus.objectives import Objective, TokenIds
from gindex.corpus.tokens import Encoding, encode_texts
from gindex.errors import QueryError
from gindex.model.load import LoadedModel
from gindex.queries.query import FailedQuery, Query

logger = logging.getLogger(__name__)

SHOWN_CHARACTERS = 40
"""Most characters of a text that a note quotes."""


@dataclass(frozen=True, eq=False)
class QueryTokens:
    """A query as the model reads it.

    Attributes:
        objective: Its texts, and the tokens that count in its loss.
        notes: What is to be told of how the text became tokens.
    """

    objective: Objective
    notes: tuple[str, ...] = ()


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

    The whole text is cut at once, begun as documents are. The first token that counts is the first that holds a
    character of the completion; of a prompt alone, the first after the text's beginning. What the tokenizer adds at the
    end of a text is left out: that the text ends there is not what the model said.

    Args:
        query: Prompt and completion.
        loaded: The model with its tokenizer.
        long_queries: `cut` leaves out the first tokens of the prompt where there are more than the model takes, but
            for the beginning; `refuse` refuses.
        max_tokens: Most tokens, where that is fewer than the model takes.

    Raises:
        QueryError: It has nothing to predict, too many tokens, or is not Unicode text.
    """
    _check_text(query)
    (encoding,) = encode_texts(loaded.tokenizer, [query.text])
    end = len(encoding.tokens) - encoding.after
    first = _first_counted(query, encoding, end)
    notes = [] if query.completion is None else _boundary_notes(query, encoding, first)
    ids, first = np.array(encoding.tokens[:end], np.uint32), max(1, first)
    if end <= first:
        raise QueryError(
            field=name_of(query),
            expected="a token to predict after the first",
            found=f"{end} in all",
            remedy="give a longer prompt",
        )
    most = min(loaded.max_tokens, max_tokens or loaded.max_tokens)
    if end <= most:
        return QueryTokens(Objective.counting(ids, first), tuple(notes))
    limit = f"{most} tokens, which {'the model takes' if most == loaded.max_tokens else 'are allowed here'}"
    if long_queries == REFUSE:
        raise QueryError(field=name_of(query), expected=f"at most {limit}", found=end, remedy="shorten it")
    ids, first, note = _shortened(query, encoding, ids, first, most, limit)
    return QueryTokens(Objective.counting(ids, first), (*notes, note))


def _check_text(query: Query) -> None:
    for part in (query.prompt, query.completion or ""):
        if not _is_unicode(part):
            raise QueryError(
                field=name_of(query), expected="Unicode text", found="half a surrogate pair", remedy="correct it"
            )


def _first_counted(query: Query, encoding: Encoding, end: int) -> int:
    """Position of the first token that holds a character of the completion; of a prompt alone, the first of the text.

    Raises:
        QueryError: The completion has no token.
    """
    first = min(encoding.before, end)
    if query.completion is not None and query.prompt:
        first = next((n for n in range(first, end) if encoding.offsets[n][1] > len(query.prompt)), end)
    if first == end and query.completion is not None:
        raise QueryError(
            field=name_of(query),
            expected="a completion with at least one token",
            found="none",
            remedy="leave it out or fill it",
        )
    return first


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


def name_of(query: Query) -> str:
    """What messages call a query."""
    return f"query {query.id}" if query.id else "query"


def _boundary_notes(query: Query, encoding: Encoding, first: int) -> list[str]:
    """What is to be told of where the completion begins.

    White space that no offset covers belongs to the token after it: byte-level tokenizers may leave it out of offsets.
    """
    prompt, completion = query.prompt, query.completion or ""
    text, boundary = query.text, len(prompt)
    start, end = encoding.offsets[first]
    covered = max((stop for _, stop in encoding.offsets[:first]), default=0)
    while start > covered and text[start - 1].isspace():
        start -= 1
    notes = []
    if start < boundary:
        move = "; move it to the completion if the model said it" if prompt[start:].isspace() else ""
        notes.append(
            f"the token {_quoted(text[start:end])} holds the end of the prompt, {_quoted(prompt[start:])}, and the "
            f"beginning of the completion, and counts as a whole{move}"
        )
    if _is_lettered(prompt[-1:]) and _is_lettered(completion[:1]):
        notes.append(
            f"the completion goes on without a space, as in {_quoted(text[max(0, boundary - 10) : boundary + 10])}; "
            "begin it with one if one is meant"
        )
    if first == 0:
        notes.append(
            f"the token {_quoted(text[start:end])} does not count: the completion begins with it, and neither a prompt "
            "nor a beginning that the tokenizer adds is there to predict it"
        )
    return notes


def _is_lettered(character: str) -> bool:
    """Whether a character is a digit, or a letter of a script with two cases: those put spaces between words."""
    return character.isdecimal() or character.lower() != character.upper()


def _shortened(
    query: Query, encoding: Encoding, ids: TokenIds, first: int, most: int, limit: str
) -> tuple[TokenIds, int, str]:
    """Leave out the first tokens after the text's beginning; return the others, the first that counts, and a note.

    Raises:
        QueryError: The completion alone has too many.
    """
    before, end = encoding.before, len(ids)
    counted, beginning = end - first, max(1, before)
    if query.completion is not None and counted > most - beginning:
        raise QueryError(
            field=name_of(query),
            expected=f"at most {limit}, {beginning} of them before the completion",
            found=f"{counted} in the completion",
            remedy="shorten it",
        )
    left_out = end - most
    ids = np.concatenate([ids[:before], ids[before + left_out :]])
    rest = query.text[encoding.offsets[before + left_out][0] :]
    note = (
        f"of {end} tokens the first {left_out} are left out{'' if query.completion else ' and do not count'}"
        f", to keep {limit}; what is left of the prompt begins with {_quoted(rest)}"
    )
    return ids, max(1, before, first - left_out), note


def _quoted(text: str) -> str:
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}...")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
