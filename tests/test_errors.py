"""Errors: what they carry, how they read, copies of them; no text of the library spells an option."""

import ast
import copy
import pickle
import re
from pathlib import Path

import pytest

from gindex import errors
from gindex.errors import ConfigError, GindexError, QueryError
from gindex.serve.problems import RefusedError

ROOT = Path(__file__).parents[1]
PARTS = {
    "field": "max_tokens",
    "expected": "at least 2",
    "found": "1",
    "remedy": "cut documents into longer parts",
}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GindexError)]


def test_parts_make_the_message():
    error = ConfigError(**PARTS)
    assert str(error) == "max_tokens: expected at least 2, found 1; cut documents into longer parts"
    assert error.parts() == PARTS


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        (("field",), "expected at least 2, found 1; cut documents into longer parts"),
        (("found",), "max_tokens: expected at least 2; cut documents into longer parts"),
        (("remedy",), "max_tokens: expected at least 2, found 1"),
        (("expected",), "max_tokens: found 1; cut documents into longer parts"),
        (("expected", "found"), "max_tokens: cut documents into longer parts"),
        (("field", "found", "remedy"), "expected at least 2"),
    ],
)
def test_empty_parts_leave_with_their_punctuation(left_out, message):
    error = ConfigError(**{name: part for name, part in PARTS.items() if name not in left_out})
    assert str(error) == message
    assert not error.parts().keys() & set(left_out)


def test_a_message_alone_has_no_parts():
    error = GindexError("the index cannot be used at the moment")
    assert str(error) == "the index cannot be used at the moment"
    assert error.parts() == {}
    assert str(GindexError()) == ""


# Python hands errors from one process to another so; these are made here, and nothing that was stored is unpickled.
COPIES = [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("copied", COPIES)
def test_copies_are_the_same_error(kind, copied):
    error = kind(**PARTS)
    error.add_note("while building")
    again = copied(error)
    assert type(again) is kind and again is not error
    assert str(again) == str(error) and again.parts() == PARTS
    assert again.__notes__ == ["while building"]


@pytest.mark.parametrize("copied", COPIES)
def test_copies_of_errors_with_constructors_of_their_own(copied):
    again = copied(RefusedError(413, **PARTS))
    assert (again.status, str(again), again.parts()) == (413, str(ConfigError(**PARTS)), PARTS)
    assert str(copied(QueryError("nothing to predict"))) == "nothing to predict"


SOURCES = sorted((ROOT / "gindex").rglob("*.py"))
OPTION = re.compile(r"(^|[\s`'\"]|(?<!\bvar)\()--[a-z]")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_spells_no_option(path):
    found = [
        (node.lineno, node.value)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and OPTION.search(node.value)
    ]
    assert not [each for each in found if not _is_style(each[1])]


def _is_style(text: str) -> bool:
    """Variables of CSS begin with dashes too."""
    return "{" in text and ":root" in text
