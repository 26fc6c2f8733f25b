"""On a GPU: the same factors, vectors and influence as on the CPU, up to rounding, and what stays on the device."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gindex import GradientIndex
from gindex.curvature.eigenbasis import eigenbasis
from gindex.store.layout import Layout
from gindex.store.snapshot import Snapshot

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DEVICE = "cuda"
QUERY = {"prompt": "the compiler race", "completion": " bug the stack"}


def decoded(folder: Path) -> torch.Tensor:
    reader = Snapshot.open(Layout(folder)).vectors
    return reader.decoded(np.arange(reader.spec.parts))


def test_vectors_with_the_same_factors(tmp_path, corpus_file, make_config, run):
    """Vectors are lost and computed again on the GPU with the same factors; at 16 bits the codes lose little."""
    folder = tmp_path / "index"
    GradientIndex.build([str(corpus_file)], folder, make_config(bits=16))
    on_cpu = decoded(folder)
    for shards in folder.glob("volumes/*/vectors/*/c"):
        shutil.rmtree(shards)
    assert run("repair", folder).exit_code == 0
    GradientIndex.build([str(corpus_file)], folder, make_config(bits=16, device=DEVICE))
    assert float((decoded(folder) - on_cpu).abs().max()) < 1e-2 * float(on_cpu.abs().max())


def test_search_finds_the_same(built):
    hits = {
        device: GradientIndex.open(built, device=device).search(*QUERY.values(), k=10, exact=True).hits
        for device in ("cpu", DEVICE)
    }
    assert [(h.document_id, h.part) for h in hits["cpu"]] == [(h.document_id, h.part) for h in hits[DEVICE]]
    for cpu, gpu in zip(hits["cpu"], hits[DEVICE], strict=True):
        assert gpu.influence == pytest.approx(cpu.influence, rel=1e-3)


def test_build_on_the_gpu_alone(corpus_file, make_config, tmp_path):
    manifest = GradientIndex.build([str(corpus_file)], tmp_path / "index", make_config(device=DEVICE))
    assert manifest is not None
    assert GradientIndex.open(tmp_path / "index", device=DEVICE).search(*QUERY.values(), k=3).hits


def test_eigenbasis_stays_on_the_device():
    generator = torch.Generator(DEVICE).manual_seed(0)
    x = torch.randn(300, 64, device=DEVICE, generator=generator)
    values, vectors = eigenbasis(x.T @ x, "test")
    assert values.is_cuda and vectors.is_cuda
    torch.testing.assert_close(vectors @ values.diag() @ vectors.T, (x.T @ x).double(), rtol=1e-9, atol=1e-7)


def test_bfloat16_moments_are_summed_in_float32():
    from gindex.curvature.products import add_second_moment, symmetric

    x = torch.randn(2048, 600, device=DEVICE).bfloat16()
    moment = torch.zeros(600, 600, device=DEVICE)
    add_second_moment(moment, x)
    expected = x.double().T @ x.double()
    assert ((symmetric(moment).double() - expected).abs() / expected.diagonal().max()).max() < 2**-18
