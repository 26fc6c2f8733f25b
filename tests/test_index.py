"""`GradientIndex` as its users see it, against influence computed with nothing but autograd."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from exact_reference import Reference

import gindex
from gindex import BuildConfig, GindexError, GradientIndex, Hit, Query, SearchResult
from gindex.corpus.tokens import tokenize
from gindex.documents.table import DocumentTable
from gindex.errors import ConfigError, CorruptStoreError, ModelError, NotAnIndexError, QueryError
from gindex.search.result import Timing
from gindex.store.files import read_json, write_json
from tests.support.objectives import ids_of

PROMPT, COMPLETION = "the compiler race", " bug the stack"


@pytest.fixture(scope="module")
def documents(built) -> tuple[list[tuple[str, int]], list[list[int]]]:
    """Document id and part, and the tokens, of every part."""
    with DocumentTable.open(built / "volumes/00000/documents.sqlite") as table:
        ordinals = range(table.counts().parts)
        names = [(part.document_id, part.part) for part in table.parts(ordinals)]
        return names, [ids_of(part).tolist() for part in table.objectives(ordinals)]


@pytest.fixture(scope="module")
def reference(built) -> Reference:
    return Reference(built)


@pytest.fixture(scope="module")
def expected(reference, documents) -> dict[str, np.ndarray]:
    """Influence of every part on the query, with the completion alone and with everything counted."""
    prompt, completion = (reference.tokenizer(text).input_ids for text in (PROMPT, COMPLETION))
    return {
        "completion": reference.influence(prompt + completion, len(prompt), documents[1]),
        "everything": reference.influence(prompt + completion, 1, documents[1]),
    }


ROUNDING = 5e-6
"""Float32 against float64, relative to the largest influence: a few thousand float32 terms of either sign (6e-8 each)
and the preconditioned gradient's rounding; measured 3e-7, and other processors sum in other orders."""


@pytest.mark.parametrize("negative", [False, True])
def test_exact_search_of_all_candidates_is_brute_force(index, built, documents, expected, negative):
    result = index.search(PROMPT, COMPLETION, k=20, negative=negative, exact=True, candidates=10_000)
    scores = expected["completion"]
    tolerance = ROUNDING * np.abs(scores).max()
    order = np.argsort(scores if negative else -scores, kind="stable")[:20]
    where = [documents[0].index((hit.document_id, hit.part)) for hit in result.hits]
    found = [hit.influence for hit in result.hits]
    np.testing.assert_allclose(found, scores[where], rtol=0, atol=tolerance)
    np.testing.assert_allclose(found, scores[order], rtol=0, atol=tolerance)
    assert found == sorted(found, reverse=not negative)
    assert [hit.rank for hit in result.hits] == list(range(1, 21))


def test_only_the_tokens_of_the_completion_count(index, documents, expected):
    """Every part's influence is that of the completion's loss; with everything counted it is another one."""
    for prompt, completion, name in [(PROMPT, COMPLETION, "completion"), (PROMPT + COMPLETION, None, "everything")]:
        scores, parts = expected[name], len(documents[0])
        hits = index.search(prompt, completion, k=parts, exact=True, candidates=parts).hits
        got = np.full(parts, np.nan)
        for hit in hits:
            got[documents[0].index((hit.document_id, hit.part))] = hit.influence
        np.testing.assert_allclose(got, scores, rtol=0, atol=ROUNDING * np.abs(scores).max())
    # The tokenizer cuts the two halves as it cuts the whole, so the two queries differ in nothing but what counts.
    assert np.corrcoef(expected["completion"], expected["everything"])[0, 1] < 0.99


def test_scores_follow_influence(index, documents, expected):
    """The sign, and that the projected search finds what the exact one does; 512 one-bit coordinates are noisy."""
    hits = index.search(PROMPT, COMPLETION, k=len(documents[0])).hits
    where = [documents[0].index((hit.document_id, hit.part)) for hit in hits]
    scores = [hit.score for hit in hits]
    # Measured .90, and -.90 with the sign reversed. Damping differs too: 10 for vectors, .1 for exact influence.
    assert np.corrcoef(scores, expected["completion"][where])[0, 1] > 0.7


def test_negative_is_the_other_end_of_the_same_order(index, documents):
    parts = len(documents[0])
    best, worst = (index.search(PROMPT, COMPLETION, k=parts, negative=negative).hits for negative in (False, True))
    scores = [hit.score for hit in best]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0 > scores[-1]
    # The same scores, up to the order in which FAISS adds 512 float32 products.
    np.testing.assert_allclose([hit.score for hit in worst], scores[::-1], rtol=1e-4, atol=1e-4)
    assert all(hit.influence is None for hit in best)


def test_exact_re_ranks_only_the_candidates(index):
    plain = index.search(PROMPT, COMPLETION, k=7).hits
    exact = index.search(PROMPT, COMPLETION, k=3, exact=True, candidates=7).hits
    names = {(hit.document_id, hit.part): hit.score for hit in plain}
    assert len(exact) == 3 and all(names[hit.document_id, hit.part] == hit.score for hit in exact)
    assert len(index.search(PROMPT, COMPLETION, k=9, exact=True, candidates=2).hits) == 9


# The interface


def test_public_names():
    assert set(gindex.__all__) == {
        "BuildConfig", "CorpusConfig", "CurvatureConfig", "FailedQuery", "GindexError", "GradientIndex",
        "Hit", "ModelCheck", "ModelConfig", "Query", "SearchResult", "VectorConfig", "check_model",
    }  # fmt: skip
    assert all(getattr(gindex, name).__name__ == name for name in gindex.__all__)
    assert (Path(gindex.__file__).parent / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gindex.nothing


def test_results_are_typed_and_frozen(index, corpus_file):
    result = index.search(PROMPT, completion=COMPLETION, k=3)
    assert isinstance(result, SearchResult) and isinstance(result.timing_ms, Timing)
    assert result.query == Query(prompt=PROMPT, completion=COMPLETION) and result.tokens > 4
    assert isinstance(result.hits, tuple) and len(result.hits) == 3
    records = {record["id"]: record for record in map(json.loads, corpus_file.read_text().splitlines())}
    for hit in result.hits:
        assert isinstance(hit, Hit)
        record = records[hit.document_id]
        assert hit.text in record["text"] and hit.metadata == {"number": record["number"]}
        with pytest.raises(AttributeError):
            hit.score = 0.0
    timing = result.timing_ms
    laps = timing.load + timing.gradient + timing.search + timing.rerank
    # The same clock: the total adds only the time to look up the hits.
    assert 0 <= laps <= timing.total and min(timing.load, timing.gradient, timing.search, timing.rerank) >= 0


def test_build_opens_what_it_built(tmp_path, corpus_file, make_config):
    config: BuildConfig = make_config(dimension=64, fit_documents=10)
    index = GradientIndex.build([str(corpus_file)], str(tmp_path / "index"), config)
    assert len(index.search("the stack", k=3).hits) == 3


def test_more_hits_than_parts(index, documents):
    assert len(index.search(PROMPT, k=10_000).hits) == len(documents[0])


@pytest.mark.parametrize("block_bytes", [1, 1 << 30])  # a query at a time, or all of them
def test_many_queries_are_answered_as_one_by_one(index, monkeypatch, block_bytes):
    monkeypatch.setattr("gindex.exact.rerank.BLOCK_BYTES", block_bytes)
    queries = [
        Query(prompt="the stack", id="one"),
        Query(prompt="a race", completion=" lock the cache page disk"),
        Query(prompt="the stack", id="two"),
    ]
    results = index.search_many(queries, k=5, exact=True, candidates=20)
    assert [result.query for result in results] == queries
    for query, result in zip(queries, results, strict=True):
        alone = index.search(query.prompt, query.completion, k=5, exact=True, candidates=20)
        assert result.tokens == alone.tokens
        # Padding beside another query changes the order of float32 sums, no more.
        for name in ("score", "influence"):
            got, expected = ([getattr(hit, name) for hit in r.hits] for r in (result, alone))
            np.testing.assert_allclose(got, expected, rtol=1e-4)
    assert index.search_many([]) == []


@pytest.mark.parametrize("changes", [{"k": 0}, {"candidates": 0}, {"k": -1}])
def test_numbers_out_of_range(index, changes):
    with pytest.raises(ConfigError, match="at least 1"):
        index.search(PROMPT, **changes)


@pytest.mark.parametrize(
    ("prompt", "completion", "match"),
    [
        ("the stack", "", "expected a completion with at least one token"),
        ("", None, "expected a token to predict"),
        ("a", None, "expected a token to predict"),
        ("the stack " * 100, None, "expected at most 64 tokens"),
        ("the stack", " heap" * 100, "expected at most 64 tokens"),
        ("the \ud800", None, "half a surrogate pair"),
        ("the", "\udfff", "half a surrogate pair"),
    ],
)
def test_queries_without_a_gradient(index, prompt, completion, match):
    with pytest.raises(QueryError, match=match):
        index.search(prompt, completion, long_queries="refuse")
    queries = [Query(prompt=PROMPT, id="first"), Query(prompt=prompt, completion=completion, id="second")]
    with pytest.raises(QueryError, match=f"query second: .*{match}"):
        index.search_many(queries, long_queries="refuse")
    answer, failed = index.search_each(queries, k=3, long_queries="refuse")
    assert answer.hits == index.search(PROMPT, k=3).hits and failed.query == queries[1]
    with pytest.raises(QueryError, match=f"query second: .*{match}"):
        raise failed.error


def test_a_prompt_that_is_too_long_is_cut_and_told(index):
    """The answer is that of the end of the prompt, which takes the model's 64 tokens with the completion."""
    prompt, options = "the stack " * 100 + PROMPT, {"k": 3, "exact": True}
    cut = index.search(prompt, COMPLETION, **options)
    ((_, offsets),) = tokenize(index.model.tracked.loaded.tokenizer, [prompt + COMPLETION])
    kept = index.search(prompt[offsets[-64][0] :], COMPLETION, **options)
    assert cut.hits == kept.hits and cut.tokens == kept.tokens == 64 and not kept.notes
    left_out = len(offsets) - 64
    assert cut.notes[0].startswith(f"of {len(offsets)} tokens the first {left_out} are left out, to keep 64 tokens")
    assert index.explain(cut.hits[0].document_id, prompt, COMPLETION).notes == cut.notes


def test_longest_query_that_the_model_takes(index):
    assert index.search("a " * 32, k=1).tokens == 64


def test_completion_without_a_prompt(index):
    """Its first token has nothing before it, so it cannot count: as the prompt alone would."""
    with_prompt, without = index.search("the stack heap", k=5), index.search("", "the stack heap", k=5)
    assert [hit.score for hit in with_prompt.hits] == [hit.score for hit in without.hits]


# Other places, damage


@pytest.fixture
def copy(built, tmp_path) -> Path:
    return shutil.copytree(built, tmp_path / "index")


def test_another_projection_is_refused(copy, index):
    content = read_json(copy / "manifests/00000001.json")
    content["projection"]["seed"] += 1
    write_json(copy / "manifests/00000001.json", content)
    with pytest.raises(CorruptStoreError, match=r"00000001.json: expected projection \w{12}, found \w{12}"):
        GradientIndex.open(copy).search(PROMPT)


def test_faiss_file_is_checked_before_faiss_sees_it(copy, monkeypatch):
    import faiss

    path = copy / "search/00000001.faiss"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(faiss, "read_index", lambda *_: pytest.fail("FAISS read a damaged file"))
    with pytest.raises(CorruptStoreError, match=f"{path}: expected CRC-32C"):
        GradientIndex.open(copy).search(PROMPT)


@pytest.mark.parametrize(
    "name",
    [
        "volumes/00000/documents.sqlite",
        "search/00000001.faiss",
        "volumes/00000/vectors/codes/c/1/0",
        "volumes/00000/segments/00000.json",
    ],
)
def test_missing_and_truncated_files_are_found_on_opening(copy, name):
    (copy / name).write_bytes((copy / name).read_bytes()[:-1])
    for found in ("found [0-9,]+;", "found no file"):
        with pytest.raises(CorruptStoreError, match=f"{name}: expected [0-9,]+ bytes, {found}"):
            GradientIndex.open(copy)
        (copy / name).unlink(missing_ok=True)


def test_damaged_vectors_are_not_scored(copy):
    path = copy / "volumes/00000/vectors/codes/c/0/0"
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    index = GradientIndex.open(copy)
    with pytest.raises(CorruptStoreError, match=str(path)):
        index.snapshot.vectors.decoded(np.arange(3))


def test_no_index(tmp_path):
    with pytest.raises(NotAnIndexError, match="make one with gindex build"):
        GradientIndex.open(tmp_path)
    assert issubclass(NotAnIndexError, GindexError)


def test_device_that_is_not_there(built):
    with pytest.raises(ModelError, match="device: expected one that is usable here, found 'nonsense'"):
        GradientIndex.open(built, device="nonsense").search(PROMPT)


def flip(path: Path, position: int) -> None:
    """Turn a bit of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_opening_compares_neither_the_faiss_index_nor_the_documents(copy):
    """Both are compared no later than they are needed, so that a large index opens at once."""
    flip(copy / "search/00000001.faiss", -1)
    documents = copy / "volumes/00000/documents.sqlite"
    flip(documents, documents.read_bytes().index(b"d147the stack the heap") + 6)
    index = GradientIndex.open(copy, device="cpu")
    index.warm(model=False)
    with pytest.raises(CorruptStoreError, match=r"00000001.faiss: expected CRC-32C"):
        index.search_vectors(index.snapshot.vectors.decoded(np.array([3])))
    with pytest.raises(CorruptStoreError, match=r"documents.sqlite: expected CRC-32C"):
        index.document("d3")
    with pytest.raises(CorruptStoreError, match="CRC-32C"):
        GradientIndex.open(copy, device="cpu", resident=True).warm(model=False)


def test_documents_that_are_shown_are_compared_and_no_others(copy, index):
    documents = copy / "volumes/00000/documents.sqlite"
    content = documents.read_bytes()  # and what SQLite left of pages that it split
    documents.write_bytes(content.replace(b"d147the stack the heap", b"d147the stock the heap"))
    opened, wrong = GradientIndex.open(copy, device="cpu"), []
    for part in range(index.manifest.stored_parts):
        (expected,) = index.snapshot.documents.parts([part])
        try:
            assert opened.snapshot.documents.parts([part]) == [expected]
        except CorruptStoreError as error:
            assert re.search(r"documents.sqlite: expected document 147 as it was written", str(error)), error
            wrong.append(expected.document_id)
    assert wrong == ["d147"] * len(index.objectives("d147"))


def test_index_without_checksums_of_rows_compares_its_documents_when_they_are_opened(copy):
    path = copy / "manifests/00000001.json"
    content = read_json(path)
    content["files"] = [file for file in content["files"] if not file["path"].endswith("documents.crc32c")]
    write_json(path, content)
    (copy / "volumes/00000/documents.crc32c").unlink()
    assert GradientIndex.open(copy, device="cpu").search(PROMPT, COMPLETION, k=3).hits
    flip(copy / "volumes/00000/documents.sqlite", -1)
    with pytest.raises(CorruptStoreError, match=r"documents.sqlite: expected CRC-32C"):
        GradientIndex.open(copy, device="cpu").warm(model=False)
