"""What the pages point to is there: links, files, commands and their options; decisions are numbered and told apart."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from gindex_cli.commands import gindex

ROOT = Path(__file__).parents[1]
DECISIONS = ROOT / "docs" / "decisions"
FRONT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md")]
FOLDERS = ("docs", "examples", "tests")
PAGES = [*FRONT, *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.md")))]
ROOMS = ("gindex", "cli", "tests", "tools", "docs", "examples", ".ci")
"""Folders whose files pages name from the top of the repository."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """Headings as GitHub writes them into addresses."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target}: no such file"
        assert not anchor or linked.suffix != ".md" or anchor in anchors(linked), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_exist(page):
    """In running text, in commands, and in the decisions, which outlive many moves of modules."""
    if page.name == "CHANGELOG.md":  # it names what was, too
        return
    pattern = rf"(?<![\w./-])(?:{'|'.join(map(re.escape, ROOMS))})/[\w./-]*[\w/]"
    for named in re.findall(pattern, page.read_text(encoding="utf-8")):
        assert (ROOT / named).exists(), f"{named}: no such file"


def console(page: Path) -> Iterator[list[str]]:
    """Yield what is typed in a page's console blocks, word by word, comments left out."""
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                for command in line[2:].split(" && "):
                    yield shlex.split(command, comments=True)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_options_that_are_shown_exist(page):
    for words in console(page):
        if words[0] == "gindex":
            command: click.Command = gindex
            arguments = words[1:]
            while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
                found = command.get_command(click.Context(command), arguments.pop(0))
                assert found is not None, f"{shlex.join(words)}: no such command"
                command = found
            known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
            given = {word.partition("=")[0] for word in arguments if re.match(r"--\w", word)}
            assert given <= known | {"--help", "--version"}, f"{shlex.join(words)}: no option {given - known}"
        for tool in [word for word in words if word.startswith("tools/") and word.endswith(".py")]:
            sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / tool).parent.glob("*.py"))
            own = words[words.index(tool) : words.index("--") if "--" in words else None]
            missing = [word for word in own if re.match(r"--\w", word) and f'"{word}"' not in sources]
            assert not missing, f"{shlex.join(words)}: no option {missing}"


def options_of(command: click.Command) -> set[str]:
    """Options of a command, and of those below it."""
    found = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
    if isinstance(command, click.Group):
        found |= {flag for below in command.commands.values() for flag in options_of(below)}
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name)
def test_options_in_running_text_exist(page):
    """Of a command, a tool, or the tests."""
    tools = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tools").rglob("*.py"))
    known = options_of(gindex) | set(re.findall(r'"(--[a-z-]+)"', tools)) | {"--help", "--version", "--write-table"}
    named = set(re.findall(r"`(--[a-z][a-z-]+)", page.read_text(encoding="utf-8")))
    assert named <= known, f"no option {named - known}"


def decisions() -> list[Path]:
    return sorted(path for path in DECISIONS.glob("*.md") if path.name != "README.md")


def index() -> dict[str, list[str]]:
    """The cells of each row of the index of decisions, by number."""
    lines = (DECISIONS / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| [")]
    return {row[0][1:5]: row for row in rows}


def test_decisions_are_numbered_without_doubles_and_gaps():
    numbers = [int(path.name[:4]) for path in decisions()]
    assert numbers == list(range(1, len(numbers) + 1)), "give the next page the next number"


@pytest.mark.parametrize("page", decisions(), ids=name)
def test_a_decision_says_number_status_and_question(page):
    number, text = page.name[:4], page.read_text(encoding="utf-8")
    heading, _, status, *_ = text.split("\n")
    assert heading.startswith(f"# {number}: ") and re.match(r"\*\*Status\.\*\* (Accepted|Superseded by \[)", status)
    assert text.split("\n\n")[2].startswith("**Question.** ")


@pytest.mark.parametrize("page", decisions(), ids=name)
def test_decisions_that_supersede_each_other_both_say_so(page):
    status = re.search(r"\*\*Status\.\*\* (.*?)\n\n", page.read_text(encoding="utf-8"), re.S).group(1)
    for relation, other in (("uperseded by", "supersedes"), ("supersedes", "uperseded by")):
        for linked in re.findall(rf"{relation} \[\d+\]\(([^)]+)\)", status):
            back = re.search(
                r"\*\*Status\.\*\* (.*?)\n\n", (DECISIONS / linked).read_text(encoding="utf-8"), re.S
            ).group(1)
            assert f"{other} [{page.name[:4]}]({page.name})" in back, f"{linked} does not name {page.name}"


def test_the_index_of_decisions_has_every_page_with_its_title_and_status():
    rows = index()
    assert list(rows) == [path.name[:4] for path in decisions()], "a row for each page, in their order"
    for path in decisions():
        number, title, status, line = rows[path.name[:4]]
        heading, _, said, *_ = path.read_text(encoding="utf-8").split("\n")
        assert number == f"[{path.name[:4]}]({path.name})" and heading == f"# {path.name[:4]}: {title}" and line
        expected = re.match(r"\*\*Status\.\*\* (Accepted|Superseded by \[\d+\]\([^)]+\))", said).group(1)
        assert status.lower() == expected.lower(), f"{path.name}: the page says {expected}"


def test_the_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", text, re.MULTILINE)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    module, _, attribute = settings["tool"]["setuptools"]["dynamic"]["version"]["attr"].rpartition(".")
    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
    assert f'{attribute} = "{versions[0]}"' in source
    assert versions == sorted(versions, key=lambda version: [int(n) for n in version.split(".")], reverse=True)
