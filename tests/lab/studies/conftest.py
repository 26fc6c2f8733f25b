"""Runs a study and checks what every report promises of its two files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from report_files import read_report


@pytest.fixture
def study(run: Callable[..., Result], tmp_path: Path) -> Callable[..., tuple[dict[str, Any], str]]:
    """Run a study from the command line; return its numbers and its page."""

    def study(name: str, *arguments: object) -> tuple[dict[str, Any], str]:
        out = tmp_path / f"{name}.html"
        result = run("study", name, *arguments, "--out", out, "--device", "cpu")
        assert result.exit_code == 0, result.output
        record, page = read_report(out, name)
        assert all(finding in result.stdout for finding in record["findings"])
        return record, page

    return study
