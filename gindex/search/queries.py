"""Queries as the model reads them: checked, and cut into tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gindex.errors import QueryError
from gindex.model.load import LoadedModel
from gindex.search.hit import Query


@dataclass(frozen=True, eq=False)
class QueryTokens:
    """Token ids of prompt and completion, and the position of the first that counts in the loss."""

    ids: npt.NDArray[np.uint32]
    first_target: int


def tokenize_query(query: Query, loaded: LoadedModel) -> QueryTokens:
    """Cut a query into tokens.

    Raises:
        QueryError: It has nothing to predict, more tokens than the model takes, or is not Unicode text.
    """
    tokenizer, name = loaded.tokenizer, f"query {query.id}" if query.id else "query"
    for text in (query.prompt, query.completion or ""):
        if not _is_unicode(text):
            raise QueryError(f"{name}: expected Unicode text, found half a surrogate pair; correct it")
    prompt = list(tokenizer(query.prompt).input_ids)
    completion: list[int] = []
    if query.completion is not None:
        completion = list(tokenizer(query.completion, add_special_tokens=False).input_ids)
        if not completion:
            raise QueryError(
                f"{name}: expected a completion with at least one token, found none; leave it out or fill it"
            )
    ids = np.array(prompt + completion, np.uint32)
    first_target = max(1, len(prompt)) if completion else 1
    if len(ids) <= first_target:
        raise QueryError(
            f"{name}: expected a token to predict after the first, found {len(ids)} in all; give a longer prompt"
        )
    if len(ids) > loaded.max_tokens:
        raise QueryError(
            f"{name}: expected at most {loaded.max_tokens} tokens, which the model takes, found {len(ids)}; shorten it"
        )
    return QueryTokens(ids, first_target)


def first_targets(queries: Sequence[QueryTokens]) -> npt.NDArray[np.int64]:
    """Return the first position of each query [Q] that counts in its loss."""
    return np.array([query.first_target for query in queries], np.int64)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
