"""Queries of tokens that were prepared elsewhere, with what says which of them count."""

import numpy as np

from gindex.config import TOKENS, CorpusConfig
from gindex.corpus.forms import read_form
from gindex.corpus.objectives import WeightedTokens
from gindex.corpus.tokens import decode_each
from gindex.errors import QueryError
from gindex.queries.counted_text import CountedText, TokenLimit, quoted
from gindex.queries.forms import name_of
from gindex.queries.query import Query
from gindex.queries.reader import QueryReader

_FIELDS = ("input_ids", "labels", "loss_mask", "loss_weights")


def encode_prepared(query: Query, loaded: QueryReader, limit: TokenLimit) -> CountedText:
    """Tokens of a query that gives them itself; without labels, mask or weights all count but the first.

    Raises:
        CorpusError: They are not token ids, or what says which of them count does not fit them.
        QueryError: A token is not the model's, none counts, or there are too many.
    """
    name = name_of(query)
    given = {field: getattr(query, field) for field in _FIELDS if getattr(query, field) is not None}
    tokens = read_form(given, name, CorpusConfig(form=TOKENS)).tokens
    if tokens is None or not tokens.counted.any():
        raise QueryError(
            field=name,
            expected="a token after the first that counts",
            found="none",
            remedy="correct what says which tokens count",
        )
    if int(tokens.ids.max()) >= loaded.vocabulary:
        raise QueryError(
            field=f"{name}, input_ids",
            expected=f"tokens of the model, below {loaded.vocabulary:,}",
            found=f"{int(tokens.ids.max()):,}",
            remedy="prepare them with this model's tokenizer",
        )
    end = int(np.flatnonzero(tokens.counted)[-1]) + 1
    tokens = WeightedTokens(tokens.ids[:end], tokens.weights[:end])
    return CountedText(tokens) if end <= limit.most else _shortened(tokens, loaded, limit, name, whole=len(given) == 1)


def words_of_tokens(query: Query, loaded: QueryReader) -> str:
    """The text of tokens, without the special ones."""
    special = set(loaded.tokenizer.all_special_ids)
    return "".join(decode_each(loaded.tokenizer, [token for token in query.input_ids or () if token not in special]))


def _shortened(
    tokens: WeightedTokens, loaded: QueryReader, limit: TokenLimit, name: str, *, whole: bool
) -> CountedText:
    """Leave out the first tokens after the special ones that the text begins with.

    Raises:
        QueryError: That is not wanted, or tokens that count would be left out that were said to count.
    """
    end, special = len(tokens), set(loaded.tokenizer.all_special_ids)
    before = next((n for n, token in enumerate(tokens.ids.tolist()) if token not in special), 0)
    left_out = end - limit.most
    kept = np.r_[0:before, before + left_out : end]
    weights = tokens.weights[kept]
    loses = tokens.counted[before : before + left_out + (before == 0)].any() and not whole
    if not limit.cuts or loses or before >= limit.most:
        raise QueryError(
            field=name,
            expected=f"at most {limit.text}" + (", of those that count and those between them" if loses else ""),
            found=end,
            remedy="shorten it",
        )
    weights[0] = 0
    rest = "".join(decode_each(loaded.tokenizer, tokens.ids[kept[before:]].tolist()))
    note = (
        f"of {end} tokens the first {left_out} are left out{' and do not count' if whole else ''}, to keep "
        f"{limit.text}; what is left begins with {quoted(rest)}"
    )
    return CountedText(WeightedTokens(tokens.ids[kept], weights), (note,))
