"""A check of the small model, and how its findings are looked up."""

from collections.abc import Callable

import pytest

from gindex import BuildConfig, ModelCheck, check_model
from gindex.check.result import Finding


@pytest.fixture(scope="session")
def checked(make_config: Callable[..., BuildConfig], corpus_file) -> ModelCheck:
    """The small model on the shared corpus."""
    return check_model(make_config(), [str(corpus_file)])


@pytest.fixture
def finding() -> Callable[..., Finding]:
    """Return the one finding of a section and name."""

    def find(check: ModelCheck, section: str, name: str) -> Finding:
        (found,) = [f for f in check.findings if (f.section, f.name) == (section, name)]
        return found

    return find
