"""Conversations become the tokens of transformers, and exactly what the assistant says counts."""

import chat_templates as published
import pytest
from chat_templates import BACKENDS, chat_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from gindex.corpus.conversation import EncodedConversation, encode_conversation, select_characters
from gindex.corpus.messages import parse_messages
from gindex.errors import ConfigError, CorpusError, QueryError, TokenizerError

TALK = (
    {"role": "user", "content": "What is a compiler?"},
    {"role": "assistant", "content": "It translates code."},
    {"role": "user", "content": "Thank you"},
    {"role": "assistant", "content": "You are welcome."},
)
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
WITH_TOOL = (
    {"role": "user", "content": "How is the weather in Paris?"},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "content": "sunny"},
    {"role": "assistant", "content": "The weather in Paris is sunny."},
)
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def said(encoded: EncodedConversation) -> list[str]:
    """Texts of the rows of tokens that count."""
    runs, before = [], False
    for (start, end), is_counted in zip(encoded.offsets, encoded.counted, strict=True):
        if is_counted and before:
            runs[-1][1] = end
        elif is_counted:
            runs.append([start, end])
        before = is_counted
    return [encoded.text[start:end] for start, end in runs]


ENDS = {
    "CHATML": "<|im_end|>",
    "SMOLLM2": "<|im_end|>",
    "LLAMA3": "<|eot_id|>",
    "GEMMA": "<end_of_turn>",
    "ZEPHYR": "</s>",
    "DEEPSEEK": "</s>",
    "MARKED": "<|im_end|>",
    "NO_PROMPT": "<|im_end|>",
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("template", "end"), ENDS.items())
def test_what_the_assistant_says_counts_with_the_end_of_its_turn(template, end, backend):
    encoded = encode_conversation(chat_tokenizer(getattr(published, template), backend), TALK)
    assert said(encoded) == [f"It translates code.{end}", f"You are welcome.{end}"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_space_that_a_template_writes_before_an_answer_is_said(backend):
    encoded = encode_conversation(chat_tokenizer(published.LLAMA2, backend), (SYSTEM, *TALK))
    assert said(encoded) == [" It translates code. </s>", " You are welcome. </s>"]
    mistral = encode_conversation(chat_tokenizer(published.MISTRAL, backend), TALK)
    assert said(mistral) == [" It translates code.</s>", " You are welcome.</s>"]


def test_text_that_ends_with_a_token_of_its_own():
    encoded = encode_conversation(chat_tokenizer(published.PHI3), TALK)
    assert said(encoded) == ["It translates code.<|end|>\n", "You are welcome.<|end|>\n</s>"]


TEMPLATES = [*ENDS, "LLAMA2", "MISTRAL", "QWEN3", "PHI3"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_tokens_are_those_of_transformers(template, backend):
    tokenizer = chat_tokenizer(getattr(published, template), backend)
    encoded = encode_conversation(tokenizer, TALK)
    assert encoded.tokens == tokenizer.apply_chat_template(list(TALK))["input_ids"]


@pytest.mark.parametrize("template", TEMPLATES)
def test_turns_follow_each_other_and_hold_their_content(template):
    encoded = encode_conversation(chat_tokenizer(getattr(published, template)), TALK)
    bounds = [bound for turn in encoded.turns for bound in turn]
    assert bounds[0] == 0 and bounds[-1] == len(encoded.tokens) and bounds[1:-1:2] == bounds[2:-1:2]
    for (start, end), message in zip(encoded.turns, TALK, strict=True):
        assert message["content"] in encoded.text[encoded.offsets[start][0] : encoded.offsets[end - 1][1]]


def test_marks_of_a_template_are_those_of_transformers():
    tokenizer = chat_tokenizer(published.MARKED)
    mask = tokenizer.apply_chat_template(list(TALK), return_dict=True, return_assistant_tokens_mask=True)
    assert encode_conversation(tokenizer, TALK).counted == [bool(m) for m in mask["assistant_masks"]]


@pytest.mark.parametrize("template", ["CHATML", "MARKED"])
def test_last_turn_or_chosen_turns_or_all(template):
    tokenizer = chat_tokenizer(getattr(published, template))
    assert said(encode_conversation(tokenizer, TALK, loss="last-turn")) == ["You are welcome.<|im_end|>"]
    assert said(encode_conversation(tokenizer, TALK, turns={1})) == ["It translates code.<|im_end|>"]
    assert encode_conversation(tokenizer, TALK, loss="all").counted[:3] == [False, True, True]
    assert all(encode_conversation(tokenizer, TALK, loss="all").counted[1:])


def test_thoughts_are_left_out_of_earlier_turns_and_told():
    tokenizer = chat_tokenizer(published.QWEN3)
    talk = (TALK[0], {"role": "assistant", "content": "<think>\nHello\n</think>\n\nIt translates code."}, *TALK[2:])
    encoded = encode_conversation(tokenizer, talk)
    assert said(encoded) == [
        "It translates code.<|im_end|>",
        "<think>\n\n</think>\n\nYou are welcome.<|im_end|>",
    ]
    (note,) = encoded.notes
    assert "'It translates code.' for turn 2, '<think>" in note
    last = encode_conversation(tokenizer, talk[:2])
    assert said(last) == ["<think>\nHello\n</think>\n\nIt translates code.<|im_end|>"]
    assert not last.notes


@pytest.mark.parametrize("template", ["LLAMA3", "MISTRAL", "QWEN3"])
def test_calls_of_tools_count(template):
    tokenizer = chat_tokenizer(getattr(published, template))
    encoded = encode_conversation(tokenizer, parse_messages(WITH_TOOL, "record"), tools=[TOOL])
    call, answer = said(encoded)
    assert '{"name": "weather", "arguments": {"city": "Paris"}}' in call
    assert call.endswith(("<|im_end|>", "<|eot_id|>", "</s>")) and not call.startswith("<|")
    assert encoded.text.rstrip().endswith(answer.rstrip()) and "The weather in Paris is sunny." in answer
    assert encoded.tokens == tokenizer.apply_chat_template(list(WITH_TOOL), tools=[TOOL])["input_ids"]


def test_calls_of_tools_in_earlier_exchanges_count():
    """Mistral writes the tools before the last question alone, Qwen3 no <think> before earlier answers."""
    for template in ("MISTRAL", "QWEN3"):
        encoded = encode_conversation(
            chat_tokenizer(getattr(published, template)), (*WITH_TOOL, *TALK[:2]), tools=[TOOL]
        )
        call, answer, last = said(encoded)
        assert "weather" in call and "Paris is sunny." in answer and "It translates code." in last
        assert "[" + "AVAILABLE" not in call + answer + last


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("template", TEMPLATES)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_any_content_counts_whole_and_nothing_else_does(template, backend, data):
    """Reference: the content of the assistant's turns, white space aside, in the text of the tokens that count.

    The tokens before them are compared with those of the whole text before them, as no shortcut does.
    """
    content = st.text(st.sampled_from("ab .,\n\té漢😀'{}<|[]▁"), max_size=12).filter(str.strip)
    talk = tuple({**message, "content": data.draw(content)} for message in TALK)
    tokenizer = chat_tokenizer(getattr(published, template), backend)
    encoded = encode_conversation(tokenizer, talk)
    assert encoded.tokens == tokenizer.apply_chat_template(list(talk))["input_ids"]
    for text, message in zip(said(encoded), talk[1::2], strict=True):
        content = text.strip().removeprefix("<think>\n\n</think>\n\n")
        for end in ("</s>", *ENDS.values(), "<|end|>"):
            content = content.removesuffix(end).rstrip() if message["content"].strip() != content else content
        assert content.strip() == message["content"].strip()
    for first in [n for n in range(1, len(encoded.tokens)) if encoded.counted[n] and not encoded.counted[n - 1]]:
        before = tokenizer(encoded.text[: encoded.offsets[first][0]], add_special_tokens=False)["input_ids"]
        assert before == encoded.tokens[:first] or encoded.notes


def test_conversation_of_the_assistant_alone_counts():
    encoded = encode_conversation(chat_tokenizer(published.CHATML), (TALK[1],))
    assert said(encoded) == ["It translates code.<|im_end|>"]


def test_turn_without_a_place_of_its_own_has_no_tokens():
    """Llama 2 writes the system's turn within the first question."""
    encoded = encode_conversation(chat_tokenizer(published.LLAMA2), (SYSTEM, *TALK))
    assert encoded.turns[0] == (0, 0)
    content = encoded.contents[0]
    assert content and encoded.text[content.start : content.end] == SYSTEM["content"]


def test_content_beside_a_call_counts_with_it():
    talk = (TALK[0], {"role": "assistant", "content": "Hello", "tool_calls": [CALL]}, *TALK[2:])
    (first, _) = said(encode_conversation(chat_tokenizer(published.QWEN3), talk))
    assert first.startswith("Hello<tool_call>") and first.endswith("</tool_call><|im_end|>")


def test_generation_prompt_ends_the_text_and_does_not_count():
    encoded = encode_conversation(chat_tokenizer(published.CHATML), TALK[:3], generation_prompt=True)
    assert encoded.text.endswith("<|im_start|>assistant\n")
    assert said(encoded) == ["It translates code.<|im_end|>"]
    assert encoded.offsets[encoded.turns[-1][1] - 1][1] == len(encoded.text) - len("<|im_start|>assistant\n")


JOINED = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"


def test_token_that_holds_space_of_the_header_counts_and_is_told():
    """A word with the space before it is one token."""
    prompted = JOINED + "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    encoded = encode_conversation(chat_tokenizer(prompted), (TALK[0], {"role": "assistant", "content": "translates"}))
    assert said(encoded) == [" translates"]
    (note,) = encoded.notes
    assert "the token ' translates'" in note and "turn 2 (assistant)" in note


def test_token_that_holds_a_word_of_the_header_is_refused():
    glued = "{% for m in messages %}{{ m.role + ' code' + m.content + '\n' }}{% endfor %}{% if add_generation_prompt %}"
    glued += "{{ 'assistant co' }}{% endif %}"
    with pytest.raises(CorpusError, match=r"turn 2 \(assistant\): expected tokens that .* found the token .*' co'"):
        encode_conversation(chat_tokenizer(glued), TALK[:2])


def test_turns_that_cannot_be_found_are_refused_with_the_difference():
    with pytest.raises(CorpusError, match=r"turn 2 .* found '38<.* alone, '63<.* in all; use a chat template with \{%"):
        encode_conversation(chat_tokenizer(published.COUNTING), TALK)


@pytest.mark.parametrize(
    ("template", "talk", "message"),
    [
        ("NO_SYSTEM", (SYSTEM, *TALK), r"turn 1 \(system\): expected .* writes the turn's content, 'You are a help"),
        ("LAST_ALONE", TALK, r"turn 1 \(user\): .*found one that leaves it out"),
        ("CHATML", ({"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [CALL]}),
         "call of the tool 'weather'"),
        ("GEMMA", (SYSTEM, *TALK), "conversation, chat template: .*System role not supported"),
        ("LLAMA2", (TALK[0], *TALK), "roles must alternate"),
        ("CHATML", TALK[:1], "expected a turn of the assistant, to count in the loss, found turns of 'user'"),
    ],
)  # fmt: skip
def test_what_a_template_leaves_out_or_refuses_is_an_error(template, talk, message):
    with pytest.raises(CorpusError, match=message):
        encode_conversation(chat_tokenizer(getattr(published, template)), talk)


def test_dropped_turn_is_found_although_another_says_the_same():
    talk = ({"role": "system", "content": "Thank you"}, *TALK)
    with pytest.raises(CorpusError, match=r"turn 1 \(system\)"):
        encode_conversation(chat_tokenizer(published.NO_SYSTEM), talk)


def test_call_that_is_left_out_is_found_although_its_name_comes_later():
    ignoring = published.CHATML.replace("m.content", "(m.content or '')")
    with pytest.raises(CorpusError, match=r"turn 2 \(assistant\): .* writes the turn's call of the tool 'weather'"):
        encode_conversation(chat_tokenizer(ignoring), WITH_TOOL)


def test_template_that_writes_content_in_another_form_is_told():
    upper = published.CHATML.replace("m.content", "m.content | upper")
    encoded = encode_conversation(chat_tokenizer(upper), TALK)
    assert said(encoded) == ["IT TRANSLATES CODE.<|im_end|>", "YOU ARE WELCOME.<|im_end|>"]
    assert len(encoded.notes) == 4 and "writes 'WHAT IS A COMPILER?' for turn 1" in encoded.notes[0]
    with pytest.raises(QueryError, match="writes in another form"):
        select_characters(encoded, 1, 0, 2)


def test_tools_that_a_template_does_not_write_are_told():
    assert (
        "does not write the tools" in encode_conversation(chat_tokenizer(published.CHATML), TALK, tools=[TOOL]).notes[0]
    )
    assert not encode_conversation(chat_tokenizer(published.MISTRAL), TALK, tools=[TOOL]).notes


def test_marks_that_leave_out_a_turn_are_refused():
    first = published.MARKED.replace("m.role == 'assistant'", "m.role == 'assistant' and loop.last")
    with pytest.raises(CorpusError, match=r"turn 2 \(assistant\): expected text that the chat template marks"):
        encode_conversation(chat_tokenizer(first), TALK)
    assert said(encode_conversation(chat_tokenizer(first), TALK, loss="last-turn")) == ["You are welcome.<|im_end|>"]


def test_tokenizer_without_a_template_or_offsets_is_refused():
    with pytest.raises(TokenizerError, match=r"expected a chat template.*chat_template\.jinja"):
        encode_conversation(chat_tokenizer(None), TALK)
    with pytest.raises(TokenizerError, match="multiple chat templates with no default"):
        encode_conversation(chat_tokenizer({"one": published.CHATML, "two": published.ZEPHYR}), TALK)


def test_settings_that_exclude_each_other_are_refused():
    tokenizer = chat_tokenizer(published.CHATML)
    with pytest.raises(ConfigError, match="expected one of assistant, last-turn, all, found user"):
        encode_conversation(tokenizer, TALK, loss="user")
    with pytest.raises(ConfigError, match="turns"):
        encode_conversation(tokenizer, TALK, loss="all", turns=[1])
    with pytest.raises(CorpusError, match=r"turn 1: expected a turn of the assistant.*found one of role 'user'"):
        encode_conversation(tokenizer, TALK, turns=[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("template", [name for name in TEMPLATES if name != "QWEN3"])
def test_selected_words_alone_count(template, backend):
    talk = (TALK[0], {"role": "assistant", "content": "\n It translates source code.\n"})
    encoded = encode_conversation(chat_tokenizer(getattr(published, template), backend), talk)
    content = talk[1]["content"]
    for word in ("It", "translates", "source code"):
        start = content.index(word)
        for selection in ((start, start + len(word)), (start - 1, start + len(word) + 1)):
            (text,) = said(select_characters(encoded, 1, *selection))
            assert text.strip().rstrip(".") == word


def test_selection_within_what_is_left_of_a_turn():
    tokenizer = chat_tokenizer(published.QWEN3)
    content = "<think>\nHello\n</think>\n\nIt translates code."
    encoded = encode_conversation(tokenizer, (TALK[0], {"role": "assistant", "content": content}, *TALK[2:]))
    (text,) = said(select_characters(encoded, 1, content.index("translates"), content.index(" code")))
    assert text == " translates"
    with pytest.raises(QueryError, match="'Hello', which the chat template leaves out"):
        select_characters(encoded, 1, 8, 13)


@pytest.mark.parametrize("span", [(3, 3), (5, 2), (-1, 2), (0, 200)])
def test_selection_outside_the_content_is_refused(span):
    encoded = encode_conversation(chat_tokenizer(published.CHATML), TALK)
    with pytest.raises(QueryError, match="turn 2, span: expected characters within 0:19"):
        select_characters(encoded, 1, *span)
    with pytest.raises(QueryError, match="turn 9: expected one of 4 turns"):
        select_characters(encoded, 8, 0, 1)
    with pytest.raises(QueryError, match="does not count"):
        select_characters(encoded, 0, 0, 4)
