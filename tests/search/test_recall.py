"""What recall is measured with: queries and scores of the parts that a search may return, and of no others."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gindex.search.recall import _usable_parts
from gindex.search.scan import scan


@given(st.sets(st.integers(0, 49)))
def test_usable_parts_are_those_that_are_not_excluded(some):
    excluded = np.array(sorted(some), np.int64)
    usable = np.setdiff1d(np.arange(50), excluded)
    assert _usable_parts(np.arange(len(usable)), excluded).tolist() == usable.tolist()


def test_a_scan_leaves_excluded_parts_out(reader, queries):
    excluded = np.random.default_rng(0).random(reader.spec.parts) < 0.4
    excluded[:300] = True  # more than is scored at once
    got = scan(reader, queries, 9, excluded=excluded)
    expected = scan(reader, queries, 9, parts=np.flatnonzero(~excluded))
    # The same products in blocks of other sizes: sums of 768 float32.
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-5, atol=1e-5 * np.abs(expected[1]).max())
