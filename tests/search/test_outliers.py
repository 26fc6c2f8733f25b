"""Outliers are the largest stored self-influences."""

import numpy as np
import pytest

from gindex.errors import ConfigError, FilterError


def test_outliers_are_the_largest_self_influences(index):
    everything = index.snapshot.vectors.self_influence(np.arange(index.manifest.stored_parts))
    found = index.outliers(7)
    np.testing.assert_array_equal([o.self_influence for o in found], np.sort(everything)[::-1][:7])
    assert [o.rank for o in found] == list(range(1, 8))
    low = index.outliers(500, where="number < 10", per_token=True)
    assert {o.metadata["number"] for o in low} == set(range(10))
    names = [(part.document_id, part.part) for part in index.snapshot.documents.parts(range(len(everything)))]
    for outlier in low:
        ordinal = names.index((outlier.document_id, outlier.part))
        assert outlier.self_influence == pytest.approx(everything[ordinal] / (outlier.tokens - 1))
    with pytest.raises(ConfigError, match="k: expected at least 1"):
        index.outliers(0)
    with pytest.raises(FilterError, match="position 1: expected a field of the documents"):
        index.outliers(where="colour = 3")
