"""FAISS's files: written whole or not at all, refused where they are others, and candidates from them."""

import re
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
from torch import Tensor

from gindex.ann.build import build_faiss
from gindex.ann.index import FaissIndex
from gindex.ann.spec import FaissSpec
from gindex.distribution import install_hint
from gindex.errors import CorruptStoreError, MissingDependencyError, StoreError


def test_failing_write_leaves_the_index_that_was_there(tmp_path, make_reader, projection, monkeypatch):
    path, reader = tmp_path / "search.faiss", make_reader(3)
    build_faiss(path, reader, projection)
    before = path.read_bytes()

    def fail(_index: object, name: str) -> None:
        Path(name).write_bytes(b"half")
        raise RuntimeError("no space")

    monkeypatch.setattr(faiss, "write_index", fail)
    with pytest.raises(StoreError, match=r"search.faiss: expected to write the FAISS index, found no space"):
        build_faiss(path, reader, projection)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_missing_faiss_names_the_extra(tmp_path, make_reader, projection, monkeypatch):
    reader = make_reader(3)
    spec = build_faiss(tmp_path / "search.faiss", reader, projection)
    monkeypatch.setitem(sys.modules, "faiss", None)
    for act in (
        lambda: build_faiss(tmp_path / "other.faiss", reader, projection),
        lambda: FaissIndex(tmp_path / "search.faiss", spec, projection, 3),
    ):
        with pytest.raises(MissingDependencyError, match=re.escape(install_hint("cpu"))):
            act()


def foreign(index: faiss.Index, count: int = 3) -> bytes:
    index.add(np.ones((count, index.d), np.float32))
    return faiss.serialize_index(index).tobytes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"IxF2" + bytes(100),
        foreign(faiss.IndexFlatIP(768))[:-1],
        foreign(faiss.IndexFlatIP(767)),
        foreign(faiss.IndexFlatIP(768), 4),
        foreign(faiss.IndexFlatL2(768)),
    ],
    ids=["empty", "garbage", "header", "truncated", "dimension", "count", "metric"],
)
def test_file_that_is_not_the_index(tmp_path, make_reader, projection, content):
    path = tmp_path / "search.faiss"
    spec = build_faiss(path, make_reader(3), projection)
    path.write_bytes(content)
    with pytest.raises(CorruptStoreError, match=re.escape(str(path))):
        FaissIndex(path, spec, projection, 3).open()


def test_missing_file(tmp_path, projection):
    with pytest.raises(CorruptStoreError, match=re.escape(str(tmp_path / "none"))):
        FaissIndex(tmp_path / "none", FaissSpec(kind="flat", folds=0, scale=1.0), projection, 3).open()


def test_candidates_are_best_first(tmp_path, reader, projection, queries: Tensor):
    path = tmp_path / "search.faiss"
    index = FaissIndex(path, build_faiss(path, reader, projection), projection, 2000)
    for ordinals, scores in index.candidates(queries, 5000):
        assert ordinals.shape == scores.shape == (2000,) and (np.diff(scores) <= 0).all()
