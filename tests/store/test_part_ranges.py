"""Ranges of ordinals, against plain lists of them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gindex.store.part_ranges import PartRanges


@given(st.lists(st.booleans(), max_size=60), st.data())
def test_kept_parts_are_counted_in_order(kept, data):
    """Reference: a plain list of the ordinals."""
    ordinals = [ordinal for ordinal, is_kept in enumerate(kept) if is_kept]
    ranges = []
    for ordinal in ordinals:
        if ranges and ranges[-1][1] == ordinal and data.draw(st.booleans()):
            ranges[-1] = (ranges[-1][0], ordinal + 1)
        else:
            ranges.append((ordinal, ordinal + 1))
    parts = PartRanges(ranges)
    assert len(parts) == len(ordinals)
    start = data.draw(st.integers(0, len(ordinals)))
    stop = data.draw(st.integers(start, len(ordinals)))
    assert parts.ordinals(range(start, stop)).tolist() == ordinals[start:stop]
    for ordinal in range(len(kept) + 1):
        assert parts.place(ordinal) == (ordinals.index(ordinal) if ordinal in ordinals else None)


@given(st.integers(0, 30), st.integers(0, 30), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8))
def test_what_is_between_without_ranges(start, length, without):
    """Reference: sets of ordinals."""
    without = [(min(pair), max(pair)) for pair in without]
    left = sorted(set(range(start, start + length)) - {n for pair in without for n in range(*pair)})
    parts = PartRanges.between(start, start + length, without)
    assert parts.all().tolist() == left
    assert np.flatnonzero(parts.flags(3, 27)).tolist() == [n - 3 for n in left if 3 <= n < 27]
    assert parts.within(3, 27).all().tolist() == [n for n in left if 3 <= n < 27]
    assert parts.ordinals(np.arange(len(left))[::-2]).tolist() == left[::-2]
