"""The memory that queries take while they are preconditioned and documents pass, measured."""

from pathlib import Path

import pytest
import torch
from torch import nn

from gindex.curvature.basis import DenseBasis
from gindex.curvature.ekfac import LayerFactors
from gindex.model.layers import TrackedLayer
from gindex.vectors.held_gradients import RoundedGradients, rounded_bytes, whole_bytes
from gindex.vectors.influence import exact_influence, precondition_queries

LAYERS, WIDTH, QUERIES, DOCUMENTS, TOKENS = 12, 384, 100, 40, 3

SLACK = 64 << 20
"""Bytes beside what is held: factors of a layer, gradients of one query or of some outputs, and the pass."""

PEAK = Path("/proc/self/clear_refs")


def memory(name: str) -> int:
    """Bytes of this process: `VmRSS`, or the peak `VmHWM`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


@pytest.mark.skipif(not PEAK.exists(), reason="the peak of memory is read from Linux")
def test_a_hundred_queries_take_no_more_than_what_is_held_of_them():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))
    layers = [
        TrackedLayer(name=name, module=module, inputs=WIDTH, outputs=WIDTH, has_bias=False, group="all", source=name)
        for name, module in model.named_children()
    ]
    Q = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0]
    Lambda = torch.rand(WIDTH, WIDTH, generator=generator)
    factors = LayerFactors(Q_A=DenseBasis(Q), Q_S=DenseBasis(Q), Lambda=Lambda, mean_eigenvalue=0.5)

    def losses(count):
        x_NTI = torch.randn(count, TOKENS, WIDTH, generator=generator).requires_grad_()
        return model(x_NTI).square().sum((1, 2))

    def taken(queries):
        """Influence on queries that are rounded, and the bytes that it took."""
        before = memory("VmRSS")
        PEAK.write_text("5")  # the peak begins anew
        held = precondition_queries(
            layers, lambda _: factors, 0.1, queries, lambda: losses(queries), hold=RoundedGradients.of
        )
        wanted = torch.ones(queries, DOCUMENTS, dtype=torch.bool)
        influence = exact_influence(layers, held, wanted, lambda: losses(DOCUMENTS))
        return influence, memory("VmHWM") - before

    taken(2)  # libraries make room for themselves
    influence, found = taken(QUERIES)
    of_model = layers, {layer.name: torch.float32 for layer in layers}, torch.device("cpu")
    held, whole = (QUERIES * of(*of_model) for of in (rounded_bytes, whole_bytes))
    assert influence.any()
    assert found < held + SLACK
    assert held + SLACK < whole  # so that whole gradients would show
