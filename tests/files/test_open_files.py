"""Open files: an index of any number of them is used within any limit, and running out of them is no damage."""

import errno
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from growth import add_copies

from gindex.errors import CorruptStoreError, ResourceError
from gindex.files.open_files import MOST_HELD, MOST_WANTED, FilePool, check_shortage, most_open, raise_most_open
from gindex.store.layout import Layout

SEARCHES = """
import resource, sys
import numpy, torch
from gindex import GradientIndex
from gindex.change.verify import verify
from gindex.store.layout import Layout
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
opened = GradientIndex.open(sys.argv[1])
reader, table = opened.snapshot.vectors, opened.snapshot.documents
parts = numpy.arange(reader.spec.parts)
assert reader.decoded(parts).isfinite().all() and 3 * reader.spec.segments > 64
assert len(table.objectives(parts)) == len(parts)
assert len(opened.search_vectors(torch.ones(2, reader.spec.dimension), k=5)[0].hits) == 5
assert verify(Layout(opened.path), deep=True)["problems"] == []
"""

MERGES = """
import resource, shutil, sys
from pathlib import Path
from tempfile import TemporaryDirectory
from gindex import GradientIndex
from gindex.change.compact import compact
from gindex.change.merge import merge_due
from gindex.change.verify import verify
from gindex.store.layout import Layout
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
with TemporaryDirectory() as folder:
    layout = Layout(Path(shutil.copytree(sys.argv[1], Path(folder, "index"))))
    before = len(GradientIndex.open(layout.root).ids())
    merged = merge_due(layout)
    assert len(merged.volumes) < 24 and len(compact(layout).volumes) == 1
    assert len(GradientIndex.open(layout.root).ids()) == before
    assert verify(layout, deep=True)["problems"] == []
"""

RUNS_OUT = """
import os, resource, sys
import numpy, torch
from gindex import GradientIndex
from gindex.errors import ResourceError
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
def uses(opened):
    snapshot = opened.snapshot
    query = torch.ones(1, snapshot.vectors.spec.dimension)
    return [
        lambda: snapshot.vectors.decoded(numpy.arange(3)),
        lambda: snapshot.documents.objectives([0]),
        lambda: opened.search_vectors(query, k=3),
        lambda: GradientIndex.open(sys.argv[1]),
    ]
for use in uses(GradientIndex.open(sys.argv[1])):  # whatever is imported at the first use
    use()
opened = GradientIndex.open(sys.argv[1])
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
for number, use in enumerate(uses(opened)):
    try:
        use()
    except ResourceError as error:
        assert "64 open files" in str(error) and "ulimit -n" in str(error), error
    else:
        raise SystemExit(f"no error of {number}")
for descriptor in taken:
    os.close(descriptor)
for use in uses(opened):
    use()
"""


THREADS = """
import os, resource, sys, threading
import torch
from gindex import thread_pool
torch.set_num_threads(2)
thread_pool.spread(lambda _piece: None, [0])  # one thread alone
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True:
        os.open(os.devnull, os.O_RDONLY)
except OSError:
    pass
both = threading.Barrier(2, timeout=60)
thread_pool.spread(lambda _piece: both.wait(), [0, 1])
"""


@pytest.fixture(scope="module")
def grown(built, tmp_path_factory) -> Path:
    """An index of many volumes."""
    folder = Path(shutil.copytree(built, tmp_path_factory.mktemp("grown") / "index"))
    for seed in range(24):
        add_copies(Layout(folder), 2, seed, merge=False)
    return folder


@pytest.mark.parametrize("script", [SEARCHES, MERGES, RUNS_OUT])
def test_an_index_of_many_files_within_64_descriptors(grown, script):
    done = subprocess.run([sys.executable, "-c", script, str(grown)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_thread_that_starts_while_no_file_can_be_opened_works():
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_limit_is_raised_and_pools_follow_it():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    pool = FilePool()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        assert most_open() == 64 and pool.most == 8
        raise_most_open()
        assert most_open() == (MOST_WANTED if hard == resource.RLIM_INFINITY else min(hard, MOST_WANTED))
        assert pool.most == min(MOST_HELD, most_open() // 8)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Holder:
    def __init__(self) -> None:
        self.released: list[int] = []

    def release(self, number: int) -> None:
        self.released.append(number)


def test_what_was_used_longest_ago_is_let_go(monkeypatch):
    pool, one, other = FilePool(), Holder(), Holder()
    monkeypatch.setattr(FilePool, "most", 3)
    for holder, number in ((one, 0), (other, 0), (one, 1), (one, 0), (other, 1), (other, 2)):
        pool.use(holder, number)
    assert (one.released, other.released) == ([1], [0])
    del one  # an owner that is gone holds nothing
    pool.use(other, 3)
    pool.use(other, 4)
    assert other.released == [0, 1]


@pytest.mark.parametrize(("number", "word"), [(errno.EMFILE, "ulimit -n"), (errno.ENFILE, "fs.file-max"),
                                              (errno.ENOMEM, "vm.max_map_count")])  # fmt: skip
def test_shortages_name_their_limit(tmp_path, number, word):
    with pytest.raises(ResourceError, match=word):
        check_shortage(OSError(number, "x"), tmp_path)


def test_other_errors_are_none(tmp_path):
    check_shortage(OSError(errno.ENOENT, "x"), tmp_path)
    check_shortage(RuntimeError("x"), tmp_path / "missing")
    assert not issubclass(ResourceError, CorruptStoreError)
