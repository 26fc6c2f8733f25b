"""The files of ivf indexes: what FAISS itself would write, whatever the pieces, from centres that are used again."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from gindex.ann import ivf_file
from gindex.ann import lists as lists_module
from gindex.ann import spec as spec_module
from gindex.ann.build import build_faiss
from gindex.ann.centres import SAMPLE_BYTES, read_centres, sample_size
from gindex.ann.entries import stored_entries
from gindex.ann.index import FaissIndex
from gindex.ann.ivf_file import EarlierIvf
from gindex.ann.lists import Scratch
from gindex.ann.spec import FaissSpec, choose_spec
from gindex.errors import StoreError

PARTS = 2000


@pytest.fixture(scope="module")
def one(reader, projection, tmp_path_factory) -> tuple[Path, FaissSpec]:
    """An index of all parts, with centres of its own."""
    path = tmp_path_factory.mktemp("one") / "1.faiss"
    return path, build_faiss(path, reader, projection, kind="ivf")


def in_memory(path: Path, one: tuple[Path, FaissSpec], reader, projection, run: range) -> bytes:
    """Reference: FAISS's own index of some parts with the same centres, filled at once, and written by FAISS."""
    centres = read_centres(faiss, one[0], one[1].centres)
    vectors = stored_entries(reader, np.array(run), one[1], projection)
    lists, _ = centres.encode(vectors)
    ids, pointer = np.arange(len(run)), faiss.swig_ptr
    centres.index.add_core(len(run), pointer(vectors), pointer(ids), pointer(lists))
    faiss.write_index(centres.index, str(path))
    return path.read_bytes()


@pytest.mark.parametrize("folds", [0, 1])
def test_the_file_is_the_one_that_faiss_writes(tmp_path, reader, projection, monkeypatch, folds):
    monkeypatch.setattr(spec_module, "RABITQ_BYTES", PARTS * 768 // 8 >> folds)
    path = tmp_path / "1.faiss"
    spec = build_faiss(path, reader, projection, kind="ivf")
    assert spec.folds == folds and spec.centres.parts == PARTS
    assert path.read_bytes() == in_memory(tmp_path / "2.faiss", (path, spec), reader, projection, range(PARTS))
    assert list(tmp_path.glob("*.partial")) == []


@pytest.mark.parametrize("piece", [1, 300, 1999])
def test_it_does_not_depend_on_the_pieces(tmp_path, one, reader, projection, monkeypatch, piece):
    monkeypatch.setattr(ivf_file, "DECODED", max(1, piece // 3))
    monkeypatch.setattr(ivf_file, "PIECE_BYTES", piece * (768 // 8 + 8 + 8))
    monkeypatch.setattr(lists_module, "ROWS", 7)
    earlier = [EarlierIvf(path=one[0], spec=one[1], run=None)]  # for its centres; k-means would take long in ones
    run = range(PARTS - 600 if piece == 1 else 0, PARTS)  # in most of the lists: FAISS names these where they are few
    path = tmp_path / "1.faiss"
    build_faiss(path, reader, projection, kind="ivf", run=run, earlier=earlier)
    assert path.read_bytes() == in_memory(tmp_path / "2.faiss", one, reader, projection, run)


@pytest.mark.parametrize(
    "runs",
    [
        [range(0, 1200)],
        [range(700, 2000)],
        [range(300, 900), range(900, 901), range(1500, 1800)],
        [range(0, 1000), range(1000, 2000)],
    ],
)
def test_lists_of_earlier_files_are_copied(tmp_path, one, reader, projection, runs, monkeypatch):
    """Nothing of them is looked at again but the file, and what comes out is what all parts at once come to."""
    centres, earlier = EarlierIvf(path=one[0], spec=one[1], run=None), []
    for number, run in enumerate(runs):
        path = tmp_path / f"{number}.faiss"
        spec = build_faiss(path, reader, projection, kind="ivf", run=run, earlier=[centres])
        assert spec.centres == one[1].centres and spec.lists == one[1].lists
        earlier.append(EarlierIvf(path=path, spec=spec, run=run))
    encoded = []
    piece = Scratch.piece
    monkeypatch.setattr(Scratch, "piece", lambda *a: (encoded.append(a[2]), piece(*a))[1])
    done: list[int] = []
    path = tmp_path / "all.faiss"
    spec = build_faiss(path, reader, projection, done.append, kind="ivf", earlier=earlier)
    assert path.read_bytes() == one[0].read_bytes() and spec == one[1]
    assert sum(encoded) == PARTS - sum(map(len, runs)) and sum(done) == PARTS


def test_centres_are_found_anew_when_there_are_too_many_parts_for_them(
    tmp_path, one, reader, projection, monkeypatch, caplog
):
    small = tmp_path / "small.faiss"
    monkeypatch.setattr("gindex.store.reader.StoreSpec.parts", property(lambda _self: 200))
    spec = build_faiss(small, reader, projection, kind="ivf", run=range(200))
    monkeypatch.undo()
    assert spec.centres.parts == 200
    earlier = [EarlierIvf(path=small, spec=spec, run=range(200))]
    path = tmp_path / "grown.faiss"
    assert build_faiss(path, reader, projection, kind="ivf", earlier=earlier) == one[1]
    assert path.read_bytes() == one[0].read_bytes()
    assert "found anew among 2,000 parts; those until now were found among 200" in caplog.text


def test_files_with_other_centres_are_not_copied(tmp_path, one, reader, projection):
    other = tmp_path / "other.faiss"
    own = build_faiss(other, reader, projection, kind="ivf", run=range(1000, 2000))
    assert own.centres != one[1].centres
    centres = EarlierIvf(path=one[0], spec=one[1], run=None)
    path = tmp_path / "all.faiss"
    build_faiss(
        path, reader, projection, kind="ivf",
        earlier=[centres, EarlierIvf(path=other, spec=own, run=range(1000, 2000))],
    )  # fmt: skip
    assert path.read_bytes() == one[0].read_bytes()


def test_indexes_of_older_versions_have_nothing_to_use_again(tmp_path, one, reader, projection, caplog):
    old = FaissSpec(**(vars(one[1]) | {"centres": None}))
    path = tmp_path / "all.faiss"
    earlier = [EarlierIvf(path=one[0], spec=old, run=range(PARTS))]
    assert build_faiss(path, reader, projection, kind="ivf", earlier=earlier) == one[1]
    assert "an unknown number" in caplog.text


def test_memory_is_mapped_and_searched_alike(tmp_path, one, reader, projection, queries):
    """A file of every part in lists gives what the lists of two files give together."""
    path, spec = one
    alone = FaissIndex(path, spec, projection, PARTS)
    read = FaissIndex(path, spec, projection, PARTS, mapped=False)
    for (got, _), (expected, _) in zip(alone.candidates(queries, 30), read.candidates(queries, 30), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_the_sample_and_the_centres_are_bounded():
    """So their memory does not grow with the parts, and neither does the work for each."""
    for parts in (10**4, 10**6, 10**8, 10**10):
        for dimension in (4096, 30720, 1 << 20):
            spec = choose_spec(parts, dimension, 1.0, "ivf")
            folded = dimension >> spec.folds
            assert spec.lists * folded * 4 <= spec_module.CENTRE_BYTES
            assert sample_size(spec.lists, folded) * folded * 4 <= SAMPLE_BYTES
            assert sample_size(spec.lists, folded) >= min(40, 8) * spec.lists


def test_no_space_is_told(one, reader, projection):
    earlier = [EarlierIvf(path=one[0], spec=one[1], run=None)]
    with pytest.raises(StoreError, match=r"expected to write the FAISS index, found .*; check free space"):
        build_faiss(Path("/proc/none/1.faiss"), reader, projection, kind="ivf", earlier=earlier)
