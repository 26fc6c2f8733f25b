"""An index to change."""

import shutil
from pathlib import Path

import pytest

from gindex import GradientIndex


@pytest.fixture
def folder(built, tmp_path) -> Path:
    """A copy of the small index."""
    return shutil.copytree(built, tmp_path / "index")


@pytest.fixture
def opened(folder) -> GradientIndex:
    """The copy, opened."""
    return GradientIndex.open(folder, device="cpu")
