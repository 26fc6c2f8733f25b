"""Whatever makes a version makes it through the one writer, and the version that it leaves opens and is whole."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from growth import add_copies

from gindex import GradientIndex
from gindex.build.run import run_build
from gindex.change.compact import compact
from gindex.change.delete import delete_documents
from gindex.change.history import list_versions
from gindex.change.index_fields import index_fields
from gindex.change.merge import merge_volumes
from gindex.change.reindex import reindex
from gindex.change.repair import repair
from gindex.change.rollback import rollback
from gindex.change.verify import verify
from gindex.config import BuildConfig
from gindex.progress import Silent
from gindex.store import writer
from gindex.store.files import read_json, write_json
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.records import OperationKind
from gindex.store.versions import version_numbers

ROOT = Path(__file__).parents[2]


class Shop:
    """An index to change, and what it is made from."""

    def __init__(self, folder: Path, corpus: Path, more: Path, config: BuildConfig) -> None:
        self.layout, self.corpus, self.more, self.config = Layout(folder), corpus, more, config

    def build(self) -> None:
        shutil.rmtree(self.layout.root)
        run_build([str(self.corpus)], self.layout.root, self.config)

    def recompute(self) -> None:
        shard = self.layout.root / "volumes/00000/vectors/codes/c/1/0"
        shard.write_bytes(shard.read_bytes()[:-1])
        repair(self.layout)
        run_build([str(self.corpus)], self.layout.root, self.config)

    def add(self) -> None:
        GradientIndex.open(self.layout.root, device="cpu").add([str(self.more)])

    def delete(self) -> None:
        delete_documents(self.layout, ["d3", "d4"])

    def compact(self) -> None:
        self.delete()
        compact(self.layout)

    def reindex(self) -> None:
        reindex(self.layout, "rabitq")

    def rollback(self) -> None:
        self.delete()
        rollback(self.layout, 1)

    def merge(self) -> None:
        add_copies(self.layout, 2, merge=False)
        merge_volumes(self.layout, lambda _manifest: range(2), Silent())

    def index_fields(self) -> None:
        index_fields(self.layout, ["number"])

    def repair(self) -> None:
        self.layout.faiss(1).unlink()
        repair(self.layout)


ACTS = [
    (OperationKind.BUILD, Shop.build),
    (OperationKind.BUILD, Shop.recompute),
    (OperationKind.ADD, Shop.add),
    (OperationKind.DELETE, Shop.delete),
    (OperationKind.COMPACT, Shop.compact),
    (OperationKind.REINDEX, Shop.reindex),
    (OperationKind.ROLLBACK, Shop.rollback),
    (OperationKind.REPAIR, Shop.repair),
    (OperationKind.MERGE, Shop.merge),
    (OperationKind.INDEX_FIELDS, Shop.index_fields),
]


@pytest.fixture
def shop(folder, corpus_file, more, make_config) -> Shop:
    return Shop(folder, corpus_file, more({"new": "the race the lock the heap"}), make_config())


def documented() -> set[str]:
    """Operations that the description of the format lists."""
    found = re.search(r"^\| `operation` \| `kind`: ([^;]+);", (ROOT / "docs/format.md").read_text(), re.MULTILINE)
    assert found is not None
    return set(re.split(", | or ", found[1]))


def test_all_operations_are_documented_and_tested():
    assert documented() == {str(kind) for kind in OperationKind} == {str(kind) for kind, _ in ACTS}


@pytest.mark.parametrize(("kind", "act"), ACTS, ids=[act.__name__ for _, act in ACTS])
def test_a_version_is_made_by_the_writer_and_whole(shop, monkeypatch, kind, act: Callable[[Shop], None]):
    layout, written, publish = shop.layout, [], writer.publish_new
    before = [] if act is Shop.build else version_numbers(layout)

    def noted(path: Path, content: bytes) -> None:
        written.append(path)
        publish(path, content)

    monkeypatch.setattr(writer, "publish_new", noted)
    act(shop)
    made = [number for number in version_numbers(layout) if number not in before]
    assert made and written == [layout.manifest(number) for number in made]
    manifest = Manifest.read(layout, made[-1])
    assert manifest.operation.kind == kind and list_versions(layout)[-1]["operation"]["kind"] in documented()
    assert verify(layout, deep=True)["problems"] == []
    hits = GradientIndex.open(layout.root).search_vectors(torch.ones(1, manifest.projection.dimension), k=3)[0].hits
    assert len(hits) == 3


def test_nothing_but_the_writer_commits():
    users = {path.name for path in (ROOT / "gindex").rglob("*.py") if "publish_new" in path.read_text()}
    assert users == {"atomic.py", "writer.py"}


def test_what_reindex_was_called_once_is_still_read(folder):
    reindex(Layout(folder))
    path = folder / "manifests/00000002.json"
    content = read_json(path)
    assert content["operation"] == {"kind": "reindex", "type": "auto"}
    write_json(path, content | {"operation": {"kind": "index", "type": "auto"}})
    assert list_versions(Layout(folder))[1]["operation"] == {"kind": "reindex", "type": "auto"}
