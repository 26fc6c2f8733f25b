"""Queries that are sieved, together or one by one, against the scan and all of the codes; and their threads."""

import os

import faiss
import numpy as np
import pytest
import torch

from gindex import thread_pool
from gindex.ann.build import build_faiss
from gindex.ann.index import FaissIndex
from gindex.ann.index_files import IndexFiles
from gindex.ann.sieve import BATCH, LEAST_PER_CANDIDATE, PARTS_AT_ONCE, SHARE, Sieve
from gindex.search.funnel import Funnel
from gindex.search.scan import scan
from gindex.search.selection import Selection

COUNT = 40
"""Candidates wanted: few enough of 5000 parts that a sieve is worth while."""


@pytest.fixture(scope="module")
def many(make_reader):
    """Parts of three blocks, the last one partial, of one bit a coordinate."""
    return make_reader(2 * PARTS_AT_ONCE + 904, bits=1)


@pytest.fixture(params=[True, False], ids=["mapped", "read"])
def index(request, tmp_path, many, projection) -> FaissIndex:
    path = tmp_path / "search.faiss"
    spec = build_faiss(path, many, projection, kind="rabitq")
    return FaissIndex(path, spec, projection, many.spec.parts, mapped=request.param)


@pytest.fixture(params=[1, 2])
def thread_count(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def unpacked(bits: np.ndarray, parts: int) -> np.ndarray:
    return np.unpackbits(bits, bitorder="little")[:parts].astype(bool)


@pytest.fixture(params=[1, 5, 20], ids=["alone", "few", "together"])
def asked(request, queries) -> list[torch.Tensor]:
    """The queries, so many at a time."""
    return list(queries.split(request.param))


def test_sieved_queries_find_what_the_others_find(index, many, queries, asked, thread_count):
    assert index._sieve is not None and index._sieve.serves(len(asked[0]), COUNT, many.spec.parts)
    funnel = Funnel(IndexFiles([index]), many, ())
    sieved = [found for some in asked for found in funnel.search(some, 2, shortlist=COUNT)]
    index._sieve = None
    whole = funnel.search(queries, 2, shortlist=COUNT)
    best, _ = scan(many, queries, 2)
    np.testing.assert_array_equal([found.ordinals for found in whole], best)
    # The two best of 125 in a cluster stand out less than a quarter of the signs can tell: a few may not pass.
    assert np.mean([np.isin(found.ordinals, b).mean() for found, b in zip(sieved, best, strict=True)]) >= 0.9
    for found, expected in zip(sieved, whole, strict=True):
        _, here, there = np.intersect1d(found.ordinals, expected.ordinals, return_indices=True)
        # Whatever sieved them, parts are scored by the same vectors; sums of integers differ by their rounding.
        np.testing.assert_allclose(found.scores[here], expected.scores[there], rtol=1e-5)


def passed(index: FaissIndex, asked: list[torch.Tensor], parts: int, allowed: np.ndarray | None = None) -> np.ndarray:
    """Return which parts pass for each query [Q, N]."""
    bits = [row for some in asked for row in index._sieve.passed(some.numpy(), COUNT, allowed)]
    return np.stack([unpacked(row, parts) for row in bits])


def test_as_many_pass_as_were_asked_for(index, many, asked):
    expected = max(COUNT * LEAST_PER_CANDIDATE, int(SHARE * many.spec.parts))
    shares = passed(index, asked, many.spec.parts).sum(1) / expected
    # The bound is that of 1024 parts of 5000, an even sample: some 80 of them pass.
    assert (np.abs(shares - 1) < 0.4).all() and np.abs(shares.mean() - 1) < 0.1


def test_what_passes_is_the_best_by_every_fourth_word(index, many, queries, asked, thread_count):
    """By a product with the decoded signs, in float64."""
    parts = many.spec.parts
    decoded = index.open().reconstruct_n(0, parts).astype(np.float64)
    looked_at = np.flatnonzero(np.arange(768) // 32 % 4 == 0)
    scores = queries.numpy().astype(np.float64)[:, looked_at] @ decoded[:, looked_at].T
    for of_query, passes in zip(scores, passed(index, asked, parts), strict=True):
        least, most = np.sort(of_query[passes])[0], np.sort(of_query[~passes])[-1]
        # Queries are rounded to 8 bits, and to 4 where they are few: 192 errors of 1/254, or of 1/15 at most, of the
        # largest coordinate, as a share of the best score.
        assert most - least < (0.05 if len(asked) == 1 else 0.2) * of_query.max()


def test_filters_are_kept_to(index, many, queries, asked, thread_count):
    parts = np.arange(1, many.spec.parts, 2)
    allowed = np.zeros(many.spec.parts, bool)
    allowed[parts] = True
    assert not passed(index, asked, many.spec.parts, allowed)[:, ~allowed].any()
    funnel = Funnel(IndexFiles([index]), many, ())
    found = [of for some in asked for of in funnel.search(some, 2, Selection(parts=parts), shortlist=COUNT)]
    assert all((of.ordinals % 2 == 1).all() and len(of.ordinals) == 2 for of in found)
    best, _ = scan(many, queries, 2, parts=parts)
    assert np.mean([np.isin(of.ordinals, b).mean() for of, b in zip(found, best, strict=True)]) >= 0.9


@pytest.mark.parametrize(
    ("queries", "count", "total"),
    [(1, 40, 3199), (BATCH - 1, 40, 3199), (1, 2000, 10**6), (32, 2000, 10**6), (32, 40, 799)],
)
def test_where_a_sieve_is_not_worth_while(index, queries, count, total):
    """Few parts to choose from, of which fewer do for a batch; a long list of candidates."""
    assert isinstance(index._sieve, Sieve) and not index._sieve.serves(queries, count, total)


def test_only_codes_of_signs_are_sieved(tmp_path, many, projection):
    path = tmp_path / "search.faiss"
    spec = build_faiss(path, many, projection, kind="fp16")
    assert FaissIndex(path, spec, projection, many.spec.parts)._sieve is None


def test_pieces_keep_their_order_and_their_threads(thread_count):
    def act(piece: int) -> tuple[int, int, int]:
        return piece, torch.get_num_threads(), sum(thread_pool.spread(lambda n: n, range(piece)))

    made = thread_pool.spread(act, range(9))
    assert made == [(n, 1, n * (n - 1) // 2) for n in range(9)]
    assert thread_pool.spread(act, []) == [] and torch.get_num_threads() == thread_count


def test_faiss_has_one_thread_in_a_piece(thread_count):
    before = faiss.omp_get_max_threads()
    if thread_count == 2:
        assert set(thread_pool.spread(lambda _: faiss.omp_get_max_threads(), range(4))) == {1}
    assert faiss.omp_get_max_threads() == before


def test_errors_of_a_piece_arrive(thread_count):
    with pytest.raises(ZeroDivisionError):
        thread_pool.spread(lambda n: 1 // n, range(3))


def test_a_fork_has_threads_of_its_own(thread_count):
    thread_pool.spread(lambda n: n, range(2))
    child = os.fork()
    if not child:
        os._exit(0 if thread_pool.spread(lambda n: n + 1, range(2)) == [1, 2] else 1)
    assert os.waitpid(child, 0)[1] == 0
