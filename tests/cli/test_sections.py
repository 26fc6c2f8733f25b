"""Help under headings: which there are, in which order, and how defaults read."""

import re

import click
import pytest
from gindex_cli.command import summary
from gindex_cli.commands import SECTIONS, gindex


@pytest.fixture
def shown(run):
    """The sections of a command's help, by title."""

    def shown(*arguments: str) -> dict[str, str]:
        text = run(*arguments, "--help").stdout
        parts = re.split(r"^(\S.*):\n", text.partition("Example:")[2], flags=re.MULTILINE)[1:]
        return {title: " ".join(body.split()) for title, body in zip(parts[::2], parts[1::2], strict=True)}

    return shown


def test_commands_stand_in_sections_and_no_summary_is_cut(shown):
    sections = shown()
    assert list(sections) == ["Options", "Build", "Search", "Change", "Serve", "Measure"]
    assert [command for commands in SECTIONS.values() for command in commands] == list(gindex.commands.values())
    for title, commands in SECTIONS.items():
        for command in commands:
            assert f"{command.name} {summary(command)}" in sections[title.capitalize()]
            assert len(summary(command)) <= 100 and not summary(command).endswith((".", "..."))


def test_options_of_a_search_stand_in_sections(shown):
    sections = shown("search")
    assert list(sections) == [
        "What to look for", "Filters and words", "Sources", "Exact influence", "Output", "Index", "Model and device",
        "Other options", "Laboratory",
    ]  # fmt: skip
    for title, options in {
        "What to look for": ["--completion", "--queries", "-k, --top", "--negative", "--hits"],
        "Filters and words": ["--where", "--words", "--words-text", "--words-documents"],
        "Sources": ["--group-by", "--groups"],
        "Exact influence": ["--exact", "--candidates", "--certainty"],
        "Output": ["--layers", "--json"],
        "Laboratory": ["--refine"],
    }.items():
        assert all(f"{option} " in sections[title] for option in options), title


def test_options_of_a_build_stand_in_sections(shown):
    sections = shown("build")
    assert list(sections) == [
        "Model and device", "Output", "Corpus", "Curvature", "Stored vectors", "Time and memory", "Other options",
        "Laboratory",
    ]  # fmt: skip
    assert "--projection" in sections["Laboratory"] and "--curvature" in sections["Laboratory"]


@pytest.mark.parametrize(
    ("command", "option", "default"),
    [
        ("search", "--dedupe", "[default: off; 0<x<=1]"),
        ("search", "--certainty", "[default: off: all candidates; 0<x<=0.999]"),
        ("search", "--words-text", "[default: those of the query]"),
        ("search", "--shortlist", "[default: automatic: enough for -k; x>=1]"),
        ("search", "--where", "[default: all]"),
        ("build", "--fit-documents INTEGER|all", "[default: 1000; x>=1]"),
        ("build", "--memory", "[default: no limit; x>0]"),
        ("build", "--rank-fraction", "[default: chosen by calibration; 0<x<=1]"),
        ("serve", "--queue-seconds", "[default: 10.0; x>0]"),
        ("serve", "--rate", "[default: no limit; x>0]"),
        ("serve", "--port", "[default: 8080; 0<=x<=65535]"),
        ("add", "--text-field", "[default: that of the build]"),
    ],
)
def test_defaults_and_ranges_read_as_they_are(shown, command, option, default):
    text = next(body for body in shown(command).values() if f"{option} " in body)
    found = re.search(re.escape(option) + r" .*?(\[default: .*?\])(?: |$)", text)
    assert found is not None and found[1] == default


def test_the_word_for_all_is_taken():
    command = gindex.commands["build"]
    context = command.make_context("build", ["c", "--model", "m", "--fit-documents", "all", "--fidelity-parts", "all"])
    assert context.params["fit_documents"] is None and context.params["fidelity_parts"] is None
    with pytest.raises(click.BadParameter, match="is not a valid integer"):
        command.make_context("build", ["c", "--model", "m", "--fit-documents", "0.5"])
