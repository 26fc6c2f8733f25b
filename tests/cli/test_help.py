"""Help: complete, quick, and without the libraries that the work needs."""

import os
import re
import resource
import shlex
import subprocess
import sys

import click
import pytest
from gindex_cli.commands import gindex


def commands(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    """Return the commands by what is typed to call them, those of groups included."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        found[f"{prefix}{name}"] = command
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix}{name} ")
    return found


COMMANDS = {"": gindex, **commands(gindex)}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_shows_the_examples_line_by_line(run, name, flag):
    result = run(*name.split(), flag)
    assert result.exit_code == 0 and result.stderr == ""
    assert re.search(r"^ +Example:\n(      +gindex .*\n)+", result.output, re.MULTILINE)


def examples() -> list[str]:
    lines = [line for command in COMMANDS.values() for line in (command.help or "").splitlines()]
    return [line.strip() for line in lines if line.strip().startswith("gindex ")]


@pytest.mark.parametrize("example", examples())
def test_examples_are_what_the_commands_take(example):
    """Parsed, not run: unknown options, missing values and wrong choices are errors here."""
    _, *arguments = shlex.split(example)
    name = next(n for n in (" ".join(arguments[:2]), arguments[0]) if n in COMMANDS)
    COMMANDS[name].make_context(name, arguments[len(name.split()) :], resilient_parsing=False)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name])
def test_every_option_has_help(name):
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"


NEED_NO_MODEL = {
    "outliers", "reindex", "index-fields", "info", "delete", "compact", "versions", "rollback", "prune", "verify",
    "repair", "evaluate lds", "evaluate removal", "evaluate mislabel",
    "check-model",  # MODEL is its argument
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not isinstance(command, click.Group)])
def test_every_command_that_needs_the_model_takes_its_place(name):
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert ("--model" in options) == (name not in NEED_NO_MODEL)


def test_commands_and_options_that_users_know():
    taken = {name: {o for p in command.params for o in p.opts} for name, command in gindex.commands.items()}
    assert taken["build"] >= {
        "--model", "--out", "--text-field", "--id-field", "--max-tokens", "--fit-documents", "--damping-scale",
        "--dimension", "--bits", "--device", "--dtype", "--seed", "--dry-run", "--strict",
    }  # fmt: skip
    assert taken["search"] >= {
        "--completion", "-k", "--negative", "--queries", "--exact", "--candidates", "--model", "--json",
    }  # fmt: skip
    assert taken["info"] >= {"--json"}


HEAVY = "torch|numpy|faiss|transformers|zarr|safetensors|tokenizers|datasets|pyarrow|sqlite3|rich"


@pytest.mark.parametrize(
    "code",
    [
        "import gindex",
        "from gindex_cli.main import main; main(['--help'], standalone_mode=False)",
        "from gindex_cli.main import main; main(['build', '--help'], standalone_mode=False)",
        "from gindex_cli.main import main; main(['search', '--help'], standalone_mode=False)",
        "from gindex import BuildConfig, ModelConfig, GindexError",
        "from gindex_cli.main import main; main(['add', '--help'], standalone_mode=False)",
        "from gindex_cli.main import main; main(['verify', '--help'], standalone_mode=False)",
    ],
)
def test_nothing_heavy_is_imported(code):
    check = f"import re, sys; print([m for m in sys.modules if re.fullmatch('{HEAVY}', m)], file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", f"{code}\n{check}"], capture_output=True, text=True, check=True)
    assert result.stderr == "[]\n"


def test_help_is_quick(gindex_command):
    """Under 0.3 s of processor time, as other processes share the machine; best of five."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([gindex_command, "--help"], capture_output=True, check=True, env=os.environ | {"COLUMNS": "100"})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.3


def test_version(run):
    from gindex.distribution import VERSION

    assert run("--version").output == f"gindex, version {VERSION}\n"
