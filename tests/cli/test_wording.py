"""Library texts on the command line: settings by their options, of whichever command has them."""

import logging

import click
import pytest
from gindex_cli.commands import gindex
from gindex_cli.render import untracked_lines
from gindex_cli.wording import OptionFormatter, error_text, in_options

from gindex.errors import ConfigError, ModelError


@pytest.fixture(autouse=True)
def searching():
    """The context of `gindex search`, as while it runs."""
    with click.Context(gindex) as root, click.Context(gindex.commands["search"], parent=root):
        yield


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("lower `refine_iterations`", "lower --refine-iterations"),
        ("`k` is off", "-k is off"),
        ("add it with `allowed_host`", "add it with --allowed-host"),
        ("use `dtype` float32", "use --dtype float32"),
        ("give `words_text` or `words`", "give --words-text or --words"),
        ("run `gindex repair`, or `no_such_setting`", "run `gindex repair`, or `no_such_setting`"),
    ],
)
def test_settings_go_by_their_options(text, shown):
    assert in_options(text) == shown


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ("max_tokens", "--max-tokens"),
        ("k and candidates", "-k and --candidates"),
        ("where, position 7", "--where, position 7"),
        ("`untrack` block.*", "--untrack block.*"),
        ("http://127.0.0.1:8000: words_text", "http://127.0.0.1:8000: --words-text"),
        ("where the model is", "where the model is"),
        ("corpus.jsonl:3", "corpus.jsonl:3"),
    ],
)
def test_fields_go_by_their_options(field, shown):
    error = ConfigError(field=field, expected="at least 2", found="1", remedy="raise `dimension`")
    assert error_text(error) == f"{shown}: expected at least 2, found 1; raise --dimension"


def test_messages_without_parts_too():
    assert error_text(ModelError("not usable; give `model`")) == "not usable; give --model"


def test_reasons_of_layers_too():
    layer = {"weights": "lm_head", "reason": "left out by `untrack`", "count": 8, "share": 0.5}
    assert any("left out by --untrack" in line for line in untracked_lines({"untracked": [layer]}))


def test_log_lines_too():
    record = logging.LogRecord("gindex", logging.WARNING, __file__, 1, "left out by `%s`", ("untrack",), None)
    assert OptionFormatter("gindex: %(message)s").format(record) == "gindex: left out by --untrack"
