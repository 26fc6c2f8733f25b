"""What the page reads, shows and marks, run by Node.js where it is installed."""

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


def evaluated(expression: str, **given: Any) -> Any:
    """What an expression over the module and some values is in JavaScript."""
    names = ", ".join(given)
    script = f"""
        const {{ marked, readJson, shown, wordsOf }} = await import({json.dumps((PAGE / "text.js").as_uri())});
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
