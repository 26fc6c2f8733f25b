"""What is listed for installation is what the folders hold."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_package_is_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    sources = {path.parent.relative_to(ROOT) for path in (ROOT / "gindex").rglob("*.py")}
    found = {".".join(folder.parts) for folder in sources if "__pycache__" not in folder.parts}
    assert sorted(found | {"gindex_cli"}) == sorted(settings["packages"])


def test_pins_are_exact_and_without_local_builds():
    lines = (ROOT / "tools" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(pin.count("==") == 1 and "+" not in pin for pin in pins)
    assert len({pin.split("==")[0] for pin in pins}) == len(pins)
