"""Datasets of the hub: configurations and splits, read by `datasets` itself from a folder in the place of the hub."""

from pathlib import Path

import datasets
import pytest

from gindex.config import CorpusConfig
from gindex.corpus.hugging_face import read_hub
from gindex.corpus.sources import Source, SourceKind, expand
from gindex.errors import CorpusError

CARD = """---
configs:
- config_name: en
  data_files:
  - {split: train, path: en/train.jsonl}
  - {split: test, path: en/test.jsonl}
- config_name: de
  data_files:
  - {split: dev, path: de/dev.jsonl}
---
"""


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """A folder whose datasets `datasets` loads by name: owner/name with two configurations, owner/plain with none."""
    texts = {"name/en/train": "one", "name/en/test": "two", "name/de/dev": "drei", "plain/data": "plain"}
    for name, text in texts.items():
        path = tmp_path / "owner" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"text": "{text}"}}\n')
    (tmp_path / "owner" / "name" / "README.md").write_text(CARD)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def records(name: str) -> list[tuple[object, str]]:
    source = Source(kind=SourceKind.HUB_DATASET, location=name, name=name)
    return [(record.fields, record.default_id) for record in read_hub(source, CorpusConfig())]


def error_of(name: str) -> str:
    with pytest.raises(CorpusError) as caught:
        records(name)
    return str(caught.value)


@pytest.mark.parametrize("name", ["owner/name", "owner/name:dev", "owner/name/en.v2", "owner/name/zh-TW+x:train"])
def test_names_are_those_of_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert expand(name) == [Source(kind=SourceKind.HUB_DATASET, location=name, name=name)]


@pytest.mark.parametrize(
    "name", ["owner/name/en/more", "owner/name/en:a:b", "owner/name/c.arrow", "owner/name/c.feather"]
)
def test_other_names_are_missing_files(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError, match="nothing there"):
        expand(name)


def test_a_missing_file_of_a_folder_is_no_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "train").mkdir(parents=True)
    with pytest.raises(CorpusError, match=r"data/train/part: expected .* found nothing there"):
        expand("data/train/part")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("owner/name/en", "one"),
        ("owner/name/en:test", "two"),
        ("owner/name/de", "drei"),  # its only split
        ("owner/name/de:dev", "drei"),
        ("owner/plain", "plain"),
        ("owner/plain:train", "plain"),
        ("owner/plain/default:train", "plain"),
    ],
)
def test_configurations_and_splits(hub, name, text):
    assert records(name) == [({"text": text}, f"{name}:1")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/name", "expected a configuration of the dataset, found none, where there are de, en; "
                       "name a configuration, as in owner/name/CONFIGURATION"),
        ("owner/name/fr", "found 'fr', where there are de, en"),
        ("owner/plain/fr", "found 'fr', where there are default"),
        ("owner/name/en:dev", "expected a split 'dev', found the splits test, train; "
                              "name a split, as in owner/name/en:SPLIT"),
        ("owner/plain:test", "expected a split 'test', found the splits train"),
    ],
)  # fmt: skip
def test_what_there_is_instead_is_named(hub, name, message):
    assert error_of(name).startswith(f"{name}: ") and message in error_of(name)


def test_unreachable_hub(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    message = error_of("owner/name")
    assert "neither a file nor a reachable hub dataset" in message and "no network" in message


def test_failure_while_streaming(monkeypatch):
    def records_of_train():
        yield {"text": "one"}
        raise TimeoutError("slow")

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: {"train": records_of_train()})
    assert "slow" in error_of("owner/name")
