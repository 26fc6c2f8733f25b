"""What the page reads, shows, marks and asks, run by Node.js where it is installed."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import gindex.serve

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no Node.js is installed")
PAGE = Path(gindex.serve.__file__).parent / "page"


def module(name: str) -> str:
    return json.dumps((PAGE / name).as_uri())


def evaluated(expression: str, **given: Any) -> Any:
    """What an expression over the page's modules and some values is in JavaScript."""
    names = ", ".join(given)
    script = f"""
        const {{ marked, readJson, shown, wordsOf }} = await import({module("text.js")});
        const talk = await import({module("conversation.js")});
        const {{ moved, pointsOf, readConversation, trimmed, turnsOf, unitsOf }} = talk;
        const {{ fieldsOf, filterOf, joined }} = await import({module("sources.js")});
        const {{ {names} }} = {json.dumps(given)};
        console.log(JSON.stringify({expression}));
    """
    done = subprocess.run([str(NODE), "--input-type=module", "-"], input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "value",
    [
        1234567890123456789, -1234567890123456789, 2**53, 2**53 - 1, -(2**53) - 1, 2**63, 10**40, 0, 17, -1, 0.1, True,
        "1234567890123456789", 'a"b\\', "\\\\1234567890123456789", "[12345678901234567890]",
        [1234567890123456789, "1234567890123456789", None, [2**64]], {"a b": {"c": -(2**63), 'd"': []}}, {}, [],
    ],
)  # fmt: skip
def test_metadata_are_shown_as_they_were_written(value):
    """Numbers of JavaScript would round integers of more than 53 bits."""
    for sent in (json.dumps({"v": value}), json.dumps({"v": value}, ensure_ascii=False, separators=(",", ":"))):
        shown = evaluated("shown(readJson(sent).v)", sent=sent)
        expected = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        assert shown == expected


def test_numbers_of_an_answer_stay_numbers():
    sent = json.dumps({"score": 1e16, "large": 2**60, "small": 5e-324, "k": 3})
    numbers = "[a.score + 1, a.large > 1, Math.abs(a.large), a.small, a.k]"
    found = evaluated(f"((a) => {numbers})(readJson(sent))", sent=sent)
    assert [float(number) for number in found] == [1e16 + 1, 1.0, 2.0**60, 5e-324, 3.0]


@pytest.mark.parametrize(
    ("query", "text", "expected"),
    [
        ("the Compiler race", "A compiler, the compilers: RACE", ["compiler", "RACE"]),
        ("学习", "机器学习是。学 习 深度学习", ["学习", "学习"]),
        ("字", "字典 一字", ["字", "字"]),
        ("サンドボックス", "新しいサンドボックスの修正", ["サンドボックス"]),
        ("학교", "학교에서", ["학교"]),
        ("ไทย", "ภาษาไทยไม่", ["ไทย"]),
        ("python学习", "用Python学习写", ["Python学习"]),
        ("𠮷野", "𠮷野家", ["𠮷野"]),
        ("भाषा", "हिन्दी भाषा में", ["भाषा"]),
        ("the a", "the a", []),
        ("", "", []),
    ],
)
def test_what_a_query_and_a_text_share_is_marked(query, text, expected):
    pieces = evaluated("marked(text, wordsOf(query, new Set(['the', 'a'])))", query=query, text=text)
    assert "".join(piece for piece, _ in pieces) == text
    assert [piece for piece, mark in pieces if mark] == expected


USER, ANSWER = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}
TOOL = {"type": "function", "function": {"name": "look"}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (json.dumps([USER, ANSWER]), {"messages": [USER, ANSWER]}),
        (json.dumps({"messages": [USER], "tools": [TOOL], "model": "m"}), {"messages": [USER], "tools": [TOOL]}),
        (json.dumps(ANSWER | {"refusal": None}), {"messages": [ANSWER]}),
        (
            json.dumps({"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "I."}]}),
            {"messages": [USER, ANSWER]},
        ),
        ("User: Who?\n\nAssistant: I.\n", {"messages": [USER, ANSWER]}),
        ("**Human:** Who?\n**AI**: I.", {"messages": [USER, ANSWER]}),
        ("SYSTEM:\nBe\n  brief: x\nuser: Who?", {"messages": [{"role": "system", "content": "Be\n  brief: x"}, USER]}),
    ],
)
def test_conversations_are_read(text, expected):
    assert evaluated("readConversation(text)", text=text) == expected


@pytest.mark.parametrize("text", ["[]", "{}", "[1]", "[{}]", "[{", "hello", "", json.dumps([USER] * 201)])
def test_what_is_no_conversation_is_refused(text):
    tried = "(() => { try { return readConversation(text); } catch (error) { return error.constructor.name; } })()"
    assert evaluated(tried, text=text) == "Error"


@pytest.mark.parametrize("text", ["a lock", "a \U0001f512 lock", "\U00020bb7\u91ce", "e\u0301 x"])
def test_spans_are_in_characters_as_python_counts_them(text):
    spans = [[start, end] for start in range(len(text)) for end in range(start + 1, len(text) + 1)]
    units = evaluated("spans.map((span) => text.slice(...unitsOf(text, span)))", text=text, spans=spans)
    assert units == [text[start:end] for start, end in spans]
    assert evaluated("spans.map((span) => pointsOf(text, unitsOf(text, span)))", text=text, spans=spans) == spans


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("source", "it's", "source = 'it''s'"), ("a.b", 3, "a.b = 3"), ("n", 10**20, "n = 100000000000000000000"),
        ("ok", True, "ok = true"), ("x", None, "x is null"), ("x", '{"a":1}', None), ("x", "x" * 200 + "...", None),
    ],
)  # fmt: skip
def test_a_bar_is_a_filter(field, value, expected):
    sent = json.dumps({"value": value})
    assert evaluated("filterOf(field, readJson(sent).value)", field=field, sent=sent) == expected


def test_fields_are_named_as_filters_name_them():
    hits = [
        {"metadata": {"a": {"b": 1, "c d": []}, "and": 1, "`": 2, "a.b": 1, "a\u00f1o": None}},
        {"metadata": {"id": 1}},
    ]
    assert evaluated("fieldsOf(hits)", hits=hits) == ["a.b", "a.`c d`", "`and`", "````", "`a.b`", "a\u00f1o", "`id`"]
    assert evaluated("[joined(' ', 'x = 1'), joined('a or b', 'x = 1'), joined('a', 'x')]") == [
        "x = 1", "(a or b) and x = 1", "a and x",
    ]  # fmt: skip


def test_words_are_chosen_by_keys():
    steps = [
        (None, True, False),
        ([0, 1], True, True),
        ([0, 6], True, True),
        ([0, 6], False, True),
        ([2, 6], False, False),
    ]
    found = [
        evaluated("moved('a lock', span, { forward, extend })", span=span, forward=forward, extend=extend)
        for span, forward, extend in steps
    ]
    assert found == [[0, 1], [0, 6], None, [0, 1], [0, 1]]
    assert evaluated("[trimmed(' a ', [0, 3]), trimmed('a  b', [1, 3])]") == [[1, 2], None]


def test_the_turns_of_a_document():
    pair = {"form": "preference", "content": {"prompt": "Who?", "chosen": "I.", "rejected": [ANSWER]}}
    sides = [ANSWER | {"side": "chosen"}, ANSWER | {"side": "rejected"}]
    assert evaluated("turnsOf(pair)", pair=pair) == [USER, *sides]
    split = {"form": "completion", "content": {"prompt": [USER], "completion": [ANSWER]}}
    plain = {"form": "completion", "content": {"prompt": "a", "completion": "b"}}
    assert evaluated("[split, plain].map(turnsOf)", split=split, plain=plain) == [[USER, ANSWER], None]
