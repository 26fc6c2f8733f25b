"""Outcomes of all families and storage forms, and the page that they are written to."""

from pathlib import Path

import models_table
import pytest
from against_autograd import Outcome
from families import FAMILIES
from storage_forms import FORMS

PAGE = Path(__file__).parents[2] / "docs/benchmarks/models.md"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-table", action="store_true", help="Write docs/benchmarks/models.md from the outcomes.")


@pytest.fixture(scope="session")
def outcomes() -> dict[str, Outcome]:
    """Outcomes by name of family or form, which the tests fill in."""
    return {}


@pytest.fixture
def page(request: pytest.FixtureRequest, outcomes: dict[str, Outcome]) -> str:
    """The page of the documentation, written anew from this run's outcomes where that is asked for."""
    if request.config.getoption("--write-table", default=False):
        missing = [of.name for of in (*FAMILIES, *FORMS) if of.name not in outcomes]
        assert not missing, f"--write-table: expected all outcomes, found none of {missing}; run all of tests/families"
        PAGE.write_text(models_table.render(outcomes))
    return PAGE.read_text()
