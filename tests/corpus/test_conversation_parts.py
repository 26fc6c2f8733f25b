"""Long conversations are cut at turns where that is possible, and every token that counts is one part's own."""

from itertools import pairwise

import chat_templates as published
import pytest
from chat_templates import chat_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from gindex.corpus.conversation import EncodedConversation, encode_conversation
from gindex.corpus.conversation_parts import ConversationPart, cut_conversation
from gindex.errors import ConfigError


def conversation(turns: list[tuple[str, int]], *, loss: str = "assistant") -> EncodedConversation:
    """A conversation of turns with so many tokens each, of which the first is the header."""
    bounds, counted = [0], []
    for role, tokens in turns:
        bounds.append(bounds[-1] + tokens)
        counted += [loss == "all" or (role == "assistant" and n > 0) for n in range(tokens)]
    return EncodedConversation(
        messages=tuple({"role": role, "content": "x"} for role, _ in turns),
        text="x" * len(counted),
        tokens=list(range(len(counted))),
        offsets=[(n, n + 1) for n in range(len(counted))],
        counted=[False, *counted[1:]],
        turns=tuple(pairwise(bounds)),
        contents=(None,) * len(turns),
    )


TURNS = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), st.integers(0, 12)), min_size=1, max_size=8
).filter(lambda turns: sum(tokens for _, tokens in turns) > 0)


@given(turns=TURNS, max_tokens=st.integers(2, 30), loss=st.sampled_from(["assistant", "all"]))
def test_every_token_that_counts_is_predicted_in_one_part(turns, max_tokens, loss):
    encoded = conversation(turns, loss=loss)
    own = [n for part in cut_conversation(encoded, max_tokens) for n in range(part.first, part.end)]
    assert [n for n in own if encoded.counted[n]] == [n for n, is_counted in enumerate(encoded.counted) if is_counted]
    for part in cut_conversation(encoded, max_tokens):
        assert 0 <= part.start <= part.first < part.end and part.end - part.start <= max_tokens
        assert part.start < part.first or not encoded.counted[part.first]
        assert any(encoded.counted[part.first : part.end])


@given(turns=TURNS, max_tokens=st.integers(2, 30))
def test_exchanges_that_fit_are_not_cut(turns, max_tokens):
    encoded = conversation(turns)
    roles = [role for role, _ in turns]
    first_turns = [0] + [
        n for n in range(1, len(turns)) if roles[n - 1] == "assistant" and roles[n] in ("user", "system")
    ]
    bounds = [encoded.turns[n][0] for n in first_turns] + [len(encoded.tokens)]
    for part in cut_conversation(encoded, max_tokens):
        exchange = max(bound for bound in bounds[:-1] if bound <= part.first)
        end = min(bound for bound in bounds if bound > part.first)
        if end - exchange <= max_tokens:
            assert part.start == part.first == exchange and part.end in bounds


def test_conversation_that_fits_is_one_part():
    encoded = conversation([("user", 4), ("assistant", 6)])
    assert cut_conversation(encoded, 10) == [ConversationPart(start=0, first=0, end=10)]


def test_parts_begin_with_a_question():
    encoded = conversation([("user", 4), ("assistant", 6), ("user", 4), ("assistant", 6), ("user", 3)])
    assert cut_conversation(encoded, 17) == [ConversationPart(0, 0, 10), ConversationPart(10, 10, 23)]


def test_long_exchange_is_cut_at_a_turn_with_what_fits_of_it_as_context():
    encoded = conversation([("user", 8), ("assistant", 6), ("tool", 3), ("assistant", 7)])
    assert cut_conversation(encoded, 18) == [ConversationPart(0, 0, 17), ConversationPart(6, 17, 24)]


def test_long_turn_is_cut_within_and_goes_on_with_the_token_before():
    encoded = conversation([("user", 3), ("assistant", 20)])
    assert cut_conversation(encoded, 10) == [
        ConversationPart(0, 0, 10),
        ConversationPart(9, 10, 19),
        ConversationPart(13, 19, 23),
    ]


def test_parts_of_a_real_conversation_are_turns():
    talk = [{"role": role, "content": f"Hello {n}"} for n in range(3) for role in ("user", "assistant")]
    encoded = encode_conversation(chat_tokenizer(published.CHATML), talk)
    parts = cut_conversation(encoded, 2 * (encoded.turns[2][0]) + 2)
    assert [(part.first, part.end) for part in parts] == [
        (0, encoded.turns[4][0]),
        (encoded.turns[4][0], len(encoded.tokens)),
    ]
    assert encoded.text[encoded.offsets[parts[1].start][0] :].startswith("<|im_start|>user\nHello 2")


def test_parts_must_have_room_for_a_target():
    with pytest.raises(ConfigError, match="at least 2, found 1"):
        cut_conversation(conversation([("assistant", 4)]), 1)
