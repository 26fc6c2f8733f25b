"""A model's name is a folder first, a hub's model second, and nothing else is ever asked of a hub."""

import shutil
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from gindex.config import ModelConfig
from gindex.errors import ModelError
from gindex.model.load import load_model
from gindex.model.places import find_model, looked_for


class Hub:
    """A hub in a folder: snapshots take from it what they ask for, into a cache, and every question is remembered."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.root, self.cache = root, cache
        self.asked: list[str] = []
        self.down: Exception | None = None

    def snapshot_download(self, name: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        self.asked.append(name)
        if self.down is not None:
            raise self.down
        (folder := self.cache / name).mkdir(parents=True, exist_ok=True)
        for pattern in allow_patterns:
            for file in (self.root / name).glob(pattern):
                shutil.copy(file, folder)
        return str(folder)

    def try_to_load_from_cache(self, name: str, file: str) -> str | None:
        path = self.cache / name / file
        return str(path) if path.is_file() else None


@pytest.fixture
def hub(tmp_path, model_folder, monkeypatch) -> Hub:
    """A hub that has the small model as `owner/small`; the working directory is empty."""
    hub = Hub(tmp_path / "hub", tmp_path / "cache")
    shutil.copytree(model_folder, hub.root / "owner/small")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", hub.try_to_load_from_cache)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return hub


def missing(name: str, **options: bool) -> str:
    with pytest.raises(ModelError) as caught:
        find_model(ModelConfig(name=name, **options))
    return str(caught.value)


def http_error(kind: type, text: str) -> Exception:
    """An error of the hub's client without the answer that it usually carries."""
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    return error


def test_a_folder_is_taken_before_a_model_of_the_hub(hub, model_folder, tmp_path):
    shutil.copytree(model_folder, Path("owner/small"))
    assert find_model(ModelConfig(name="owner/small")) == Path("owner/small")
    assert hub.asked == []


def test_a_model_of_the_hub_is_fetched_and_loads(hub):
    (hub.root / "owner/small/pytorch_model.bin").write_bytes(b"pickled")
    (hub.root / "owner/small/own.py").write_text("raise SystemExit")
    loaded = load_model(ModelConfig(name="owner/small", device="cpu"))
    assert loaded.max_tokens == 64
    fetched = {file.name for file in (hub.cache / "owner/small").iterdir()}
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= fetched
    assert not {"pytorch_model.bin", "own.py"} & fetched  # neither is needed


def test_pickled_weights_of_the_hub_are_fetched_where_they_are_allowed(hub):
    (hub.root / "owner/small/model.safetensors").rename(hub.root / "owner/small/pytorch_model.bin")
    assert not (find_model(ModelConfig(name="owner/small")) / "pytorch_model.bin").exists()
    assert (find_model(ModelConfig(name="owner/small", allow_pickle=True)) / "pytorch_model.bin").exists()


@pytest.mark.parametrize(
    "name", ["model", "gpt2", "runs/a/model", "./model", "../model", "/no/such/model", "a b/c", "-x"]
)
def test_what_is_no_folder_and_no_hub_name_is_never_asked_of_the_hub(hub, name):
    message = missing(name)
    assert message.startswith(f"{name}: expected a model folder or hub name, found no folder {Path(name).absolute()}")
    assert looked_for(name) in message
    assert hub.asked == []


def test_a_bare_name_is_found_where_it_was_fetched_before(hub, model_folder):
    shutil.copytree(model_folder, hub.cache / "gpt2")
    assert find_model(ModelConfig(name="gpt2")) == hub.cache / "gpt2"
    assert hub.asked == []


def test_both_places_are_named_where_the_hub_lacks_the_model_or_keeps_it(hub, tmp_path):
    for error, named in [
        (http_error(RepositoryNotFoundError, "404"), "no such model on the hub"),
        (http_error(GatedRepoError, "403"), "accept them there"),
        (LocalEntryNotFoundError("offline mode is enabled"), "the hub could not be asked (offline mode is enabled)"),
    ]:
        hub.down = error
        message = missing("runs/model")
        assert f"found no folder {tmp_path / 'here/runs/model'}" in message and named in message


def test_without_a_network_what_was_fetched_before_is_taken(hub):
    find_model(ModelConfig(name="owner/small"))
    hub.down = LocalEntryNotFoundError("offline mode is enabled")
    assert find_model(ModelConfig(name="owner/small")) == hub.cache / "owner/small"


def test_nothing_and_a_file_are_refused(hub, tmp_path):
    assert "found nothing" in missing("")
    (tmp_path / "here/weights.gguf").touch()
    assert "found a file" in missing("weights.gguf")
