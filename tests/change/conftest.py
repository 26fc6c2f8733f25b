"""An index to change, and documents to add to it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gindex import GradientIndex


@pytest.fixture
def folder(built, tmp_path) -> Path:
    """A copy of the small index."""
    return shutil.copytree(built, tmp_path / "index")


@pytest.fixture
def more(tmp_path) -> Callable[..., Path]:
    """Write documents with these ids and texts."""

    def write(texts: dict[str, str], name: str = "more.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps({"id": i, "text": text, "number": -1}) + "\n" for i, text in texts.items()))
        return path

    return write


@pytest.fixture
def opened(folder) -> GradientIndex:
    """The copy, opened."""
    return GradientIndex.open(folder, device="cpu")
