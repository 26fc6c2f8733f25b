"""How the tests call `gindex`."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

PROGRESS = re.compile(
    r"^(tokenise|fit covariances|eigenbases|fit eigenvalues|calibrate|vectors|search index|recall|query curvature"
    r"|exact influence|load model|check model|compare with the fit|scores|group scores|write file): "
    r"[\d,]+(/[\d,]+)? \w+( in [\d:]+|, ETA [\d:]+)?$"
)


@pytest.fixture(scope="session", autouse=True)
def no_bars_of_libraries() -> None:
    """In a process of its own the command keeps them off; here transformers is loaded long before it runs."""
    from transformers.utils import logging

    logging.disable_progress_bar()


@pytest.fixture(scope="session")
def is_progress() -> Callable[[str], bool]:
    """Tell whether a line on standard error is one of our own progress."""
    return lambda line: bool(PROGRESS.match(line))


@pytest.fixture
def fails(run: Callable[..., Result]) -> Callable[..., str]:
    """Run a command that must fail with one clear line; return the line."""

    def fails(exit_code: int, *arguments: object) -> str:
        result = run(*arguments)
        assert "Traceback" not in result.output
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == exit_code, result.output
        lines = result.stderr.strip().splitlines()
        if lines[0].startswith("Usage:"):
            assert exit_code == 2 and lines[-1].startswith("Error: ")
        else:
            assert [line for line in lines[:-1] if not PROGRESS.match(line)] == []
            assert lines[-1].startswith("gindex: ") and len(lines[-1]) < 600
        return str(lines[-1])

    return fails


@pytest.fixture(scope="session")
def gindex_command() -> Path:
    """The installed command."""
    return Path(sys.executable).with_name("gindex")


@pytest.fixture(scope="session")
def options(model_folder: Path) -> list[str]:
    """Options of a build that takes a second."""
    return [
        "--model", str(model_folder), "--device", "cpu", "--max-tokens", "32", "--fit-documents", "20",
        "--dimension", "256", "--rank-fraction", "0.5",
    ]  # fmt: skip
