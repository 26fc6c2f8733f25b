"""Queries to models that fill in masks: a prompt with masks and what fills them, or a text of which some is masked."""

from typing import Any

import numpy as np

from gindex.corpus.masking import asked_at
from gindex.corpus.objectives import WeightedTokens
from gindex.corpus.tokens import Encoding, encode_texts, with_offsets
from gindex.errors import QueryError
from gindex.queries.counted_text import CountedText, TokenLimit, quoted
from gindex.queries.forms import name_of
from gindex.queries.query import Query


def filled_texts(query: Query, tokenizer: Any, limit: TokenLimit) -> list[CountedText]:
    """Texts of a query: what fills the masks and, where there is one, what else might have.

    Raises:
        QueryError: There is no mask and no span, what fills them has another length, or there are too many tokens.
    """
    name = name_of(query)
    _check_fields(query, name)
    (encoding,) = encode_texts(tokenizer, [query.prompt])
    if len(encoding.tokens) > limit.most:
        raise QueryError(
            field=name, expected=f"at most {limit.text}", found=len(encoding.tokens), remedy="shorten the prompt"
        )
    ids = np.array(encoding.tokens, np.uint32)
    if query.span is not None:
        return [CountedText(_masked_span(query, query.span, encoding, ids, tokenizer, name))]
    masks = np.flatnonzero(ids == tokenizer.mask_token_id)
    if query.completion is None or not len(masks):
        raise QueryError(
            field=name,
            expected=f"{tokenizer.mask_token} in the prompt with a completion that fills it, or a `span` to mask",
            found="a prompt without the one" if not len(masks) else "no completion",
            remedy=f"as in 'The capital of France is {tokenizer.mask_token}.' with 'Paris', or characters as 0:6",
        )
    said = [query.completion] if query.contrast is None else [query.completion, str(query.contrast)]
    notes, texts = (), []
    for filling in said:
        filled = ids.copy()
        filled[masks] = _filling(filling, query.prompt, len(masks), tokenizer, name)
        texts.append(CountedText(asked_at(filled, masks, tokenizer.mask_token_id), notes))
    return texts


def _check_fields(query: Query, name: str) -> None:
    wrong = "label" if query.label is not None else "pair" if query.pair is not None else None
    if wrong is None and query.span is not None:
        wrong = next((each for each in ("completion", "contrast") if getattr(query, each) is not None), None)
    if wrong is not None:
        raise QueryError(
            field=f"{name}, {wrong}",
            expected="a prompt with masks and its completion, or a text with a `span` that is masked",
            found=f"`{wrong}`" + (" beside `span`" if query.span is not None else ""),
            remedy="leave it out",
        )


def _masked_span(
    query: Query, span: tuple[int, int], encoding: Encoding, ids: Any, tokenizer: Any, name: str
) -> WeightedTokens:
    """The text of which the tokens that hold characters of a span are masked."""
    text, (start, end) = query.prompt, span
    if not 0 <= start < end <= len(text):
        raise QueryError(
            field=f"{name}, span",
            expected=f"characters within 0:{len(text)}, at least one",
            found=f"{start}:{end}",
        )
    own = range(encoding.before, len(ids) - encoding.after)
    held = [n for n in own if encoding.offsets[n][0] < end and start < encoding.offsets[n][1]]
    held = [n for n in held if ids[n] not in tokenizer.all_special_ids and text[slice(*encoding.offsets[n])].strip()]
    if not held:
        raise QueryError(
            field=f"{name}, span",
            expected="characters of a token that can be masked",
            found=quoted(text[start:end]),
            remedy="choose others",
        )
    return asked_at(ids, np.array(held), tokenizer.mask_token_id)


def _filling(filling: str, prompt: str, masks: int, tokenizer: Any, name: str) -> list[int]:
    """Tokens that fill the masks of a prompt.

    Tokenizers that cut spaces along with words read a filling behind a space as one that begins with it: of these two
    ways to write it, the first that has as many tokens as there are masks is taken, with the space where the prompt
    has one before the mask.
    """
    before = prompt.partition(tokenizer.mask_token)[0]
    ways = [f" {filling}", filling] if before[-1:].isspace() and not filling[:1].isspace() else [filling]
    found = []
    for way in ways:
        (ids,) = with_offsets(tokenizer, [way], add_special_tokens=False)["input_ids"]
        found.append(list(ids))
    fitting = [ids for ids in found if len(ids) == masks]
    if not fitting:
        raise QueryError(
            field=f"{name}, completion",
            expected=f"{masks} token{'s' if masks > 1 else ''}, one for each {tokenizer.mask_token} of the prompt",
            found=f"{len(found[0])} in {quoted(filling)} ({', '.join(tokenizer.convert_ids_to_tokens(found[0])[:8])})",
            remedy="write as many masks as what fills them has tokens",
        )
    return fitting[0]
