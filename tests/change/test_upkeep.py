"""Delete, compact, versions, rollback, prune, verify and repair."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from gindex import GradientIndex
from gindex.build.run import run_build
from gindex.change.compact import compact
from gindex.change.delete import delete_documents, merged
from gindex.change.history import list_versions, prune
from gindex.change.repair import repair
from gindex.change.rollback import rollback
from gindex.change.verify import verify
from gindex.documents.selection import lexical_documents
from gindex.errors import CorruptStoreError, StoreError, UnknownDocumentError, VersionError
from gindex.store.layout import Layout
from gindex.store.records import Operation
from gindex.store.snapshot import Snapshot
from gindex.store.versions import version_numbers

PROMPT, COMPLETION = "the compiler race", " bug the stack"


def hits(index: GradientIndex, **more: object) -> list[tuple[str, int, float]]:
    found = index.search(PROMPT, COMPLETION, k=10_000, **more).hits
    return [(hit.document_id, hit.part, hit.score) for hit in found]


def assert_same_hits(found: list[tuple[str, int, float]], expected: list[tuple[str, int, float]]) -> None:
    """Matrix products round by where their operands lie in memory, so scores that all but tie may change places."""
    assert sorted(hit[:2] for hit in found) == sorted(hit[:2] for hit in expected)
    assert [hit[2] for hit in found] == pytest.approx([hit[2] for hit in expected], rel=1e-5, abs=1e-5)
    scores = {hit[:2]: hit[2] for hit in expected}
    assert [hit[2] for hit in found] == pytest.approx([scores[hit[:2]] for hit in found], rel=1e-5, abs=1e-5)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Delete


@pytest.mark.parametrize("options", [{}, {"negative": True}, {"exact": True, "candidates": 10_000}])
def test_deleted_documents_are_in_no_answer(folder, opened, options):
    before = hits(opened, **options)
    gone = {before[0][0], before[5][0], "d149"}  # the last one has many parts
    opened.delete(sorted(gone))
    assert_same_hits(hits(opened, **options), before)  # its version
    assert_same_hits(hits(opened.refresh(), **options), [hit for hit in before if hit[0] not in gone])


def test_delete_refuses_whole(folder):
    before = files(folder)
    with pytest.raises(UnknownDocumentError, match=r"found no 'nobody' and 1 others; check the ids"):
        delete_documents(Layout(folder), ["d1", "nobody", "none"])
    assert files(folder) == before
    delete_documents(Layout(folder), ["d1"])
    with pytest.raises(UnknownDocumentError, match="found no 'd1'"):
        delete_documents(Layout(folder), ["d1"])
    with pytest.raises(StoreError, match="expected at least one document to be left"):
        delete_documents(Layout(folder), [f"d{n}" for n in range(150) if n != 1])


def test_deleted_id_may_be_added_again(folder, opened, more):
    opened.delete(["d3"])
    assert opened.add([str(more({"d3": "the stack again"}))]).replaced == 0
    with Snapshot.open(Layout(folder)).table() as table:
        assert table.document("d3").text == "the stack again"
        assert [document for document, _ in lexical_documents(table, "again", 5)] == [table.ordinals(["d3"])["d3"]]


def test_ranges_are_merged():
    assert merged([(4, 6), (0, 2), (2, 3), (5, 9)]) == [(0, 3), (4, 9)]


# Compact, versions, rollback, prune


def test_compact_changes_no_answer_and_removes_the_deleted(folder, opened, more):
    opened.add([str(more({f"n{n}": f"a race of {n} threads" for n in range(70)}))])
    delete_documents(Layout(folder), ["d0", "d149", "n3"])
    grown = GradientIndex.open(folder, device="cpu")
    before, exact = hits(grown), hits(grown, exact=True, candidates=50)
    manifest = compact(Layout(folder))
    assert len(manifest.volumes) == 1 and not manifest.deleted
    assert manifest.documents["documents"] == 150 + 70 - 3
    compacted = GradientIndex.open(folder, device="cpu")
    for got, expected in ((hits(compacted), before), (hits(compacted, exact=True, candidates=50), exact)):
        assert sorted(hit[:2] for hit in got) == sorted(hit[:2] for hit in expected)
        # The same stored vectors; FAISS sums 512 float32 products in blocks that depend on a vector's place.
        np.testing.assert_allclose([hit[2] for hit in got], [hit[2] for hit in expected], rtol=1e-4, atol=1e-4)
    assert hits(grown) == before
    assert verify(Layout(folder), deep=True)["problems"] == []
    assert compact(Layout(folder)).version == manifest.version  # nothing is left to do


def test_versions_rollback_and_prune(folder, opened, more):
    layout = Layout(folder)
    opened.add([str(more({"n0": "a race"}))])
    delete_documents(layout, ["d0"])
    compact(layout)
    assert [v["operation"]["kind"] for v in list_versions(layout)] == ["build", "add", "delete", "compact"]
    assert rollback(layout, 2).version == 5
    assert "n0" in {name for name, *_ in hits(opened.refresh())} and "d0" in {n for n, *_ in hits(opened.refresh())}
    with pytest.raises(VersionError, match="expected version 9, found 1 to 5"):
        rollback(layout, 9)
    for version in version_numbers(layout):
        assert verify(layout, version, deep=True)["problems"] == []
    assert prune(layout, keep=2)["versions"] == 3 and version_numbers(layout) == [4, 5]
    removed = prune(layout)
    assert removed["versions"] == 1 and removed["files"] > 5
    assert verify(layout, deep=True) | {"checked_bytes": 0} == {
        "version": 5, "problems": [], "unnamed": [], "checked_bytes": 0,
    }  # fmt: skip
    assert not layout.volume(2).folder.exists()


def test_rollback_from_a_damaged_manifest(folder):
    layout = Layout(folder)
    delete_documents(layout, ["d0"])
    layout.manifest(2).write_bytes(b"{")
    with pytest.raises(CorruptStoreError, match=r"00000002.json"):
        GradientIndex.open(folder)
    assert "problem" in list_versions(layout)[1]
    rollback(layout, 1)
    assert GradientIndex.open(folder).manifest.version == 3


# Verify, repair, degraded search


def test_verify_finds_what_is_damaged_and_what_is_left_over(folder):
    layout = Layout(folder)
    assert verify(layout, deep=True)["problems"] == []
    (folder / "volumes/00000/vectors/codes/c/9").mkdir()
    (folder / "volumes/00000/vectors/codes/c/9/0").write_bytes(b"left")
    assert verify(layout)["unnamed"] == ["volumes/00000/vectors/codes/c/9/0"]
    for name in ("factors/eigenbases-00000.safetensors", "volumes/00000/documents.sqlite", "search/00000001.faiss"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert [name in problem for problem in verify(layout)["problems"]] == [True]
        (folder / name).unlink()
        assert [name in problem for problem in verify(layout)["problems"]] == [True]
        (folder / name).write_bytes(content)


@pytest.fixture
def lost(folder) -> list[str]:
    """Ids of documents in a segment that is damaged."""
    path = folder / "volumes/00000/vectors/codes/c/1/0"
    path.write_bytes(path.read_bytes()[:-1])
    with Snapshot(Layout(folder), GradientIndex.open(folder.parent / "whole").manifest).table() as table:
        return [part.document_id for part in table.parts(range(64, 128))]


@pytest.fixture(autouse=True)
def whole(built, tmp_path) -> Path:
    return shutil.copytree(built, tmp_path / "whole")


def test_degraded_search_is_asked_for_and_says_so(folder, lost, run):
    with pytest.raises(CorruptStoreError, match=r"codes/c/1/0"):
        GradientIndex.open(folder)
    index = GradientIndex.open(folder, device="cpu", allow_degraded=True)
    assert len(index.problems) == 1 and "codes/c/1/0" in index.problems[0]
    complete = hits(GradientIndex.open(folder.parent / "whole", device="cpu"))
    kept = {hit[:2] for hit in hits(index)}
    with Snapshot(Layout(folder), index.manifest).table() as table:
        missing = {(part.document_id, part.part) for part in table.parts(range(64, 128))}
    assert kept == {hit[:2] for hit in complete} - missing
    result = run("search", folder, PROMPT, "-k", "2", "--allow-degraded", "--json")
    assert result.exit_code == 0 and "degraded, answers lack documents" in result.stderr
    assert '"degraded": [' in result.stdout


def test_repair_marks_lost_segments_and_build_computes_them_alone(folder, lost, corpus_file, make_config, built):
    layout, untouched = Layout(folder), files(folder)
    done = repair(layout)
    assert done.lost == 64 and not done.beyond and not done.rebuilt
    with pytest.raises(CorruptStoreError, match="found 64 parts waiting to be computed again"):
        GradientIndex.open(folder)
    assert verify(layout)["problems"]
    manifest = run_build([str(corpus_file)], folder, make_config())
    assert manifest.operation == Operation(kind="build", recomputed=1) and not manifest.lost_parts
    assert verify(layout, deep=True)["problems"] == []
    for name, content in files(built).items():
        if not name.startswith("manifests/"):
            assert (folder / name).read_bytes() == content, name
    assert untouched.keys() - files(folder).keys() == set()


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_repair_rebuilds_faiss(folder, built, damage):
    layout = Layout(folder)
    content = layout.faiss(1).read_bytes()
    layout.faiss(1).unlink() if damage == "missing" else layout.faiss(1).write_bytes(content[:-1] + b"\1")
    done = repair(layout)
    assert done.rebuilt == ("search/00000002.faiss",) and not done.lost
    assert layout.faiss(2).read_bytes() == content
    assert verify(layout, deep=True)["problems"] == []
    assert repair(layout).manifest.version == done.manifest.version  # nothing is left to do


def test_repair_writes_checksums_of_rows_again(folder, built):
    layout, name = Layout(folder), "volumes/00000/documents.crc32c"
    for damaged in (b"", (built / name).read_bytes()[:-1] + b"x"):
        (folder / name).write_bytes(damaged)
        assert [name in problem for problem in verify(layout)["problems"]] == [True]
        done = repair(layout)
        assert done.rebuilt == (name,) and not done.beyond and version_numbers(layout) == [1]
        assert files(folder) == files(built) and verify(layout, deep=True)["problems"] == []


@pytest.mark.parametrize("name", ["factors/eigenbases-00000.safetensors", "volumes/00000/documents.sqlite"])
def test_what_cannot_be_repaired_is_said(folder, name):
    (folder / name).unlink()
    done = repair(Layout(folder))
    assert len(done.beyond) == 1 and name in done.beyond[0] and version_numbers(Layout(folder)) == [1]
    with pytest.raises(CorruptStoreError, match=name):
        GradientIndex.open(folder, allow_degraded=True)


# The commands


def test_commands(run, folder, more):
    more({"n0": "a race"})
    path = folder.parent / "more.jsonl"
    for arguments, expected in [
        (("add", folder, path, "--device", "cpu"), "1 document added, version 2"),
        (("delete", folder, "d1", "d2"), "2 documents deleted, version 3"),
        (("versions", folder), "    3  "),
        (("compact", folder), "149 documents"),
        (("rollback", folder, "1"), "as in version 1, now version 5"),
        (("prune", folder, "--keep", "2"), "3 versions removed"),
        (("verify", folder, "--deep"), "version 5, whole"),
        (("repair", folder), "version 5"),
    ]:
        result = run(*arguments)
        assert result.exit_code == 0 and expected in result.stdout, result.output
    (folder / "search/00000001.faiss").unlink()
    result = run("verify", folder)
    assert result.exit_code == 1 and "wrong: " in result.stdout and "found no file" in result.stdout
    result = run("verify", folder, "--json")
    assert result.exit_code == 1 and '"problems": [' in result.stdout


@pytest.mark.parametrize("name", ["delete", "rollback", "versions", "verify", "repair", "prune", "compact"])
def test_commands_on_what_is_no_index(run, tmp_path, name):
    more = {"delete": ["d1"], "rollback": ["1"]}.get(name, [])
    result = run(name, tmp_path / "none", *more)
    assert result.exit_code == 8 and "expected an index, found no such folder" in result.stderr
    assert not (tmp_path / "none").exists()


def test_path_with_odd_characters(folder, run):
    odd = folder.rename(folder.parent / "ö #%?&'\n x")
    assert run("delete", odd, "d1").exit_code == 0 and run("compact", odd).exit_code == 0
    assert run("verify", odd, "--deep").exit_code == 0
