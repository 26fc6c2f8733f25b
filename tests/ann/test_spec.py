"""Which FAISS index serves which corpus."""

import json
from dataclasses import replace

import pytest

from gindex.ann.spec import MAX_FOLDS, FaissSpec, choose_spec, kind_of_piece, search_file, spec_of
from gindex.errors import ConfigError, CorruptStoreError
from gindex.store.records import SearchFile
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
        values = json.loads(json.dumps(values_of(search_file(spec, "search/1.faiss", 10))))
        assert spec_of(record_of(SearchFile, values)) == spec
    with pytest.raises(CorruptStoreError, match="expected a kind of FAISS index, found 'hnsw'"):
        spec_of(replace(search_file(flat, "search/1.faiss", 10), kind="hnsw"))
    with pytest.raises(ConfigError, match="type: expected auto, flat, fp16, gpu, rabitq, ivf, found 'hnsw'"):
        choose_spec(10, 64, 1.0, "hnsw")


def test_kind_of_a_piece():
    assert kind_of_piece("flat", 3, 1000) == kind_of_piece("flat", 900, 1000) == "auto"
    assert kind_of_piece("fp16", 3, 1000) == "fp16" and kind_of_piece("rabitq", 3, 1000) == "rabitq"
    assert kind_of_piece("ivf", 3, 1000) == kind_of_piece("flat", 3, 40_000_000) == "rabitq"
    assert kind_of_piece("ivf", 39_000_000, 40_000_000) == "ivf"
