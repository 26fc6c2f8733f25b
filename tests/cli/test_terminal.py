"""Whatever the terminal does: outputs of every encoding, full, closed and broken ones, and Ctrl-C at any time."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from gindex_cli import progress

from gindex.progress import announce

LINE = "gindex: interrupted; finished work is kept, run the same command again to go on"
IMPORTED = re.compile(r"import time:.*\| *(\S+)")
PROMPT = "the stack \u00e9 \u2013 \u5b66 \U0001f600"


def default_signals() -> None:
    """A shell's background jobs ignore the signal, and so would theirs."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def shell(gindex_command):
    """Run a line of bash in which `gindex` is the command; returns the exit code, and bytes of both outputs."""

    def shell(line: str, **environment: str) -> tuple[int, bytes, bytes]:
        done = subprocess.run(
            ["bash", "-c", line.replace("gindex", f"'{gindex_command}'", 1)],
            capture_output=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
            preexec_fn=default_signals,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
        return done.returncode, done.stdout, done.stderr

    return shell


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, which begins as that of the command does."""
    begin = "import os, signal, sys, click\nfrom gindex_cli import terminal\nterminal.guard()\n"
    return subprocess.run(
        [sys.executable, "-c", begin + code],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        preexec_fn=default_signals,
    )


# Encodings


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "gbk"])
@pytest.mark.parametrize("as_json", [False, True])
def test_search_in_every_encoding(shell, built, encoding, as_json):
    flags = "--json" if as_json else ""
    code, out, errors = shell(f"gindex search {built} '{PROMPT}' -k 1 {flags}", PYTHONIOENCODING=encoding)
    assert (code, errors) == (0, b"")
    text = out.decode(encoding)
    if as_json:
        assert json.loads(text)["query"]["prompt"] == PROMPT
        assert text.isascii()
    else:
        assert text.splitlines()[0] == PROMPT.encode(encoding, "backslashreplace").decode(encoding)


ENCODINGS = ["utf-8", "utf-16", "latin-1", "cp1252", "cp437", "ascii", "us-ascii", "646", "gbk", "shift_jis", "koi8-r"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_and_text_in_every_encoding(encoding):
    code = (
        f"text = {PROMPT!r} + chr(0xd800)\n"
        "from gindex_cli.render import json_text\n"
        "click.echo(json_text([text])); click.echo(text); click.echo(text, err=True)\n"
    )
    begin = "import click\nfrom gindex_cli import terminal\nterminal.guard()\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + code], capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}
    )
    assert done.returncode == 0, done.stderr
    as_json, text = done.stdout.decode(encoding).splitlines()
    assert json.loads(as_json) == [PROMPT + "\ud800"]
    assert text == (PROMPT + "\ud800").encode(encoding, "backslashreplace").decode(encoding)
    assert done.stderr.decode(encoding).splitlines() == [text]


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "cp1252"])
def test_help_and_errors_in_every_encoding(shell, encoding):
    assert shell("gindex --help", PYTHONIOENCODING=encoding)[0] == 0
    code, out, errors = shell(f"gindex versions '/no/{PROMPT}'", PYTHONIOENCODING=encoding)
    assert code == 8 and out == b"" and errors.decode(encoding).startswith("gindex: /no/the stack ")


@pytest.mark.parametrize(
    "environment",
    [
        {"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "xterm", "COLUMNS": "7"}, {"TERM": "nonsense"},
        {"TERM": "xterm", "PYTHONIOENCODING": "ascii"}, {"TERM": "xterm", "PYTHONIOENCODING": "gbk"},
    ],
)  # fmt: skip
def test_bars_on_every_terminal(environment):
    code = (
        "from gindex_cli import terminal; terminal.guard()\n"
        "from gindex_cli.progress import Bars, terminal_progress\n"
        "progress = terminal_progress()\n"
        "assert isinstance(progress, Bars)\n"
        "with progress.phase('vectors', 3, 'parts') as phase: phase.advance(3)\n"
        "with progress.phase('tokenise', None, 'documents') as phase: phase.advance(3)\n"
    )
    code, shown = on_terminal([sys.executable, "-c", code], environment)
    assert code == 0, shown
    assert b"\x1b[3" not in shown or "NO_COLOR" not in environment
    if environment.get("PYTHONIOENCODING"):
        assert shown.isascii()


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"TERM": "xterm"}])
def test_styles_on_every_terminal(environment):
    """The command itself prints in bold with a search alone; the group's own option stands for it."""
    code = (
        "import click, gindex_cli.commands\n"
        "gindex_cli.commands.gindex.add_command(click.Command('bold', callback=lambda: "
        "click.echo(click.style('word', bold=True))))\n"
        "from gindex_cli.main import main; main(['bold'])\n"
    )
    code, shown = on_terminal([sys.executable, "-c", code], {"TERM": "xterm"} | environment)
    assert code == 0 and b"word" in shown
    assert (b"\x1b" in shown) == (environment == {"TERM": "xterm"})


def on_terminal(command: list[str], environment: dict[str, str]) -> tuple[int, bytes]:
    """Run a command on a terminal; returns the exit code and what the terminal was sent."""
    ours, theirs = pty.openpty()
    without = {name: value for name, value in os.environ.items() if name not in ("TERM", "NO_COLOR", "COLUMNS")}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=without | environment)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 1 << 16):
            shown += block
    except OSError:  # how Linux tells that the other side is closed
        pass
    os.close(ours)
    return process.wait(), shown


# Outputs that fail


@pytest.mark.parametrize("arguments", ["--help", "--version", "versions --help", "versions BUILT", "info BUILT --json"])
def test_full_output(shell, built, arguments):
    code, _, errors = shell(f"gindex {arguments.replace('BUILT', str(built))} > /dev/full")
    assert code == 1
    assert errors == b"gindex: standard output: expected to write the result there, found: No space left on device\n"


def test_build_into_a_full_output_goes_on_when_it_has_room(shell, run, tmp_path, corpus_file, options):
    arguments = f"build '{corpus_file}' --out '{tmp_path / 'index'}' {' '.join(options)}"
    code, _, errors = shell(f"gindex {arguments} > /dev/full")
    assert code == 1 and errors.splitlines()[-1].endswith(b"No space left on device")
    assert run("build", corpus_file, "--out", tmp_path / "index", *options).exit_code == 0


@pytest.mark.parametrize("arguments", ["--help", "versions BUILT"])
def test_closed_output(shell, built, arguments):
    code, _, errors = shell(f"gindex {arguments.replace('BUILT', str(built))} >&-")
    assert code == 1
    assert errors == b"gindex: standard output: expected to write the result there, found: Bad file descriptor\n"


def test_reader_that_goes_away(shell, built):
    """As `head -1` does: the exit code is that of a process that SIGPIPE ended, which nobody takes for success."""
    for arguments in ("--help", f"versions '{built}'", f"info '{built}' --json"):
        code, _, errors = shell(f"gindex {arguments} | true; exit ${{PIPESTATUS[0]}}")
        assert code == 141 and errors == b""


def test_output_that_does_not_wait(built, gindex_command):
    """A pipe whose other end is set not to block, as some programs leave theirs, and which is full for a while."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    filled = 0
    while True:
        try:
            filled += os.write(theirs, bytes(1 << 12))
        except BlockingIOError:
            break
    process = subprocess.Popen([gindex_command, "--help"], stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    while filled:
        filled -= len(os.read(ours, min(filled, 1 << 12)))
    with open(ours, "rb") as rest:
        assert rest.read().startswith(b"Usage: gindex")
    assert process.communicate()[1] == b"" and process.returncode == 0


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2> >(true)", "<&-", "<&- 2>&-"])
def test_other_streams_do_not_matter(shell, built, redirection):
    code, out, _ = shell(f"gindex versions '{built}' {redirection}")
    assert code == 0 and b"build, 150 documents" in out
    assert shell(f"gindex versions /no/such/index {redirection}")[0] == 8


def test_all_streams_closed(shell):
    """Files that are opened later take none of their numbers, so that nothing is written into them by mistake."""
    code = "with open(os.devnull) as file: raise SystemExit(file.fileno())\n"
    begin = "import os\nfrom gindex_cli import terminal\nterminal.guard()\n"
    done = subprocess.run(["bash", "-c", f"'{sys.executable}' -c '{begin}{code}' <&- >&- 2>&-"])
    assert done.returncode >= 3
    assert shell("gindex versions /no/such/index <&- >&- 2>&-")[0] == 8


# Ctrl-C


@pytest.mark.parametrize(
    "module", ["click", "gindex.errors", "gindex_cli.commands", "gindex.index", "numpy", "torch._C", "torch", "faiss"]
)
def test_interrupted_while_packages_are_loaded(built, gindex_command, module):
    """The signal is sent as soon as a module has been imported, wherever the process is then."""
    process = subprocess.Popen(
        [gindex_command, "search", built, "the stack"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1", "HF_HUB_OFFLINE": "1"},
        preexec_fn=default_signals,
    )
    seen = False
    ours = []
    for line in process.stderr:
        found = IMPORTED.match(line)
        if found is None:
            ours.append(line.rstrip())
        elif found[1] == module and not seen:
            seen = True
            process.send_signal(signal.SIGINT)
    out = process.stdout.read()
    assert seen, f"{module} was never imported"
    assert process.wait() == 130 and ours == [LINE] and out == "", (process.returncode, ours, out)


def test_interrupted_at_work_unwinds():
    code = (
        "from gindex_cli.command import GindexCommand\n"
        "def work():\n"
        "    try: signal.raise_signal(signal.SIGINT)\n"
        "    finally: click.echo('left')\n"
        "GindexCommand('work', callback=work).main([])\n"
    )
    done = python(code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "left\n", LINE + "\n")


@pytest.mark.parametrize(
    "body",
    [
        "raise RuntimeError('of a library')",  # an interrupt became another error
        "signal.raise_signal(signal.SIGINT)",  # it is pressed again while the work ends
        "pass",  # it was lost
    ],
)
def test_interrupts_that_others_catch(body):
    code = (
        "from gindex_cli.command import GindexCommand\n"
        "def work():\n"
        "    try: signal.raise_signal(signal.SIGINT)\n"
        f"    except BaseException: {body}\n"
        "GindexCommand('work', callback=work).main([])\n"
    )
    done = python(code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", LINE + "\n")


def test_interrupt_in_a_destructor():
    """Python would print it and go on."""
    code = (
        "class Dying:\n"
        "    def __del__(self): signal.raise_signal(signal.SIGINT)\n"
        "with terminal.interruptible(): Dying()\n"
        "print('went on')\n"
    )
    done = python(code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", LINE + "\n")


def test_interrupted_before_and_after_the_work():
    for code in (
        "signal.raise_signal(signal.SIGINT)",
        "with terminal.interruptible(): pass\n" * 2 + "os.kill(os.getpid(), 2)",
    ):
        done = python(code + "\nprint('went on')")
        assert (done.returncode, done.stdout, done.stderr) == (130, "", LINE + "\n")


def test_a_job_in_the_background_stays_uninterrupted():
    """It is started with the signal ignored, and Ctrl-C is meant for another."""
    code = "from gindex_cli import terminal; terminal.guard()\nimport os; os.kill(os.getpid(), 2); print('went on')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert done.returncode == 0 and done.stdout == "went on\n"


def test_other_errors_keep_their_traceback():
    done = python("raise ZeroDivisionError")
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_nothing_is_in_force_within_another_program():
    code = (
        "import signal, sys, gindex_cli.commands\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "assert sys.excepthook is sys.__excepthook__ and sys.stdout is sys.__stdout__\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, preexec_fn=default_signals)


def test_what_work_will_take_is_said_before_it_starts(capsys):
    """In two digits, on a terminal and elsewhere; work of less than ten seconds is not spoken of."""
    for shown in (progress.Lines(), progress.Bars()):
        announce(shown, "exact influence of 300 parts", 137.0)
        announce(shown, "exact influence of 3 parts", 9.9)
        assert capsys.readouterr().err == "exact influence of 300 parts: about 0:02:20\n"


def test_a_long_phase_is_told_as_soon_as_it_is_known_to_be_long(monkeypatch, capsys):
    """A log has the time that is left after the first step, then every ten seconds; a short phase has its end alone."""
    clock = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    for name, seconds in (("long", 2.0), ("short", 0.5)):
        with progress.Lines().phase(name, 20, "parts") as phase:
            for _ in range(20):
                clock[0] += seconds
                phase.advance()
    assert capsys.readouterr().err.splitlines() == [
        "long: 1/20 parts, ETA 0:00:38", "long: 6/20 parts, ETA 0:00:28", "long: 11/20 parts, ETA 0:00:18",
        "long: 16/20 parts, ETA 0:00:08", "long: 20 parts in 0:00:40", "short: 20 parts in 0:00:10",
    ]  # fmt: skip
