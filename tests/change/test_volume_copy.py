"""Which parts are written again, and where they come to be."""

from hypothesis import given
from hypothesis import strategies as st

from gindex.change.volume_copy import KeptParts


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
    parts = KeptParts(ranges)
    assert len(parts) == len(ordinals)
    start = data.draw(st.integers(0, len(ordinals)))
    stop = data.draw(st.integers(start, len(ordinals)))
    assert parts.ordinals(range(start, stop)).tolist() == ordinals[start:stop]
    for ordinal in range(len(kept) + 1):
        assert parts.place(ordinal) == (ordinals.index(ordinal) if ordinal in ordinals else None)
