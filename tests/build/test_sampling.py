"""What a build is fitted and calibrated on: drawn as from plain arrays of all parts, whatever the blocks."""

import json
from pathlib import Path

import numpy as np
import pytest

from gindex.build import sampling
from gindex.build.sampling import draw_fit_sample, draw_parts, flagged
from gindex.config import CorpusConfig
from gindex.corpus.encoding import DocumentEncoder
from gindex.corpus.readers import read_corpus
from gindex.documents import columns
from gindex.documents.table import DocumentTable
from gindex.documents.table_writer import fill_table
from gindex.exact.fidelity import LEAST_PARTS, is_measurable, sample_parts, sample_queries
from gindex.progress import Silent
from gindex.store.part_ranges import PartRanges


@pytest.fixture(scope="module")
def table(small_tokenizer, tmp_path_factory) -> DocumentTable:
    """Documents of one to eight parts, some of which predict nothing."""
    folder, random = Path(tmp_path_factory.mktemp("sampling")), np.random.default_rng(0)
    words = ["the", "compiler", "kernel", "heap", "lock"]
    lengths = random.integers(1, 24, 60)
    lines = [
        json.dumps({"id": f"d{n}", "text": " ".join(random.choice(words, size))}) for n, size in enumerate(lengths)
    ]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    config = CorpusConfig(max_tokens=4)
    documents = read_corpus([str(folder / "corpus.jsonl")], config, 0)
    fill_table(folder / "documents.sqlite", documents, DocumentEncoder(small_tokenizer, config), Silent())
    return DocumentTable.open(folder / "documents.sqlite")


@pytest.fixture(params=[2, 5, 10_000], autouse=True)
def block(request, monkeypatch) -> int:
    monkeypatch.setattr(sampling, "BLOCK", request.param)
    monkeypatch.setattr(columns, "BLOCK", request.param)
    return request.param


@pytest.mark.parametrize("wanted", [None, 1, 20, 59, 1000])
def test_the_fits_sample_is_a_draw_of_documents(table, wanted):
    """Reference: the whole columns."""
    documents, targets, lengths = table.part_documents(), table.part_targets(), table.part_lengths()
    usable = np.unique(documents[targets > 0])
    chosen = usable
    if wanted is not None and wanted < len(usable):
        chosen = np.random.default_rng(3).choice(usable, wanted, replace=False)
    parts = np.flatnonzero(np.isin(documents, chosen))
    found = draw_fit_sample(table, wanted, 3)
    np.testing.assert_array_equal(found.parts_P, parts)
    assert (found.documents, found.tokens) == (len(chosen), lengths[parts].sum())


def test_drawn_parts_have_something_to_predict(table):
    usable = np.flatnonzero(table.part_targets() > 0)
    assert sorted(draw_parts(table, 10**6, 0)) == usable.tolist()
    some = draw_parts(table, 10, 0)
    assert len(np.unique(some)) == 10 and np.isin(some, usable).all() and (np.diff(some) < 0).any()
    np.testing.assert_array_equal(some, usable[np.random.default_rng(0).choice(len(usable), 10, replace=False)])
    assert draw_parts(table, 10, 1).tolist() != some.tolist()


def test_flagged_positions_are_those_of_a_list():
    flags = np.random.default_rng(0).random(200) < 0.3
    positions = np.flatnonzero(flags)
    places = np.random.default_rng(1).permutation(len(positions))
    np.testing.assert_array_equal(flagged(flags, places), positions[places])
    assert flagged(flags, places[:0]).tolist() == []


def test_queries_are_of_different_documents(table):
    usable = PartRanges.between(0, table.counts().parts, [(5, 9), (20, 21)])
    drawn = sample_queries(table, 12, usable, 4)
    assert len(drawn.tokens) == 12 == len(np.unique(drawn.documents))
    assert all(query.objective.targets > 0 for query in drawn.tokens)
    everything = sample_queries(table, 10**6, usable, 4)
    targets, documents = table.part_targets(), table.part_documents()
    parts = usable.all()
    assert sorted(everything.documents) == np.unique(documents[parts[targets[parts] > 0]]).tolist()
    assert everything.documents[:12].tolist() == drawn.documents.tolist()


def test_an_index_is_measurable_where_the_longest_document_leaves_enough(table):
    documents = table.part_documents()
    for stop in range(1, len(documents) + 1):
        usable = PartRanges.between(0, stop, [(2, 4)])
        _, counts = np.unique(documents[usable.all()], return_counts=True)
        assert is_measurable(table, usable) == (len(usable) - counts.max(initial=0) >= LEAST_PARTS)


def test_ranked_parts_are_drawn_in_order():
    usable = PartRanges.between(0, 500, [(30, 60)])
    np.testing.assert_array_equal(sample_parts(usable, None, 0), usable.all())
    some = sample_parts(usable, 50, 0)
    assert len(some) == 50 and (np.diff(some) > 0).all() and np.isin(some, usable.all()).all()
