"""Messages of both styles become the same; what is no conversation is refused by its turn."""

import json

import pytest

from gindex.corpus.messages import parse_completion, parse_messages, parse_pair, parse_tools
from gindex.errors import CorpusError

USER = {"role": "user", "content": "Hello"}
ANSWER = {"role": "assistant", "content": "How are you?"}
OTHER = {"role": "assistant", "content": "Go away."}
CALL = {"function": {"name": "weather", "arguments": "{}"}}


def test_styles_become_the_same():
    expected = ({"role": "system", "content": "Be kind."}, USER, ANSWER, {"role": "tool", "content": "1"})
    share_gpt = [
        {"from": "system", "value": "Be kind."},
        {"from": "human", "value": "Hello"},
        {"from": "gpt", "value": "How are you?"},
        {"from": "tool", "value": "1"},
    ]
    assert parse_messages(share_gpt, "x") == expected
    assert parse_messages(list(expected), "x") == expected
    assert parse_messages(json.dumps(expected), "x") == expected


def test_pieces_of_text_are_put_together_and_nulls_left_out():
    pieces = [{"type": "text", "text": "How "}, {"type": "text", "text": "are you?"}]
    message = {"role": "assistant", "content": pieces, "tool_calls": None, "name": "Ann", "weight": 1}
    assert parse_messages([message], "x") == (ANSWER | {"name": "Ann", "weight": 1},)


def test_tool_calls_are_kept_as_they_are_or_read_from_json():
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert parse_messages([message], "x") == ({"role": "assistant", "tool_calls": [CALL]},)
    assert parse_messages([message | {"tool_calls": json.dumps([CALL])}], "x") == parse_messages([message], "x")


def test_unknown_roles_are_left_to_the_template():
    assert parse_messages([{"role": "critic", "content": "No."}], "x")[0]["role"] == "critic"


def test_the_record_is_not_changed():
    message = {"from": "gpt", "value": "Yes", "weight": None}
    parse_messages([message], "x")
    assert message == {"from": "gpt", "value": "Yes", "weight": None}


IMAGE = {"type": "image_url", "image_url": {"url": "data:"}}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "x: expected a list of messages, found null"),
        ("Hello", "x: expected a list, or one as JSON text, found other text"),
        ({}, "x: expected a list of messages, found an object"),
        ([], "x: expected at least one message, found none"),
        (["Hello"], r"x, turn 1: expected a message, .* found a text"),
        ([USER, {"content": "a"}], "x, turn 2: expected a role, which is a text, found none"),
        ([{"role": 3, "content": "a"}], "turn 1: expected a role, .* found a value of type int"),
        ([{"from": ["gpt"], "value": "a"}], "turn 1: expected a role, .* found a list"),
        ([{"role": "user"}], r"turn 1 \(user\): expected content, found none"),
        ([USER, {"role": "assistant", "content": ""}], r"x, turn 2 \(assistant\): .* found an empty turn"),
        ([USER, {"from": "gpt", "value": " \n"}], r"turn 2 \(assistant\): .* found a blank turn"),
        ([USER, ANSWER | {"content": "", "tool_calls": []}], "found an empty turn"),
        ([{"role": "user", "content": 4}], "expected content that is text or a list of pieces, found a value of type"),
        ([{"role": "user", "content": [IMAGE]}], r"\(user\), piece 1: expected text, .* found one of type 'image_url'"),
        ([{"role": "user", "content": ["a"]}], "piece 1: expected text, .* found a text"),
        ([ANSWER | {"tool_calls": [{"function": {}}]}], r"turn 1 \(assistant\), tool call 1: expected a function with"),
        ([ANSWER | {"tool_calls": [3]}], "tool_calls: expected a list of objects, found a list"),
        ([ANSWER | {"tool_calls": "["}], "tool_calls: expected a list, or one as JSON text"),
        ([USER | {"content": "\ud800"}], "found half a surrogate pair"),
        ([USER | {"name": {1}}], "expected a message of JSON values, found Object of type set"),
    ],
)
def test_what_is_no_conversation_is_refused(value, message):
    with pytest.raises(CorpusError, match=message):
        parse_messages(value, "x")


def test_only_turns_of_the_completion_count():
    conversation = parse_completion([USER, ANSWER, USER], [ANSWER, USER, OTHER], "x")
    assert conversation.messages == (USER, ANSWER, USER, ANSWER, USER, OTHER)
    assert conversation.assistant_turns == (3, 5)
    with pytest.raises(CorpusError, match="x, completion: expected a turn of the assistant after the prompt"):
        parse_completion([USER, ANSWER], [USER], "x")


@pytest.mark.parametrize(
    ("prompt", "head"), [(None, [USER, ANSWER, USER]), ([USER, ANSWER, USER], []), ([USER], [USER, ANSWER, USER])]
)
def test_sides_of_a_pair_count_after_their_prompt(prompt, head):
    chosen, rejected = parse_pair(prompt, [*head, ANSWER], [*head, OTHER], "x")
    assert chosen.messages == (USER, ANSWER, USER, ANSWER) and rejected.messages == (USER, ANSWER, USER, OTHER)
    assert len(chosen.assistant_turns) == (2 if prompt == [USER] else 1)
    assert chosen.assistant_turns[-1:] == rejected.assistant_turns[-1:] == (3,)


def test_prompt_of_a_pair_may_be_a_text_that_the_sides_repeat_or_not():
    for head in ([], [USER]):
        chosen, rejected = parse_pair("Hello", [*head, ANSWER], [*head, OTHER], "x")
        assert chosen.messages == (USER, ANSWER) and rejected.messages == (USER, OTHER)


@pytest.mark.parametrize(
    ("chosen", "rejected", "message"),
    [
        ([USER, ANSWER], None, "x: expected both sides of a pair, found no 'rejected'"),
        (None, [USER, ANSWER], "found no 'chosen'"),
        ([USER, ANSWER], [USER, ANSWER], "two sides that differ, .* its gradient is zero"),
        ([USER, ANSWER], [USER, ANSWER, USER], "x, chosen: expected a turn of the assistant after the prompt"),
        ([USER, ANSWER], [{"role": "user"}], "x, rejected, turn 1"),
    ],
)
def test_what_is_no_pair_is_refused(chosen, rejected, message):
    with pytest.raises(CorpusError, match=message):
        parse_pair(None, chosen, rejected, "x")


def test_tools_are_objects_in_a_list_or_its_json():
    assert parse_tools(None, "x") is None and parse_tools([], "x") is None
    assert parse_tools([CALL], "x") == parse_tools(json.dumps([CALL]), "x") == [CALL]
    for value, message in (({}, "x: expected a list of tools"), (["f"], "x, tool 1: expected an object, found a text")):
        with pytest.raises(CorpusError, match=message):
            parse_tools(value, "x")
