"""What the tests of builds share: pictures of an index directory, and a progress that stops the build."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gindex.build.run import run_build
from gindex.progress import Phase


class Stop(Exception):  # noqa: N818  stands for whatever ends a process
    """Raised where a build is stopped."""


class Recorder:
    """Counts the advances of every phase, and stops at the n-th of one; 0 stops as the phase opens."""

    def __init__(self, phase: str | None = None, advance: int = 0) -> None:
        self.advances: dict[str, int] = {}
        self._stop = (phase, advance)

    @contextmanager
    def phase(self, name: str, total: int | None, unit: str) -> Iterator[Phase]:
        """Open a phase."""
        self.advances[name] = 0
        self._check(name)
        yield _Advances(lambda: self._advance(name))

    def _advance(self, name: str) -> None:
        self.advances[name] += 1
        self._check(name)

    def _check(self, name: str) -> None:
        if (name, self.advances[name]) == self._stop:
            raise Stop(name)


class _Advances:
    def __init__(self, advance: Callable[[], None]) -> None:
        self._advance = advance

    def advance(self, steps: int = 1) -> None:
        """Count a call."""
        self._advance()


def read_snapshot(folder: Path) -> dict[str, Any]:
    """Content of every file; of the manifest all but the time at which it was made."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    content: dict[str, Any] = {name: path.read_bytes() for name, path in files.items()}
    for name in [name for name in content if name.startswith("manifests/")]:
        content[name] = json.loads(content[name]) | {"created": None, "crc32c": None}
    return content


@pytest.fixture(scope="session")
def snapshot() -> Callable[[Path], dict[str, Any]]:
    return read_snapshot


@pytest.fixture(scope="session")
def recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture(scope="session")
def stopped(tmp_path_factory, corpus_file, make_config) -> Callable[..., Path]:
    """Build until a phase's n-th advance, once a session, and return a copy of what is left."""
    made: dict[tuple[Any, ...], Path] = {}

    def stop(phase: str, advance: int = 0, corpus: Path = corpus_file, **changes: Any) -> Path:
        key = (phase, advance, corpus, *sorted(changes.items()))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("stopped") / "index"
            with pytest.raises(Stop):
                run_build([str(corpus)], made[key], make_config(**changes), progress=Recorder(phase, advance))
        copy = tmp_path_factory.mktemp("copy") / "index"
        shutil.copytree(made[key], copy)
        return copy

    return stop


@pytest.fixture(scope="session")
def nan_model_folder(tmp_path_factory, model_folder) -> Path:
    """The small model with an output head of its own and NaN as the embedding of `~`, which no other text holds."""
    folder = tmp_path_factory.mktemp("nan") / "model"
    shutil.copytree(model_folder, folder)
    from transformers import AutoTokenizer

    (rare,) = AutoTokenizer.from_pretrained(folder)("~").input_ids
    config = LlamaConfig.from_pretrained(folder)
    config.tie_word_embeddings = False
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        model.get_input_embeddings().weight[rare] = float("nan")
    model.save_pretrained(folder)
    return folder
