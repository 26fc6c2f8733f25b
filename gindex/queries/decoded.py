"""Queries to encoder-decoders: what was read, and what was said of it."""

from typing import Any

import numpy as np

from gindex.corpus.objectives import WeightedTokens
from gindex.corpus.text_pairs import ReadSide, asked_for
from gindex.errors import QueryError
from gindex.queries.counted_text import CountedText, TokenLimit, quoted
from gindex.queries.forms import name_of
from gindex.queries.query import Query


def decoded_texts(query: Query, tokenizer: Any, limit: TokenLimit) -> list[CountedText]:
    """Texts of a query: the completion and, where there is one, the contrast, each after the prompt.

    The tokens that the tokenizer adds to a completion are read by the decoder, and do not count: that a text ends there
    is not what was said.

    Raises:
        QueryError: There is no completion, no token counts, or there are too many tokens.
    """
    name = name_of(query)
    wrong = next((each for each in ("label", "pair") if getattr(query, each) is not None), None)
    if query.completion is None or wrong is not None:
        raise QueryError(
            field=name if wrong is None else f"{name}, {wrong}",
            expected="a prompt that is read, and a completion that is said of it",
            found="a prompt alone" if wrong is None else f"`{wrong}`",
            remedy="say with `completion` what the model said",
        )
    source, notes = ReadSide.of(tokenizer, query.prompt, target=False), []
    if not source.ids:
        raise QueryError(field=name, expected="a prompt with a token", found="none", remedy="give one")
    if len(source.ids) > limit.most:
        if not limit.cuts:
            raise QueryError(field=name, expected=f"at most {limit.text}", found=len(source.ids), remedy="shorten it")
        notes.append(f"of {len(source.ids)} tokens of the prompt the last {len(source.ids) - limit.most} are left out")
        source = source.within(limit.most)
    texts = [CountedText(_said(source, query.completion, query.span, tokenizer, limit, name), tuple(notes))]
    if query.contrast is not None:
        place = f"{name}, contrast"
        texts.append(CountedText(_said(source, str(query.contrast), None, tokenizer, limit, place)))
    return texts


def _said(
    source: ReadSide, said: str, span: tuple[int, int] | None, tokenizer: Any, limit: TokenLimit, name: str
) -> WeightedTokens:
    target = ReadSide.of(tokenizer, said, target=True)
    if len(target.ids) > limit.most:
        raise QueryError(field=name, expected=f"at most {limit.text}", found=len(target.ids), remedy="shorten it")
    counted = ~target.added
    if span is not None:
        if not 0 <= span[0] < span[1] <= len(said):
            raise QueryError(
                field=f"{name}, span",
                expected=f"characters within 0:{len(said)}, at least one",
                found=f"{span[0]}:{span[1]}",
            )
        counted &= np.array([start < span[1] and span[0] < end for start, end in target.offsets])
    if not counted.any():
        raise QueryError(
            field=name, expected="a completion with a token that counts", found=quoted(said), remedy="give another"
        )
    return asked_for(source, target, counted)
