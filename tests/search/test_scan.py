"""The exhaustive scan, which every other search is tested against, against plain numpy."""

import numpy as np
import pytest
import torch

from gindex.search.scan import scan

ROUNDING = 1e-5
"""A sum of 768 float32 products errs by less than 768 x 6e-8 of the product of the two lengths, which is a few times
the largest scores."""


@pytest.mark.parametrize("k", [1, 10, 2000, 5000])
def test_scan_is_a_sorted_matrix_product(reader, queries, scores, k):
    ordinals, found = scan(reader, queries, k)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    assert found.shape == (20, min(k, 2000))
    tolerance = ROUNDING * np.abs(scores).max()
    np.testing.assert_allclose(found, np.take_along_axis(scores, ordinals, 1), rtol=0, atol=tolerance)
    # Where float32 orders two parts otherwise, their scores are equal up to rounding.
    np.testing.assert_allclose(found, np.take_along_axis(scores, expected, 1), rtol=0, atol=tolerance)
    assert (np.diff(found, axis=1) <= 0).all()


def test_every_part_is_found_once(reader, queries):
    ordinals, _ = scan(reader, queries, 2000)
    assert (np.sort(ordinals, axis=1) == np.arange(2000)).all()


def test_ties_are_ordered_by_ordinal(make_reader):
    reader = make_reader(70, zeros=tuple(range(70)), segment_parts=64)
    ordinals, scores = scan(reader, torch.ones(1, 768), 70)
    assert ordinals[0].tolist() == list(range(70)) and not scores.any()


def test_segments_do_not_show(make_reader, queries):
    small, large = make_reader(300, segment_parts=64), make_reader(300, segment_parts=512)
    # Not compared bit by bit: the matrix product may sum in another order for another width.
    np.testing.assert_array_equal(scan(small, queries, 5)[0], scan(large, queries, 5)[0])
