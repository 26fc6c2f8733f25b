"""Queries of a preference: the loss of DPO of one answer over another."""

from collections.abc import Callable
from functools import partial
from typing import Any

from gindex.config import ASSISTANT_TURNS, PREFERENCE, CorpusConfig
from gindex.corpus.forms import read_form
from gindex.corpus.messages import assistant_turns
from gindex.corpus.objectives import Objective, Preference
from gindex.errors import ConfigError, QueryError
from gindex.options import default_of
from gindex.queries.completions import Prompted, encode_completion
from gindex.queries.conversations import CountedTurns, encode_turns
from gindex.queries.counted_text import CountedText, TokenLimit, encode_alike
from gindex.queries.forms import name_of
from gindex.queries.query import Query
from gindex.queries.reader import QueryReader

SIDES = ("chosen", "rejected")


def encode_preference(query: Query, loaded: QueryReader, limit: TokenLimit) -> tuple[Objective, tuple[str, ...]]:
    """Tokens of both sides of a preference, with its loss; and what is to be told of them.

    Raises:
        CorpusError: A side is missing, both are equal, or they cannot be written; or one reference alone is given.
        QueryError: A side has nothing to predict, or too many tokens.
    """
    name = name_of(query)
    beta = default_of(CorpusConfig, "beta") if query.beta is None else query.beta
    try:
        config = CorpusConfig(form=PREFERENCE, beta=beta)
    except ConfigError as error:
        raise QueryError(**error.parts() | {"field": f"{name}, beta"}) from error
    fields = ("prompt", *SIDES, "tools", "ref_chosen_logp", "ref_rejected_logp")
    given = {field: value for field in fields if (value := getattr(query, field)) not in (None, "")}
    content = read_form(given, name, config).content
    sides = encode_alike([_encoder(content, side, name, loaded) for side in SIDES], limit)
    preference = Preference(beta=beta, reference=content["reference"], weight=query.weight)
    notes = tuple(f"{side}: {note}" for side, text in zip(SIDES, sides, strict=True) for note in text.notes)
    return Objective(tuple(text.tokens for text in sides), preference), notes


def _encoder(content: dict[str, Any], side: str, name: str, loaded: QueryReader) -> Callable[[TokenLimit], CountedText]:
    """What encodes a side after the prompt of both."""
    prompt, answer, name = content["prompt"], content[side], f"{name}, {side}"
    if isinstance(answer, str):
        return partial(encode_completion, loaded.tokenizer, Prompted(prompt=prompt, completion=answer, name=name))
    messages = [*prompt, *answer]
    turns = [turn for turn in assistant_turns(messages) if turn >= len(prompt)]
    asked = CountedTurns(messages=messages, tools=content.get("tools"), loss=ASSISTANT_TURNS, turns=turns, name=name)
    return partial(encode_turns, loaded.tokenizer, asked)
