"""Files of scores of every format, against float64 over the stored vectors and searches; cut off and resumed."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from gindex import GradientIndex
from gindex.errors import BusyError, ConfigError, MissingDependencyError, QueryError, SettingsMismatchError, StoreError
from gindex.files.locks import held
from gindex.queries.query import Query
from gindex.search import score_file, sweeper

pyarrow = pytest.importorskip("pyarrow.parquet", reason="needs gradient-index[corpora]")

QUERIES = [
    Query(prompt="the stack", completion=" heap race", id="stack"),
    Query(prompt="the compiler bug", completion=" in the kernel", id='odd "name"'),
    Query(prompt="page file disk"),
]
NAMES = ["stack", 'odd "name"', "2"]


@pytest.fixture(scope="module")
def opened(sourced) -> GradientIndex:
    return GradientIndex.open(sourced, device="cpu")


def read(path) -> tuple[list, np.ndarray]:
    """Names of the rows, and scores [Q, N], of a file of any format."""
    if path.suffix == ".npy":
        names = json.loads(path.with_name(f"{path.name}.json").read_text())
        assert names["queries"] == NAMES
        rows = list(zip(names["documents"], names["parts"], strict=True)) if "parts" in names else names["documents"]
        return rows, np.load(path)
    if path.suffix == ".parquet":
        table = pyarrow.read_table(path)
        own = ["document_id", "part"] if "part" in table.column_names else ["document_id"]
        assert table.column_names == [*own, *NAMES]
        records = table.to_pylist()
        scores = np.array([[record[name] for record in records] for name in NAMES])
    else:
        records = [json.loads(line) for line in path.read_text().splitlines()]
        assert all(list(record["scores"]) == NAMES for record in records)
        scores = np.array([[record["scores"][name] for record in records] for name in NAMES])
    rows = [(r["document_id"], r["part"]) if "part" in r else r["document_id"] for r in records]
    return rows, scores


def reference(index: GradientIndex, hits: str, where) -> tuple[list, np.ndarray]:
    """Names, and scores by a matrix product in float64, summed over documents in a loop."""
    parts = [part for part in index.snapshot.documents.parts(index.snapshot.usable_parts) if where(part.metadata)]
    x = index.snapshot.vectors.decoded(np.array([part.ordinal for part in parts])).double().numpy()
    q = np.stack([query.vector_D.double().numpy() for query in index.encode(QUERIES)])
    sums: dict = {}
    for part, column in zip(parts, (q @ x.T).T, strict=True):
        name = part.document_id if hits == "document" else (part.document_id, part.part)
        sums[name] = sums.get(name, 0) + column
    return list(sums), np.stack(list(sums.values()), 1)


@pytest.mark.parametrize("ending", ["parquet", "npy", "jsonl"])
@pytest.mark.parametrize("hits", ["document", "part"])
def test_every_score_is_in_the_file(opened, tmp_path, monkeypatch, ending, hits):
    monkeypatch.setattr(sweeper, "BLOCK_PARTS", 50)
    monkeypatch.setattr(score_file, "MOST_ROWS", 40)
    told = opened.write_scores(QUERIES, tmp_path / f"s.{ending}", hits=hits, where="number < 140 or number = 149")
    rows, scores = read(tmp_path / f"s.{ending}")
    names, expected = reference(opened, hits, lambda metadata: metadata["number"] < 140 or metadata["number"] == 149)
    assert rows == names and told.count == len(names) and told.queries == 3 and told.resumed == 0
    # Queries are rounded to 16 bits a coordinate; see test_groups.
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"s.{ending}", *["s.npy.json"] * (ending == "npy")]


def test_the_three_formats_hold_the_same_numbers(opened, tmp_path):
    found = []
    for ending in ("parquet", "npy", "jsonl"):
        opened.write_scores(QUERIES, tmp_path / f"s.{ending}", normalise="relatif")
        found.append(read(tmp_path / f"s.{ending}"))
    assert found[0][0] == found[1][0] == found[2][0]
    for _, scores in found:
        np.testing.assert_array_equal(scores.astype(np.float32), found[1][1])


@pytest.mark.parametrize("normalise", ["none", "unit", "relatif", "length"])
def test_scores_are_those_of_a_search(opened, tmp_path, normalise):
    opened.write_scores(QUERIES, tmp_path / "s.npy", normalise=normalise)
    names, scores = read(tmp_path / "s.npy")
    results = opened.search_many(QUERIES, k=1000, scan=True, hits="document", document_score="sum", normalise=normalise)
    for row, result in zip(scores, results, strict=True):
        searched = {hit.document_id: hit.score for hit in result.hits}
        expected = [searched[name] for name in names]
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("normalise", ["none", "length"])
def test_exact_influence_is_that_of_a_search(opened, tmp_path, monkeypatch, normalise):
    """In blocks of parts, and of one query at a time, as where no more fit in memory."""
    monkeypatch.setattr(sweeper, "EXACT_BLOCK_PARTS", 40)
    monkeypatch.setattr(opened.reranker, "_block_bytes", 1)
    assert len(opened.reranker.blocks(3).slices) == 3
    opened.write_scores(QUERIES, tmp_path / "s.npy", exact=True, hits="part", normalise=normalise)
    names, influence = read(tmp_path / "s.npy")
    lengths = opened.snapshot.documents.part_lengths()[opened.snapshot.usable_parts]
    if normalise == "length":
        influence = influence * np.maximum(lengths - 1, 1)
    results = opened.search_many(QUERIES, k=1000, exact=True, candidates=1000)
    for row, result in zip(influence, results, strict=True):
        searched = {(hit.document_id, hit.part): hit.influence for hit in result.hits}
        expected = [searched[name] for name in names]
        # Batches of another make-up round otherwise.
        np.testing.assert_allclose(row, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_queries_of_other_forms_have_scores(opened, tmp_path):
    """Prepared tokens, a contrast, and a set of queries: each is one column."""
    ids = opened.model.tracked.loaded.tokenizer("the stack heap race")["input_ids"]
    queries = [
        Query(input_ids=ids, id="tokens"),
        Query(prompt="the stack", completion=" heap", contrast=" race", id="contrast"),
        Query(queries=QUERIES[:2], aggregate="mean", id="set"),
    ]
    for exact in (False, True):
        out = tmp_path / f"{exact}.jsonl"
        opened.write_scores(queries, out, exact=exact, hits="part")
        records = [json.loads(line) for line in out.read_text().splitlines()]
        for query in queries:
            (result,) = opened.search_many([query], k=1000, exact=exact, scan=True)
            hits = result.hits
            of_query = {(record["document_id"], record["part"]): record["scores"][query.id] for record in records}
            for hit in hits:
                expected = hit.influence if exact else hit.score
                largest = max(map(abs, of_query.values()))
                assert of_query[hit.document_id, hit.part] == pytest.approx(expected, rel=1e-3, abs=1e-5 * largest)


def test_tiles_are_the_file(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(sweeper, "BLOCK_PARTS", 30)
    opened.write_scores(QUERIES, tmp_path / "s.npy")
    sweep = opened.sweep(QUERIES)
    tiles = list(sweep.tiles())
    assert len(tiles) == sweep.tile_count > 3
    np.testing.assert_array_equal(np.concatenate([tile.scores_QN for tile in tiles], 1), np.load(tmp_path / "s.npy"))


KILLED = """
import os, signal, sys
from gindex import GradientIndex
from gindex.queries.query import Query
from gindex.search import score_file, sweeper

folder, out, exact, last = sys.argv[1], sys.argv[2], sys.argv[3] == "exact", int(sys.argv[4])
sweeper.BLOCK_PARTS = sweeper.EXACT_BLOCK_PARTS = 40
score_file.MOST_ROWS = 50
index = GradientIndex.open(folder, device="cpu")
index.reranker._block_bytes = 1
flush, done = os.fsync, 0

def counted(descriptor):
    global done
    done += 1
    if done == last:
        os.kill(os.getpid(), signal.SIGKILL)
    flush(descriptor)

os.fsync = counted
queries = [Query(prompt="the stack", completion=" heap race", id="stack"), Query(prompt="page file disk")]
print(index.write_scores(queries, out, exact=exact).resumed)
"""


def killed_at(last: int, *arguments: object) -> subprocess.CompletedProcess:
    """Write scores in a process that is killed before so many flushes to the disk; 0 lets it end."""
    command = [sys.executable, "-c", KILLED, *map(str, arguments), str(last)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize(
    ("ending", "kind", "kills"),
    [("npy", "exact", (3, 8, 13, 16, 19)), ("parquet", "stored", (13, 19)), ("jsonl", "stored", (16,))],
)
def test_a_file_that_was_cut_off_again_and_again_is_that_of_one_run(sourced, tmp_path, ending, kind, kills):
    whole, cut = tmp_path / f"whole.{ending}", tmp_path / f"cut.{ending}"
    assert killed_at(0, sourced, whole, kind).returncode == 0
    shares = []
    # In the array before it is there, between a tile and its count, between the last ones, and while the file is made.
    for last in kills:
        run = killed_at(last, sourced, cut, kind)
        if run.returncode == 0:
            shares.append(float(run.stdout))
            break
        assert run.returncode == -signal.SIGKILL, run.stderr
    else:
        run = killed_at(0, sourced, cut, kind)
        assert run.returncode == 0, run.stderr
        shares.append(float(run.stdout))
    assert 0 < shares[-1] <= 1
    assert cut.read_bytes() == whole.read_bytes()
    if ending == "npy":
        assert cut.with_name("cut.npy.json").read_bytes() == whole.with_name("whole.npy.json").read_bytes()
    assert not cut.with_name(f"{cut.name}.unfinished").exists()


def test_the_folder_alone_is_left_where_the_array_became_the_file(opened, tmp_path, monkeypatch):
    """A kill between the last rename and the removal of the folder."""
    with monkeypatch.context() as patched:
        patched.setattr(score_file, "remove_tree", lambda folder: None)
        opened.write_scores(QUERIES, tmp_path / "s.npy")
    before = (tmp_path / "s.npy").read_bytes()
    assert (tmp_path / "s.npy.unfinished").exists()
    assert opened.write_scores(QUERIES, tmp_path / "s.npy").resumed == 1
    assert (tmp_path / "s.npy").read_bytes() == before and not (tmp_path / "s.npy.unfinished").exists()


def interrupted(index: GradientIndex, out, monkeypatch, **settings) -> None:
    """Leave unfinished scores behind."""
    with monkeypatch.context() as patched:
        patched.setattr(sweeper, "BLOCK_PARTS", 50)
        patched.setattr("gindex.search.score_work.write_json", _second_time_fails())
        with pytest.raises(OSError, match="no room"):
            index.write_scores(QUERIES, out, **settings)


def _second_time_fails():
    from gindex.store.files import write_json

    calls = []

    def write(path, content):
        calls.append(path)
        if len(calls) == 3:
            raise OSError("no room")
        write_json(path, content)

    return write


def test_unfinished_scores_of_something_else_are_refused(opened, tmp_path, monkeypatch):
    out = tmp_path / "s.jsonl"
    interrupted(opened, out, monkeypatch)
    with pytest.raises(SettingsMismatchError, match="same division into blocks, queries, found others"):
        opened.write_scores(QUERIES[:2], out)
    with pytest.raises(SettingsMismatchError, match=r"normalise, found others; .*remove"):
        opened.write_scores(QUERIES, out, normalise="length")
    monkeypatch.setattr(sweeper, "BLOCK_PARTS", 50)
    assert 0 < opened.write_scores(QUERIES, out).resumed < 1


def test_two_do_not_write_one_file(opened, tmp_path):
    (tmp_path / "s.npy.unfinished").mkdir()
    with held(tmp_path / "s.npy.unfinished" / "lock"), pytest.raises(BusyError):
        opened.write_scores(QUERIES, tmp_path / "s.npy")


def test_what_cannot_be_written_is_refused_before_any_work(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(GradientIndex, "sweep", lambda *_asked: pytest.fail("the work began"))
    (tmp_path / "there.npy").write_bytes(b"")
    for out, queries, error, message in [
        ("there.npy", QUERIES, ConfigError, "there.npy: expected a file that is not there yet, found one; remove it"),
        ("scores.csv", QUERIES, ConfigError, r"out: expected a file that ends with .parquet, .npy, .jsonl"),
        ("s.npy", [], QueryError, "queries: expected at least one, found none"),
        ("s.npy", [QUERIES[0], QUERIES[0]], QueryError, "found 'stack'; give it another id"),
        ("s.npy", [QUERIES[2], Query(prompt="a b", id="0")], QueryError, "found '0'"),
        ("s.npy", [Query(prompt="a b", id="document_id")], QueryError, "found 'document_id'"),
    ]:
        with pytest.raises(error, match=message):
            opened.write_scores(queries, tmp_path / out)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingDependencyError, match="expected the package pyarrow, found none installed"):
        opened.write_scores(QUERIES, tmp_path / "s.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["there.npy"]


def test_nothing_to_score_and_failing_queries(opened, tmp_path):
    with pytest.raises(StoreError, match="where: expected at least one document to score, found none"):
        opened.write_scores(QUERIES, tmp_path / "s.npy", where="number < 0")
    with pytest.raises(QueryError, match="at least one token"):
        opened.write_scores([*QUERIES, Query(prompt="a b", completion="")], tmp_path / "s.npy")
    with pytest.raises(ConfigError, match="normalise: expected none, relatif or length beside `exact`"):
        opened.write_scores(QUERIES, tmp_path / "s.npy", exact=True, normalise="unit")
    assert not list(tmp_path.iterdir())
