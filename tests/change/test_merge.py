"""Merges: which volumes are due, and that nothing changes but the number of files."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from growth import add_copies
from hypothesis import given, settings
from hypothesis import strategies as st

from gindex import GradientIndex
from gindex.change import merge as merge_module
from gindex.change.compact import compact
from gindex.change.delete import delete_documents
from gindex.change.history import prune
from gindex.change.merge import FANOUT, due, merge_due, merge_volumes
from gindex.change.merged_volume import merging
from gindex.change.reindex import reindex
from gindex.change.rollback import rollback
from gindex.change.verify import verify
from gindex.errors import BusyError, CorruptStoreError
from gindex.files.locks import held
from gindex.progress import Phase, Silent
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.snapshot import Snapshot


def sized(manifest: Manifest, sizes: list[int], files: list[int] | None = None) -> Manifest:
    """A manifest of volumes of so many parts, and FAISS files of so many volumes."""
    volumes, first = [], 0
    for number, parts in enumerate(sizes):
        volumes.append(replace(manifest.volumes[0], number=number, first_part=first, parts=parts, lost=[]))
        first += parts
    counts, faiss = iter(sizes), []
    for volumes_of_file in files or [1] * len(sizes):
        parts = sum(next(counts) for _ in range(volumes_of_file))
        faiss.append(replace(manifest.search.main, parts=parts))
    return replace(manifest, volumes=volumes, search=replace(manifest.search, faiss=tuple(faiss)))


@pytest.fixture(scope="module")
def manifest(built) -> Manifest:
    return Snapshot.open(Layout(built)).manifest


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=200), st.sampled_from([None, 100, 5000]))
def test_few_volumes_are_left_and_each_part_is_written_again_seldom(manifest, adds, most):
    """Reference: the sizes alone, merged after every add."""
    sizes, written = [1000], 0
    for parts in adds:
        sizes.append(parts)
        while (run := due(sized(manifest, sizes), most)) is not None:
            assert run.stop == len(sizes) and len(run) > 1 and sum(sizes[run.start :]) <= (most or np.inf)
            written += sum(sizes[run.start :])
            sizes[run.start :] = [sum(sizes[run.start :])]
    assert sum(sizes) == 1000 + sum(adds)
    if most is None:
        tiers = int(np.log(sum(sizes)) / np.log(FANOUT)) + 1
        assert len(sizes) <= (FANOUT - 1) * tiers + 1
        assert written <= tiers * sum(sizes)


def test_what_is_due(manifest):
    of = FANOUT
    for sizes, run in [
        ([1000], None),
        ([1000, *[1] * (of - 1)], None),
        ([1000, *[1] * of], range(1, of + 1)),
        ([1000, *[of] * (of - 1), *[1] * of], range(1, 2 * of)),
        ([1, 1000, 1], None),
        ([600, of * of * of], None),
        ([of**4 - 1, 1], range(2)),
    ]:
        assert due(sized(manifest, sizes)) == run, sizes
    assert due(sized(manifest, [of**4 - 1, 1]), of**4 - 1) is None
    several = [1000, *[1] * of]  # one file of the first two volumes, as of an older gindex: they go together
    assert due(sized(manifest, several, [2, *[1] * (of - 1)])) is None
    lost = sized(manifest, several)
    lost.volumes[0].lost.append(0)
    assert due(lost) is None


def scores(folder: Path, **options: object) -> list[tuple[str, int, float]]:
    index = GradientIndex.open(folder)
    queries = torch.randn(3, index.manifest.projection.dimension, generator=torch.Generator().manual_seed(1))
    results = index.search_vectors(queries, k=10_000, **options)
    return [(hit.document_id, hit.part, hit.score) for result in results for hit in result.hits]


@pytest.fixture(scope="module")
def grown(built, tmp_path_factory) -> Path:
    """Adds of one to three documents, some deleted, merged nowhere."""
    folder = Path(shutil.copytree(built, tmp_path_factory.mktemp("grown") / "index"))
    for seed in range(12):
        add_copies(Layout(folder), 1 + seed % 3, seed, merge=False)
    added = [name for name in GradientIndex.open(folder).ids() if "#" in name]
    delete_documents(Layout(folder), ["d0", added[0], added[7], added[-1]])
    return folder


def test_merging_changes_no_answer(grown, tmp_path):
    folder = Path(shutil.copytree(grown, tmp_path / "index"))
    layout, before = Layout(folder), {way: scores(folder, **way_options(way)) for way in WAYS}
    old = Snapshot.open(layout).manifest
    ids = GradientIndex.open(folder).ids()
    merged = merge_due(layout)
    assert merged is not None and len(merged.volumes) == len(merged.search.faiss) < len(old.volumes)
    assert merged.operation.kind == "merge" and merged.version == old.version + 1
    assert (merged.documents, merged.deleted, merged.stored_parts) == (old.documents, old.deleted, old.stored_parts)
    assert verify(layout, deep=True)["problems"] == [] and merge_due(layout) is None
    assert GradientIndex.open(folder).ids() == ids
    for way, expected in before.items():
        got = scores(folder, **way_options(way))
        assert [hit[:2] for hit in sorted(got)] == [hit[:2] for hit in sorted(expected)]
        # The same stored vectors; FAISS sums 512 float32 products in blocks that depend on the number of vectors.
        wanted = [hit[2] for hit in sorted(expected)]
        np.testing.assert_allclose([hit[2] for hit in sorted(got)], wanted, rtol=1e-4, atol=1e-4)
    prune(layout)
    assert verify(layout, deep=True) | {"checked_bytes": 0} == {
        "version": merged.version, "problems": [], "unnamed": [], "checked_bytes": 0,
    }  # fmt: skip
    compacted = compact(layout)
    assert len(compacted.volumes) == len(compacted.search.faiss) == 1 and compacted.format_version == 2
    assert compacted.search.recall is not None and compacted.search.recall.parts is None
    assert sorted(hit[:2] for hit in scores(folder)) == sorted(hit[:2] for hit in before["hits"])


WAYS = ("hits", "scan", "where")


def way_options(way: str) -> dict[str, object]:
    return {"hits": {}, "scan": {"scan": True}, "where": {"where": "id >= 'd5'"}}[way]


def test_a_failed_merge_leaves_the_add(grown, tmp_path, monkeypatch, caplog):
    folder = Path(shutil.copytree(grown, tmp_path / "index"))
    layout, old = Layout(folder), Snapshot.open(Layout(grown)).manifest
    first = folder / "volumes/00003/documents.sqlite"
    first.write_bytes(first.read_bytes()[:-1] + b"\1")  # damage that only the merge looks at
    added = add_copies(layout, 1, seed=99)
    assert added.operation.kind == "add" and len(added.volumes) == len(old.volumes) + 1
    assert "the documents are added; merging small volumes failed" in caplog.text and "00003" in caplog.text
    first.write_bytes((grown / "volumes/00003/documents.sqlite").read_bytes())
    again = add_copies(layout, 1, seed=100)
    assert again.operation.kind == "merge" and len(again.volumes) < len(old.volumes)
    assert verify(layout, deep=True)["problems"] == []
    monkeypatch.setattr(merge_module, "PARTS_OF_ADD", 3)
    assert merge_module.merge_after_add(layout, sized(old, [1000, *[1] * 8]), Silent()).version == old.version


def test_an_add_reads_and_writes_what_it_adds(built, tmp_path):
    """Old tables, FAISS files and shards are opened by none of it: any of them may be damaged."""
    folder = Path(shutil.copytree(built, tmp_path / "index"))
    layout, manifest = Layout(folder), Snapshot.open(Layout(built)).manifest
    add_copies(layout, 1, merge=False)
    added = Snapshot.open(layout).manifest
    old = {file.path for file in manifest.files}
    assert old < {file.path for file in added.files}
    assert {file.path: file for file in added.files if file.path in old} == {file.path: file for file in manifest.files}
    written = sum(file.bytes for file in added.files if file.path not in old)
    assert written < 250_000  # of a table of a document, a chunk of 64 rows, and a FAISS file of one part


class Meanwhile(Silent):
    """A progress in whose first phase of a name something else is done."""

    def __init__(self, name: str, act: Callable[[], object]) -> None:
        self.name, self.act = name, act

    @contextmanager
    def phase(self, name: str, total: int | None, unit: str) -> Iterator[Phase]:
        with super().phase(name, total, unit) as phase:
            yield phase
        if name == self.name:
            self.name = ""
            self.act()


@pytest.mark.parametrize("phase", ["documents", "vectors", "search index"])
def test_others_write_while_a_merge_is_prepared(grown, tmp_path, phase):
    """Reference: the same changes of an index that is not merged."""
    folders = [Path(shutil.copytree(grown, tmp_path / name)) for name in ("merged", "plain")]
    some = [name for name in GradientIndex.open(grown).ids() if "#" in name]

    def write(layout: Layout) -> None:
        add_copies(layout, 2, seed=50, merge=False)
        delete_documents(layout, [some[1], some[5], "d3"])  # of volumes that are merged, and of one that is not

    def write_meanwhile() -> None:
        write(layouts[0])
        with pytest.raises(BusyError), merging(layouts[0]):
            pass

    layouts = [Layout(folder) for folder in folders]
    merged = merge_due(layouts[0], Meanwhile(phase, write_meanwhile))
    write(layouts[1])
    plain = Snapshot.open(layouts[1]).manifest
    assert merged is not None and merged.version == plain.version + 1 and merged.operation.kind == "merge"
    assert len(merged.volumes) == len(merged.search.faiss) < len(plain.volumes)
    assert (merged.documents, merged.deleted, merged.stored_parts) == (
        plain.documents,
        plain.deleted,
        plain.stored_parts,
    )
    assert verify(layouts[0], deep=True)["problems"] == [] and not layouts[0].merging.exists()
    assert GradientIndex.open(folders[0]).ids() == GradientIndex.open(folders[1]).ids()
    got, wanted = (sorted(scores(folder)) for folder in folders)
    assert [hit[:2] for hit in got] == [hit[:2] for hit in wanted]
    np.testing.assert_allclose([hit[2] for hit in got], [hit[2] for hit in wanted], rtol=1e-4, atol=1e-4)


def compact_and_add(layout: Layout) -> None:
    compact(layout)
    prune(layout)
    for seed in range(FANOUT):
        add_copies(layout, 1, seed=70 + seed, merge=False)


@pytest.mark.parametrize(
    ("act", "again"),
    [
        (compact, False),
        (reindex, False),
        (lambda layout: rollback(layout, 1), False),
        (compact_and_add, True),
    ],
    ids=["compact", "reindex", "rollback", "prune"],
)
@pytest.mark.parametrize("phase", ["documents", "vectors"])
def test_a_merge_of_what_is_gone_is_dropped_or_made_again(grown, tmp_path, phase, act, again):
    layout = Layout(Path(shutil.copytree(grown, tmp_path / "index")))
    merged = merge_due(layout, Meanwhile(phase, lambda: act(layout)))
    newest = Snapshot.open(layout).manifest
    assert (merged is not None) == (newest.operation.kind == "merge") == again
    if merged is not None:
        assert merged.volumes == newest.volumes and len(newest.volumes) < FANOUT
    report = verify(layout, deep=True)
    assert report["problems"] == report["unnamed"] == [] and not layout.merging.exists()


def test_what_a_dead_merge_prepared_is_removed(grown, tmp_path):
    layout = Layout(Path(shutil.copytree(grown, tmp_path / "index")))
    left = layout.merging / "volume/documents.sqlite"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"left")
    with held(layout.claim("merge")):  # as while another process merges
        assert prune(layout, keep=100)["bytes"] == 0 and left.is_file()
        added = add_copies(layout, 1, seed=500)
        assert added.operation.kind == "add"
    assert prune(layout, keep=100) == {"versions": 0, "files": 1, "bytes": 4} and not layout.merging.exists()
    left.parent.mkdir(parents=True)
    left.write_bytes(b"left")
    assert merge_due(layout) is not None and not layout.merging.exists()


def test_documents_that_were_replaced_are_merged(built, more, tmp_path):
    """A deleted document and the one that came by its id are in volumes that become one."""
    folder = Path(shutil.copytree(built, tmp_path / "index"))
    for number in range(FANOUT):
        texts = more({"new": f"the race the lock the heap {number}", f"other {number}": "the cache of the disk"})
        added = GradientIndex.open(folder, device="cpu").add([str(texts)], replace=True)
        assert added.replaced == (number > 0)
    assert added.manifest.operation.kind == "merge" and len(added.manifest.volumes) < 4
    index = GradientIndex.open(folder)
    assert index.document("new").text == f"the race the lock the heap {FANOUT - 1}"
    assert [name for name in index.ids() if name.startswith("new")] == ["new"]
    assert {hit[0] for hit in scores(folder)} == set(index.ids())
    assert verify(Layout(folder), deep=True)["problems"] == []
    delete_documents(Layout(folder), ["new"])
    compact(Layout(folder))
    assert "new" not in GradientIndex.open(folder).ids()
    assert verify(Layout(folder), deep=True)["problems"] == []


def test_lists_are_merged_with_what_is_added(built, tmp_path, monkeypatch):
    """Of the ivf index nothing is encoded again, its centres stay, and all of it is found as before."""
    folder = Path(shutil.copytree(built, tmp_path / "index"))
    layout = Layout(folder)
    old = reindex(layout, "ivf")
    centres = old.search.main.centres
    assert centres is not None and centres.parts == old.stored_parts and old.format_version == 4
    for seed in range(3):
        add_copies(layout, 3, seed, merge=False)
    before = {way: scores(folder, **way_options(way)) for way in ("scan", "where")}
    monkeypatch.setattr("gindex.ann.ivf_file.find_centres", None)  # it would fail
    merged = merge_volumes(layout, lambda _manifest: range(4), Silent())
    assert [file.kind for file in merged.search.faiss] == ["ivf"] and merged.search.main.centres == centres
    assert merged.search.recall is not None and merged.search.recall.parts is None
    assert verify(layout, deep=True)["problems"] == [] and merged.format_version == 4
    for way, expected in before.items():
        got = scores(folder, **way_options(way))
        assert [hit[:2] for hit in sorted(got)] == [hit[:2] for hit in sorted(expected)]
    delete_documents(layout, ["d3"])
    monkeypatch.setattr("gindex.ann.spec.FLAT_BYTES", 0)
    monkeypatch.setattr("gindex.ann.spec.IVF_PARTS", 1)
    compacted = compact(layout)
    assert compacted.search.main.centres == centres and "d3" not in GradientIndex.open(folder).ids()
    assert verify(layout, deep=True)["problems"] == []


def test_a_damaged_list_is_not_merged(built, tmp_path):
    folder = Path(shutil.copytree(built, tmp_path / "index"))
    layout = Layout(folder)
    path = folder / reindex(layout, "ivf").search.main.file
    add_copies(layout, 3, merge=False)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CorruptStoreError, match=f"{path.name}: expected CRC-32C"):
        merge_volumes(layout, lambda _manifest: range(2), Silent())
