"""A model's folder that a test changes: it loads, or is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from gindex.config import ModelConfig
from gindex.errors import ModelError
from gindex.model.load import load_model


def load(folder: Path, **options: Any) -> Any:
    return load_model(ModelConfig(name=str(folder), device="cpu", dtype="float32", **options))


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load(folder, **options)
    message = str(caught.value)
    assert message.startswith(str(folder)) and ("; " in message or "found " in message)
    return message


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
