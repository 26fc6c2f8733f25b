"""Every option of a search against brute force in numpy over the stored vectors, on a real (small) index."""

import json
from collections import defaultdict
from dataclasses import fields

import numpy as np
import pytest
import torch

from gindex import GradientIndex
from gindex.ann.spec import KINDS
from gindex.documents.table import DocumentTable
from gindex.errors import ConfigError, FilterError, MismatchError, NonFiniteError, QueryError
from gindex.options import option_of
from gindex.queries.query import Query
from gindex.search_options import SearchOptions
from tests.support.objectives import pad_tokens

ROUNDING = 1e-4
"""Relative: sums of 512 float32 products in another order; measured 2e-6."""


class Brute:
    """Scores of all parts by a matrix product in float64, and what is known of the parts."""

    def __init__(self, index: GradientIndex, built) -> None:
        reader = index.snapshot.vectors
        self.X = reader.decoded(np.arange(reader.spec.parts)).double().numpy()
        self.self_influence = reader.self_influence(np.arange(reader.spec.parts)).astype(np.float64)
        self.q = np.random.default_rng(3).standard_normal((4, reader.spec.dimension)) + 20 * self.X[[3, 9, 20, 60]] / (
            np.linalg.norm(self.X[[3, 9, 20, 60]], axis=1, keepdims=True)
        )
        with DocumentTable.open(built / "volumes/00000/documents.sqlite") as table:
            parts = table.parts(range(reader.spec.parts))
            self.lengths = table.part_lengths()
        self.names = [(part.document_id, part.part) for part in parts]
        self.numbers = np.array([part.metadata["number"] for part in parts])
        self.scores = self.q @ self.X.T

    def best(self, scores, k, allowed=None):
        order = [n for n in np.argsort(-scores, kind="stable") if allowed is None or allowed[n]]
        return [self.names[n] for n in order[:k]]


@pytest.fixture(scope="module")
def brute(index, built) -> Brute:
    return Brute(index, built)


@pytest.fixture(scope="module", params=["flat", "rabitq", "ivf"])
def typed(request, built, tmp_path_factory):
    """The same index with other FAISS types over it, small enough to need no shortlist beyond the default."""
    import shutil

    from gindex.change.reindex import reindex
    from gindex.store.layout import Layout

    copy = shutil.copytree(built, tmp_path_factory.mktemp(request.param) / "index")
    search = reindex(Layout(copy), request.param).search
    assert search.main.kind == request.param and 0.9 <= search.recall.at_10 <= 1
    return GradientIndex.open(copy, device="cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_recall_of_every_type_on_real_vectors(index, built, tmp_path, kind):
    """Gradients of queries on the stored gradients of documents, against the full scan; a GPU's type on the CPU too."""
    import shutil

    from gindex.change.reindex import reindex
    from gindex.store.layout import Layout

    copy = shutil.copytree(built, tmp_path / "index")
    reindex(Layout(copy), kind)
    opened = GradientIndex.open(copy, device="cpu")
    texts = [index.snapshot.documents.parts([part])[0].text for part in range(0, 120, 4)]
    encoded = index.encode([Query(prompt=f"the {text} bug") for text in texts])
    best = opened.search_encoded(encoded, k=10, scan=True)
    found = opened.search_encoded(encoded, k=10, shortlist=60)
    assert opened.manifest.stored_parts > 180  # or all would be candidates
    shares = [len(set(names(a)) & set(names(b))) / 10 for a, b in zip(found, best, strict=True)]
    assert np.mean(shares) >= (0.8 if kind == "ivf" else 0.98)  # ivf searches a quarter of its lists


def names(result):
    return [(hit.document_id, hit.part) for hit in result.hits]


def vectors(brute):
    return torch.from_numpy(brute.q).float()


@pytest.mark.parametrize("scan", [False, True])
def test_best_of_all(typed, brute, scan):
    for row, result in zip(brute.scores, typed.search_vectors(vectors(brute), k=12, scan=scan), strict=True):
        assert names(result) == brute.best(row, 12)
        where = [brute.names.index(name) for name in names(result)]
        np.testing.assert_allclose([hit.score for hit in result.hits], row[where], rtol=ROUNDING)


def test_both_ends_from_one_pass(typed, brute):
    for row, result in zip(brute.scores, typed.search_vectors(vectors(brute), k=5, both=True), strict=True):
        got = [row[brute.names.index((hit.document_id, hit.part))] for hit in result.negative_hits]
        if typed.manifest.search.main.kind != "ivf":  # which searches a quarter of its lists
            assert names(result) == brute.best(row, 5)
            np.testing.assert_allclose(got, np.sort(row)[:5], rtol=ROUNDING)
        np.testing.assert_allclose([hit.score for hit in result.negative_hits], got, rtol=ROUNDING)


@pytest.mark.parametrize("low", [0, 75, 140, 149])  # from every document to one
def test_filters_of_any_selectivity(typed, brute, low):
    allowed = brute.numbers >= low
    found = typed.search_vectors(vectors(brute), k=12, where=f"number >= {low}", shortlist=40)
    shares = []
    for row, result in zip(brute.scores, found, strict=True):
        best = np.sort(row[allowed])[::-1][:12]
        assert len(result.hits) == len(best) and all(hit.metadata["number"] >= low for hit in result.hits)
        # By score, not by name: two documents of the same text tie.
        got = np.array([row[brute.names.index(name)] for name in names(result)])
        shares.append(np.mean(got >= best[-1] - ROUNDING * np.abs(best).max()))
    # Of at most 40 parts, all are scored. Of more, the 512 signs of a lossy type miss a twelfth of the best at times.
    exact = allowed.sum() < 40 or typed.manifest.search.main.kind == "flat"
    assert np.mean(shares) >= (1 if exact else 0.9)


def test_filter_that_nothing_passes(typed, brute):
    assert all(result.hits == () for result in typed.search_vectors(vectors(brute), where="number < 0"))


def test_filter_of_an_unknown_field(index, brute):
    with pytest.raises(FilterError, match=r"position 17: expected a field of the documents \(number\), found colour"):
        index.search_vectors(vectors(brute), where="number = 3 and (colour = 'red')")


@pytest.mark.parametrize("normalise", ["unit", "relatif", "length"])
@pytest.mark.parametrize("where", [None, "number < 100"])
def test_normalisations(typed, brute, normalise, where):
    sizes = {
        "unit": np.linalg.norm(brute.X, axis=1),
        "relatif": np.sqrt(brute.self_influence),
        "length": np.maximum(brute.lengths - 1, 1).astype(float),
    }[normalise]
    weights = np.divide(1, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    found = typed.search_vectors(vectors(brute), k=8, normalise=normalise, where=where, layers=True)
    shares = []
    for q, row, result in zip(brute.q, brute.scores, found, strict=True):
        scale = 1 / np.linalg.norm(q) if normalise == "unit" else 1
        expected = row * weights * scale
        best = brute.best(expected, 8, None if where is None else brute.numbers < 100)
        shares.append(np.mean([name in names(result) for name in best]))
        for hit in result.hits:
            at = brute.names.index((hit.document_id, hit.part))
            assert hit.score == pytest.approx(expected[at], rel=ROUNDING)
            assert sum(hit.layers.values()) == pytest.approx(hit.score, rel=ROUNDING)
            assert normalise != "unit" or abs(hit.score) <= 1 + ROUNDING
    assert np.mean(shares) == 1


def test_layers_are_the_slices(index, brute):
    (result, *_) = index.search_vectors(vectors(brute), k=3, negative=True, layers=True)
    for hit in result.hits:
        x = brute.X[brute.names.index((hit.document_id, hit.part))]
        expected = {g: brute.q[0][a:b] @ x[a:b] for g, (a, b) in index.manifest.projection.slices.items()}
        # Relative to the sizes of the slices, since slices of either sign cancel.
        assert hit.layers == pytest.approx(expected, abs=ROUNDING * max(map(abs, expected.values())))


@pytest.mark.parametrize("how", ["max", "sum"])
@pytest.mark.parametrize("end", ["positive", "negative"])
def test_documents_put_their_parts_together(typed, brute, how, end):
    sign = -1 if end == "negative" else 1
    found = typed.search_vectors(
        vectors(brute), k=150, hits="document", document_score=how, negative=end == "negative", layers=True
    )
    for q, row, result in zip(brute.q, brute.scores, found, strict=True):
        scores = defaultdict(list)
        for (document, _), score in zip(brute.names, row, strict=True):
            scores[document].append(sign * score)
        expected = {document: sign * (max(of) if how == "max" else sum(of)) for document, of in scores.items()}
        assert len(result.hits) == 150
        # Queries are rounded to 16 bits a coordinate, and sums cancel; measured 6e-7 of the product of the lengths.
        tolerance = 3e-6 * np.linalg.norm(q) * np.linalg.norm(brute.X, axis=1).max()
        for hit in result.hits:
            assert hit.score == pytest.approx(expected[hit.document_id], rel=1e-3, abs=tolerance)
            assert sum(hit.layers.values()) == pytest.approx(hit.score, rel=1e-3, abs=tolerance)
        got = [sign * hit.score for hit in result.hits]
        assert got == sorted(got, reverse=True)


def test_exact_group_sums_exact_influence(index):
    plain = index.search("the stack", "heap race", k=500, exact=True, candidates=500)
    sums = defaultdict(float)
    for hit in plain.hits:
        sums[hit.document_id] += hit.influence
    grouped = index.search("the stack", "heap race", k=20, exact=True, hits="document", document_score="sum")
    for hit in grouped.hits:
        # Batches of another make-up round otherwise; terms of either sign cancel.
        assert hit.influence == pytest.approx(sums[hit.document_id], rel=1e-3, abs=1e-3 * max(map(abs, sums.values())))


def test_duplicates_fold_into_the_better_hit(index, brute):
    """Documents d147 and d148 hold the same text, so their vectors are the same."""
    q = torch.from_numpy(brute.X[brute.names.index(("d147", 0))][None]).float()
    plain = index.search_vectors(q, k=500, normalise="unit")[0]
    assert {hit.document_id for hit in plain.hits[:2]} == {"d147", "d148"} and plain.hits[0].duplicates is None
    folded = index.search_vectors(q, k=5, dedupe=0.99, normalise="unit")[0]
    assert folded.hits[0].document_id == "d147" and folded.hits[0].duplicates == ("d148",)
    assert len(folded.hits) == 5 and all(hit.duplicates == () for hit in folded.hits[1:])
    # Nothing is lost: with no limit on k, hits and what was folded into them are all parts.
    everything = index.search_vectors(q, k=500, dedupe=0.5, normalise="unit")[0]
    assert sum(1 + len(hit.duplicates) for hit in everything.hits) == len(plain.hits) > len(everything.hits)


def test_words_filter_and_rank(index, built, brute):
    words = "parser parser token"
    hits = index.search("the stack", k=500, words="filter", words_text=words, words_documents=7).hits
    assert len({hit.document_id for hit in hits}) == 7
    assert all("parser" in hit.text or "token" in hit.text or hit.part for hit in hits)
    assert all(hit.lexical > 0 for hit in hits)
    ranked = index.search("the stack", k=10, words="rank", words_text=words).hits
    assert len(ranked) == 10 and any(hit.lexical for hit in ranked)
    scores = index.search("the stack", k=500).hits
    ranks = {(hit.document_id, hit.part): hit.rank for hit in scores}
    lexical = sorted(
        {(-hit.lexical, hit.document_id) for hit in index.search("a a", k=500, words="filter", words_text=words).hits}
    )
    assert ranks[ranked[0].document_id, ranked[0].part] < 150 and len(lexical) > 20
    within = index.search("the stack", k=500, words="filter", words_text=words, where="number < 50").hits
    assert within and all(hit.metadata["number"] < 50 for hit in within)
    assert index.search("the stack", words="filter", words_text="zzzz").hits == ()
    with pytest.raises(QueryError, match="words_text: expected text with at least one word"):
        index.search("the stack", words="filter", words_text="!?")


@pytest.mark.parametrize("where", [None, "number < 100"])
def test_exact_takes_candidates_by_score_and_words(index, where):
    """Reference: both whole rankings, fused by hand; the re-rank orders what they put first."""
    prompt, completion = "the stack of the parser", " heap race token"
    scores = {(h.document_id, h.part): h.score for h in index.search(prompt, completion, k=500, where=where).hits}
    words = index.search(
        prompt, completion, k=500, words="filter", words_text=prompt + completion, words_documents=500, where=where
    ).hits
    lexical = sorted({(-hit.lexical, int(hit.document_id[1:])) for hit in words})
    rank_of = {f"d{number}": rank for rank, (_, number) in enumerate(lexical, start=1)}
    merit = {
        part: 1 / (60 + rank) + (1 / (60 + rank_of[part[0]]) if part[0] in rank_of else 0)
        for rank, part in enumerate(sorted(scores, key=lambda part: -scores[part]), start=1)
    }
    expected = set(sorted(merit, key=lambda part: -merit[part])[:12])
    found = index.search(prompt, completion, k=12, exact=True, candidates=12, where=where)
    assert {(hit.document_id, hit.part) for hit in found.hits} == expected
    by_score = index.search(prompt, completion, k=12, exact=True, candidates=12, words="off", where=where)
    best = sorted(scores, key=lambda part: -scores[part])[:12]
    assert {(hit.document_id, hit.part) for hit in by_score.hits} == set(best) != expected
    influence = [hit.influence for hit in found.hits]
    assert influence == sorted(influence, reverse=True) and all(hit.lexical is None for hit in found.hits)


def test_words_choose_no_candidates_of_the_negative_end(index):
    both = index.search("the stack", k=5, exact=True, candidates=5, both=True)
    by_score = index.search("the stack", k=5, exact=True, candidates=5, negative=True, words="off")
    assert {hit.document_id for hit in both.negative_hits} == {hit.document_id for hit in by_score.hits}
    with pytest.raises(ConfigError, match="words: expected one of candidates, filter, rank, off"):
        index.search("the stack", exact=True, words="both")


def test_fused_ranks_are_reciprocal_sums():
    from gindex.search.candidates import Candidate, fused

    candidates = [Candidate(ordinal=n, score=1.0, merit=-n) for n in range(4)]
    order = fused(candidates, {n: 10 + n for n in range(4)}, [(13, 5.0), (11, 4.0)])
    # 1: 1/62 + 1/62; 3: 1/64 + 1/61; 0: 1/61; 2: 1/63.
    assert [c.ordinal for c in order] == [1, 3, 0, 2]
    assert [c.lexical for c in order] == [4.0, 5.0, None, None]


def test_a_batch_is_its_queries_one_by_one(typed, brute):
    together = typed.search_vectors(vectors(brute), k=6)
    for n, result in enumerate(together):
        assert names(typed.search_vectors(vectors(brute)[n : n + 1], k=6)[0]) == names(result)


def test_gradients_take_the_path_of_the_queries(index):
    """The gradient of a query by autograd, given as it is, finds what the query finds."""
    from gindex.vectors.influence import Observer

    prompt = "the compiler race bug"
    engine, found = index.model.tracked, {}

    class Keep(Observer):
        def activations(self, layer, a_NTI):
            from gindex.model.capture import append_one

            return append_one(a_NTI, layer)

        def gradients(self, layer, kept, g_NTO):
            found[layer.name] = g_NTO.mT @ kept

    from gindex.model.capture import observe

    tokens = engine.loaded.tokenizer(prompt).input_ids
    batch = pad_tokens([tokens], [0], [1])
    observe(engine.table.layers, Keep(), 1, lambda: engine.task.losses(batch))
    expected = index.search(prompt, k=5)
    (got,) = index.search_gradients(found, k=5)
    assert names(got) == names(expected)
    np.testing.assert_allclose([h.score for h in got.hits], [h.score for h in expected.hits], rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"k": 0}, ConfigError, "at least 1"),
        ({"both": True, "negative": True}, ConfigError, "negative and both"),
        ({"dedupe": 0.0}, ConfigError, r"dedupe: expected a number in \(0, 1\]"),
        ({"normalise": "l2"}, ConfigError, "normalise: expected one of none, unit, relatif, length"),
        ({"shortlist": -1}, ConfigError, "shortlist: expected at least 1"),
        ({"exact": True}, ConfigError, "exact: expected a query of text"),
        ({"words": "rank"}, ConfigError, "words: expected text"),
        ({"projection": "0" * 64}, MismatchError, "expected projection"),
    ],
)
def test_bad_options(index, brute, change, error, match):
    with pytest.raises(error, match=match):
        index.search_vectors(vectors(brute), **change)


def test_bad_vectors(index, brute):
    q = vectors(brute)
    for bad in (q[:, :-1], q[0], q[None]):
        with pytest.raises(MismatchError, match="expected dimension 512, found shape"):
            index.search_vectors(bad)
    for value in (float("nan"), float("inf")):
        bad = q.clone()
        bad[1, 3] = value
        with pytest.raises(NonFiniteError, match="query vector"):
            index.search_vectors(bad)
    assert index.search_vectors(q[:0]) == []


def test_k_beyond_the_index(typed, brute):
    (result, *_) = typed.search_vectors(vectors(brute), k=10_000)
    assert len(result.hits) == len(brute.names)


def test_options_are_documented_once():
    """Every option has help and the record of a plain hit has only the fields that it always had."""
    assert all(option_of(field).help for field in fields(SearchOptions))


def test_record_of_a_plain_search_is_the_contract(index):
    from gindex.search.result import result_record

    record = json.loads(json.dumps(result_record(index.search("the stack", k=1))))
    assert list(record["hits"][0]) == ["rank", "document_id", "part", "score", "influence", "text", "metadata"]


def test_prompts_of_very_different_lengths_in_one_batch(index):
    """Padding of the short ones changes nothing: each is answered as it is alone."""
    prompts = ["the compiler", "the compiler race bug stack " * 5, "race bug"]
    together = index.search_many([Query(prompt=prompt) for prompt in prompts], k=5)
    for prompt, found in zip(prompts, together, strict=True):
        alone = index.search(prompt, k=5)
        assert found.tokens == alone.tokens
        np.testing.assert_allclose([h.score for h in found.hits], [h.score for h in alone.hits], rtol=1e-3)
        assert [(h.document_id, h.part) for h in found.hits] == [(h.document_id, h.part) for h in alone.hits]
