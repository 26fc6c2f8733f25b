"""What is listed for installation is what the folders hold, and what is told to install is ours."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gindex
from gindex.distribution import NAME, VERSION, install_hint

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_is_installed():
    settings = PROJECT["tool"]["setuptools"]
    sources = {path.parent.relative_to(ROOT) for path in (ROOT / "gindex").rglob("*.py")}
    found = {".".join(folder.parts) for folder in sources if "__pycache__" not in folder.parts}
    assert sorted(found | {"gindex_cli"}) == sorted(settings["packages"])


def test_pins_are_exact_and_without_local_builds():
    lines = (ROOT / "tools" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(pin.count("==") == 1 and "+" not in pin for pin in pins)
    assert len({pin.split("==")[0] for pin in pins}) == len(pins)


def test_one_name_and_one_version():
    assert PROJECT["project"]["name"] == NAME == "gradient-index" and "version" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "gindex.distribution.VERSION"}
    assert gindex.__version__ == VERSION and re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    assert set(PROJECT["project"]["scripts"].values()) == {"gindex_cli.main:main"}


def test_nothing_tells_to_install_the_other_project():
    """On PyPI `gindex` is somebody else's; every hint in the code comes from one function."""
    folders = ("gindex", "cli", "docs", "examples", "tools", "tests")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md", ".sh")]
    for path in [ROOT / "README.md", *paths]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"""(?<!un)install ['"]?gindex\b|(?<![-\w])gindex\[[a-z]""", text), path
        if path.is_relative_to(ROOT / "gindex") or path.is_relative_to(ROOT / "cli"):
            assert "pip install" not in text or path.name == "distribution.py", path


def test_every_extra_that_is_hinted_at_exists():
    extras = PROJECT["project"]["optional-dependencies"].keys()
    hinted = set()
    for folder in ("gindex", "cli"):
        for path in (ROOT / folder).rglob("*.py"):
            for names in re.findall(r"install_hint\(([^)]*)\)", path.read_text(encoding="utf-8")):
                hinted |= set(re.findall(r"[\"'](\w+)[\"']", names))
    assert hinted >= {"cpu", "gpu", "corpora", "plots", "serve", "client", "mcp", "evaluate"} and hinted <= extras
    told = re.findall(r"\.\[([\w,]+)\]", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert told and {name for names in told for name in names.split(",")} <= extras


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Make a distribution be found before all others."""

    def installed(name: str, origin: object = None, scripts: str = "") -> Path:
        folder = tmp_path / f"{name.replace('-', '_')}-9.8.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.8\n")
        (folder / "entry_points.txt").write_text(scripts)
        if origin is not None:
            (folder / "direct_url.json").write_text(json.dumps(origin))
        monkeypatch.syspath_prepend(str(tmp_path))
        return tmp_path

    return installed


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, "pip install 'gradient-index[cpu]' or pip install 'gradient-index[gpu]'"),
        (
            {"url": "file:///a%20b/c", "dir_info": {"editable": True}},
            "pip install -e '/a b/c[cpu]' or pip install -e '/a b/c[gpu]'",
        ),
        (
            {"url": "file:///a/c", "dir_info": {}},
            "pip install 'gradient-index[cpu] @ file:///a/c' or pip install 'gradient-index[gpu] @ file:///a/c'",
        ),
        (
            {"url": "https://x.example/g", "vcs_info": {"vcs": "git", "commit_id": "12ab"}},
            "pip install 'gradient-index[cpu] @ git+https://x.example/g@12ab' or "
            "pip install 'gradient-index[gpu] @ git+https://x.example/g@12ab'",
        ),
    ],
)
def test_extras_come_from_where_gindex_came(installed, origin, expected):
    installed(NAME, origin)
    assert install_hint("cpu", "gpu") == expected


def start(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from gindex_cli.main import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env={"PYTHONPATH": str(path)}, capture_output=True, text=True, check=False)


def test_another_projects_gindex_is_said(installed):
    path = installed("gindex", scripts="[console_scripts]\ngindex = gindex.run:main\n")
    found = start(path, "--version")
    assert found.returncode == 3 and found.stdout == "" and found.stderr.count("\n") == 1
    assert "found gindex 9.8" in found.stderr and "pip uninstall gindex, then install gradient-index" in found.stderr


def test_our_own_former_name_is_no_clash(installed):
    path = installed("gindex", scripts="[console_scripts]\ngindex = gindex_cli.main:main\n")
    assert start(path, "--version").stdout == f"gindex, version {VERSION}\n"
