"""FAISS on GPUs against the scan; where there is none, `tests/cli/test_search_options.py` sees the CPU take over."""

import faiss
import numpy as np
import pytest
import torch

from gindex.ann.build import build_faiss
from gindex.ann.gpu import GPU_MOST
from gindex.ann.index import FaissIndex
from gindex.ann.index_files import IndexFiles
from gindex.search.funnel import Funnel
from gindex.search.scan import scan
from gindex.search.selection import Selection

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus(),
        reason="needs an NVIDIA GPU and faiss-gpu-cuvs",
    ),
]


@pytest.fixture
def index(tmp_path, reader, projection) -> FaissIndex:
    path = tmp_path / "search.faiss"
    spec = build_faiss(path, reader, projection, kind="gpu")
    index = FaissIndex(path, spec, projection, reader.spec.parts)
    index.open()
    return index


def test_gpu_is_used_and_agrees_with_the_cpu(index, queries):
    assert index._gpu is not None
    found = index.candidates(queries, 50)
    index._gpu = None
    for (got, scores), (expected, same) in zip(found, index.candidates(queries, 50), strict=True):
        np.testing.assert_allclose(scores, same, rtol=1e-2, atol=1e-2 * np.abs(same[:50]).max())  # sums in float16
        assert np.isin(expected[:10], got).all()


def test_funnel_on_a_gpu_agrees_with_the_scan(index, reader, queries):
    best, _ = scan(reader, queries, 10)
    found = Funnel(IndexFiles([index]), reader, ()).search(queries, 10)
    np.testing.assert_array_equal([scored.ordinals for scored in found], best)


def test_filters_and_long_lists_are_the_cpus(index, reader, queries):
    """FAISS gives at most 2,048 candidates on a GPU and takes no selector there."""
    parts = np.arange(0, reader.spec.parts, 3)
    best, _ = scan(reader, queries, 10, parts=parts)
    found = Funnel(IndexFiles([index]), reader, ()).search(queries, 10, Selection(parts=parts))
    np.testing.assert_array_equal([scored.ordinals for scored in found], best)
    assert len(index.candidates(queries[:1], GPU_MOST + 1)[0][0]) == reader.spec.parts


def test_search_on_several_gpus_is_sharded(index, queries):
    if faiss.get_num_gpus() < 2:
        pytest.skip("needs two GPUs")
    assert isinstance(index._gpu, faiss.IndexShards)
    assert torch.cuda.device_count() >= 2 and len(index.candidates(queries, 5)) == len(queries)
