"""Which FAISS index serves which corpus."""

import json
from dataclasses import replace

import pytest

from gindex.ann.spec import MAX_FOLDS, FaissSpec, choose_spec, search_record, spec_of
from gindex.errors import ConfigError, CorruptStoreError
from gindex.store.records import SearchRecord
from gindex.store.values import record_of, values_of


def test_spec_is_chosen_by_size_and_comes_back_from_json():
    flat = choose_spec(500, 30720, 3.0)
    assert flat == FaissSpec(kind="flat", folds=0, scale=1.0)
    coarse = choose_spec(100_000, 30720, 4.0)
    assert (coarse.kind, coarse.folds) == ("rabitq", 2)
    assert choose_spec(1_000_000, 30720, 4.0).folds == MAX_FOLDS
    assert choose_spec(40_000_000, 30720, 4.0).kind == "ivf"
    assert choose_spec(100_000, 16384, 4.0, "fp16") == FaissSpec(kind="fp16", folds=3, scale=0.25)
    assert choose_spec(100_000, 16384, 0.0, "fp16").scale == 1.0
    for spec in (flat, coarse, choose_spec(40_000_000, 30720, 4.0)):
        values = json.loads(json.dumps(values_of(search_record(spec, "search/1.faiss", 10))))
        assert spec_of(record_of(SearchRecord, values)) == spec
    with pytest.raises(CorruptStoreError, match="expected a kind of FAISS index, found 'hnsw'"):
        spec_of(replace(search_record(flat, "search/1.faiss", 10), kind="hnsw"))
    with pytest.raises(ConfigError, match="type: expected auto, flat, fp16, gpu, rabitq, ivf, found 'hnsw'"):
        choose_spec(10, 64, 1.0, "hnsw")
