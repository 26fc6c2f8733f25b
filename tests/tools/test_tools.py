"""Every tool starts, and says what it is for; what stands beside the tools is theirs."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATHS = sorted((ROOT / "tools").rglob("*.py"))
TOOLS = [path for path in PATHS if '__name__ == "__main__"' in path.read_text(encoding="utf-8")]
PARTS = {path.stem for path in PATHS} - {path.stem for path in TOOLS}
"""Modules that tools import and that are none themselves."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("tool", TOOLS, ids=name)
def test_a_tool_shows_its_help(tool, monkeypatch, capsys):
    """In this process, where torch is imported already: a process of its own for each would take minutes."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tool.parent))
    monkeypatch.setattr(sys, "argv", [str(tool), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(tool), run_name="__main__")
    for module in set(sys.modules) - before:
        if Path(getattr(sys.modules[module], "__file__", None) or "/").is_relative_to(ROOT / "tools"):
            del sys.modules[module]  # two rooms may each have a `build`
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and shown.startswith("usage: ") and len(shown.splitlines()) > 4


def test_what_is_no_tool_is_imported_by_one():
    lines = [line for path in TOOLS for line in path.read_text(encoding="utf-8").splitlines()]
    imported = {line.split()[1] for line in lines if line.startswith(("from ", "import "))}
    assert {"fleet", "fidelity_variants", "padded", "planted"} == PARTS <= imported


def test_the_top_of_tools_holds_what_a_newcomer_runs():
    found = {path.name for path in (ROOT / "tools").iterdir() if path.is_file()}
    assert found == {"constraints.txt", "quickstart.sh", "setup.sh", "test.sh"}


@pytest.mark.parametrize("script", sorted((ROOT / "tools").glob("*.sh")), ids=name)
def test_a_script_is_shell_that_can_be_run(script):
    assert script.stat().st_mode & 0o100
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
