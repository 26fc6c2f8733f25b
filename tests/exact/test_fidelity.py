"""The fidelity of an index, against the same figures from its searches."""

import json
import subprocess
import sys

import numpy as np
import pytest
from report_files import read_report

from gindex import GradientIndex, Query
from gindex.documents.table import DocumentTable
from gindex.errors import ConfigError, QueryError
from gindex.statistics import agreement

QUERIES = [Query(prompt="the compiler race", completion=" bug the stack"), Query(prompt="a lock and a page")]


def names(built) -> dict[tuple[str, int], int]:
    with DocumentTable.open(built / "volumes/00000/documents.sqlite") as table:
        return {(p.document_id, p.part): p.ordinal for p in table.parts(range(table.counts().parts))}


def test_measures_are_those_of_searches(index, built):
    """Scores and influence come from two searches that return every part; the measures from them by definition."""
    measured, ordinals = index.fidelity(QUERIES), names(built)
    for number, query in enumerate(QUERIES):
        everything = index.search(query.prompt, query.completion, k=10_000, exact=True, candidates=10_000).hits
        for hit in everything:
            ordinal = ordinals[hit.document_id, hit.part]
            # float32 sums of terms that cancel; a search's scores round the query to 16 bits besides
            for found, values, error in ((hit.score, measured.scores, 1e-4), (hit.influence, measured.influence, 1e-5)):
                rounding = error * float(np.abs(values[number]).max())
                assert float(values[number, ordinal]) == pytest.approx(found, abs=rounding)
        assert len(everything) == measured.parts
    expected = [agreement(s, i) for s, i in zip(measured.scores, measured.influence, strict=True)]
    assert measured.ranked.all()
    for name, interval in measured.measures.items():
        assert interval.mean == pytest.approx(np.mean([values[name] for values in expected]))
    assert measured.measures["pearson"].mean > 0.5  # measured .8; the sign, and that the parts are in one order


def test_drawn_queries_leave_their_own_document_out(index, built):
    measured = index.fidelity(sample=5, seed=3)
    assert measured.queries == 5
    with DocumentTable.open(built / "volumes/00000/documents.sqlite") as table:
        documents = table.part_documents()
    left_out = [set(documents[~ranked]) for ranked in measured.ranked]
    assert all(len(own) == 1 for own in left_out) and len(set.union(*left_out)) == 5
    for ranked, influence in zip(measured.ranked, measured.influence, strict=True):
        assert set(documents[ranked]).isdisjoint(documents[~ranked])
        best = np.argsort(-influence)[:5]
        assert not ranked[best].all()  # the query's own text would have been among the best hits


def test_a_part_of_the_parts(index):
    few = index.fidelity(QUERIES, parts=40, seed=1)
    assert few.parts == 40 and few.scores.shape == (2, 40)
    again = index.fidelity(QUERIES, parts=40, seed=1)
    assert np.array_equal(few.influence, again.influence)
    assert "recall@100" not in few.measures and "recall@10" in few.measures


def test_more_bits_and_dimensions_are_more_faithful(tmp_path, corpus_file, make_config):
    """Spearman rises from 64 one-bit coordinates to 4,096 of 16 bits, which lose next to nothing but the damping."""
    figures = []
    for number, changes in enumerate(
        [{"dimension": 64}, {"dimension": 4096, "bits": 16, "rank_fraction": 1.0, "index_damping": 0.1}]
    ):
        folder = tmp_path / str(number)
        GradientIndex.build([str(corpus_file)], folder, make_config(**changes))
        figures.append(GradientIndex.open(folder, device="cpu").fidelity(QUERIES).measures)
    assert figures[0]["spearman"].mean < figures[1]["spearman"].mean
    assert figures[1]["pearson"].mean > 0.95  # measured .978: 2,048 buckets for 3,000 coordinates a block


def test_a_build_records_its_fidelity(index, built):
    recorded = json.loads((built / "manifests/00000001.json").read_text())["fidelity"]
    assert recorded == index.info()["fidelity"]
    assert recorded["queries"] == 8 and recorded["parts"] == index.info()["parts"]
    # The build's own draw: the same seed and counts give the same figures.
    assert index.fidelity(sample=8, parts=256, seed=0).record() == recorded


def test_a_build_can_leave_it_out(tmp_path, corpus_file, make_config):
    from gindex.config import FidelityConfig

    config = make_config(fidelity=FidelityConfig(queries=0))
    built = GradientIndex.build([str(corpus_file)], tmp_path / "index", config)
    assert built.info()["fidelity"] is None


def test_an_index_too_small_to_rank_is_built_without(tmp_path, make_config):
    corpus = tmp_path / "few.jsonl"
    corpus.write_text("".join(json.dumps({"text": f"the stack the heap {n}"}) + "\n" for n in range(5)))
    index = GradientIndex.build([str(corpus)], tmp_path / "index", make_config())
    assert index.info()["fidelity"] is None
    with pytest.raises(ConfigError, match="at least 20 parts of other documents to rank, found 5"):
        index.fidelity(QUERIES)


@pytest.mark.parametrize("changes", [{"sample": 0}, {"parts": 0}, {"parts": 10}])
def test_numbers_out_of_range(index, changes):
    with pytest.raises(ConfigError, match="at least"):
        index.fidelity(QUERIES, **changes)


def test_a_bad_query_is_named(index):
    with pytest.raises(QueryError, match="query q7"):
        index.fidelity([Query(prompt="a lock", completion="", id="q7")])


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_command_prints_measures_and_draws_them(run, built, tmp_path, suffix):
    picture = tmp_path / f"plot{suffix}"
    result = run("evaluate", "fidelity", built, "--sample", 4, "--device", "cpu", "--plot", picture)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("4 queries, ") and "Pearson correlation" in result.stdout
    assert picture.stat().st_size > 5000


def test_the_command_as_json(run, built, tmp_path):
    queries = tmp_path / "queries.jsonl"
    queries.write_text("".join(json.dumps({"prompt": q.prompt, "completion": q.completion}) + "\n" for q in QUERIES))
    page = tmp_path / "fidelity.html"
    common = [built, "--queries", queries, "--parts", 60, "--device", "cpu"]
    result = run("evaluate", "fidelity", *common, "--json", "--out", page)
    record = json.loads(result.stdout)
    assert read_report(page, "fidelity")[0]["numbers"] == record
    assert record["queries"] == 2 and record["parts"] == 60
    for interval in record["measures"].values():
        assert interval["low"] <= interval["mean"] <= interval["high"]


@pytest.mark.parametrize("plot", ["plot.txt", "missing/plot.png"])
def test_a_picture_that_cannot_be_written_is_refused_before_the_work(run, built, tmp_path, plot):
    result = run("evaluate", "fidelity", built, "--plot", tmp_path / plot)
    assert result.exit_code == 2 and result.stderr.startswith("gindex: --plot: expected")


def test_without_matplotlib_the_error_names_the_extra(built, tmp_path):
    """In a process of its own, where importing matplotlib fails."""
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from gindex_cli.main import main\n"
        f"main(['evaluate', 'fidelity', {str(built)!r}, '--plot', {str(tmp_path / 'plot.png')!r}])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 3 and "[plots]" in result.stderr and "Traceback" not in result.stderr
