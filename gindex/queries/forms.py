"""The forms of queries: which one a query has, and which of its fields go with it."""

from math import isfinite
from typing import Any

from gindex.config import COMPLETION, LAST_TURN, LOSSES, MESSAGES, PREFERENCE, TOKENS
from gindex.errors import QueryError
from gindex.queries.query import Query, given_fields
from gindex.search_options import AGGREGATES

SET = "set"
"""Form of a query that is made of queries, beside the forms of documents."""

DOCUMENT = "document"
"""Form of a query that is a document of the index."""

_FIELDS = {
    COMPLETION: ("prompt", "completion", "contrast", "span", "label", "pair", "image", "tensors"),
    MESSAGES: ("messages", "tools", "loss", "turn", "contrast", "span", "image"),
    TOKENS: ("input_ids", "labels", "loss_mask", "loss_weights"),
    PREFERENCE: ("chosen", "rejected", "prompt", "tools", "ref_chosen_logp", "ref_rejected_logp", "beta"),
    DOCUMENT: ("document",),
    SET: ("queries", "aggregate"),
}
_OF_ANY = ("weight", "id")
_MADE_OF = {
    "messages": MESSAGES,
    "input_ids": TOKENS,
    "chosen": PREFERENCE,
    "rejected": PREFERENCE,
    "queries": SET,
    "document": DOCUMENT,
}
"""Fields that show a query's form; without any of them it is a completion."""


def form_of(query: Query) -> str:
    """The form of a query, of which all fields that are given go with it.

    Raises:
        QueryError: They are those of several forms, one needs another, or the weight is not finite or is zero.
    """
    given = given_fields(query)
    form = next((form for name, form in _MADE_OF.items() if name in given), COMPLETION)
    for name in given:
        if name not in (*_FIELDS[form], *_OF_ANY):
            raise QueryError(
                field=name_of(query),
                expected=f"the fields of one form, as {', '.join(_FIELDS[form])}",
                found=f"`{name}` beside `{next(iter(set(given) & set(_FIELDS[form])), 'prompt')}`",
                remedy="leave one of them out",
            )
    _check_weight(query)
    check = _CHECKS.get(form)
    if check is not None:
        check(query, given)
    return form


def name_of(query: Query) -> str:
    """What messages call a query."""
    return f"query {query.id}" if query.id else "query"


def _check_weight(query: Query) -> None:
    if isinstance(query.weight, bool) or not isfinite(query.weight) or not query.weight:
        raise QueryError(
            field=f"{name_of(query)}, weight",
            expected="a finite number other than zero",
            found=query.weight,
            remedy="leave the query out" if query.weight == 0 else "correct it",
        )


def _check_conversation(query: Query, given: dict[str, Any]) -> None:
    if query.loss is not None and query.loss not in LOSSES:
        raise QueryError(
            field=f"{name_of(query)}, loss", expected=f"one of {', '.join(LOSSES)}", found=repr(query.loss)
        )
    chosen = next((name for name in ("turn", "span") if name in given), None)
    if chosen is not None and query.loss not in (None, LAST_TURN):
        raise QueryError(
            field=f"{name_of(query)}, {chosen}",
            expected="no other `loss` beside it: it says what counts",
            found=repr(query.loss),
            remedy="leave one of them out",
        )


def _check_set(query: Query, _given: dict[str, Any]) -> None:
    if query.aggregate not in AGGREGATES or not query.queries:
        raise QueryError(
            field=name_of(query),
            expected=f"at least one query, and `aggregate` {' or '.join(AGGREGATES)}",
            found=f"{len(query.queries or ())} queries and {query.aggregate!r}",
        )


_CHECKS = {MESSAGES: _check_conversation, SET: _check_set}
"""What is checked of a form beside its fields."""
