"""Convolutions as affine maps of patches, against autograd, in float64."""

import pytest
import torch
from probes import random_probe
from torch import Tensor, nn

from gindex.errors import NothingToTrackError
from gindex.model.capture import Observer, append_one, observe
from gindex.model.convolution import patches
from gindex.model.tracking import track_layers

CONVOLUTIONS = {
    "plain": {"kernel_size": 3},
    "padded": {"kernel_size": 3, "padding": 1, "bias": False},
    "same": {"kernel_size": (2, 3), "padding": "same", "dilation": (2, 1)},
    "strided": {"kernel_size": (1, 3), "stride": (2, 1), "padding": (0, 2)},
    "circular": {"kernel_size": 3, "padding": (1, 2), "padding_mode": "circular"},
    "reflected": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect", "stride": 2},
}


class Gradients(Observer):
    """Document gradients [N, O, I] by layer name."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}

    def activations(self, layer, a_NTI):
        return append_one(a_NTI, layer)

    def gradients(self, layer, kept, g_NTO):
        self.found[layer.name] = g_NTO.mT @ kept


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_convolution_is_an_affine_map_of_its_patches(options):
    torch.manual_seed(0)
    layer, x = nn.Conv2d(2, 4, **options).double(), torch.randn(3, 2, 6, 7, dtype=torch.float64)
    out = patches(layer, x) @ layer.weight.flatten(1).T + (0 if layer.bias is None else layer.bias)
    torch.testing.assert_close(out.mT.reshape_as(layer(x)), layer(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_document_gradients_match_autograd(options):
    """Reference: one backward pass a document; an in-place activation follows both convolutions."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, **options), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 2), nn.ReLU(inplace=True), nn.Flatten(),
        nn.LazyLinear(2),
    ).double()  # fmt: skip
    x = torch.randn(5, 2, 6, 7, dtype=torch.float64)
    model(x)
    layers = track_layers(model, random_probe(model, 2, 6, 7, dtype=torch.float64)).layers
    assert [layer.name for layer in layers] == ["0", "2", "5"]
    observer = Gradients()
    observe(layers, observer, len(x), lambda: model(x).square().sum(1))
    model.requires_grad_(True)
    for layer in layers:
        parameters = list(layer.module.parameters())
        for n in range(len(x)):
            weight, *bias = torch.autograd.grad(model(x[n : n + 1]).square().sum(), parameters)
            expected = torch.cat([weight.flatten(1), *[b[:, None] for b in bias]], 1)
            torch.testing.assert_close(observer.found[layer.name][n], expected, rtol=1e-11, atol=1e-12)


class Branches(nn.Module):
    """Layers that read one picture: two cut it alike, two do not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.alike = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 1, 3, padding=1)
        self.wider, self.dense = nn.Conv2d(2, 3, 5, padding=2), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.first(x), self.alike(x), self.wider(x), self.dense(x)]
        return torch.stack([part.flatten(1).sum(1) for part in parts], 1)


def test_only_layers_that_cut_their_input_alike_share_a_covariance():
    model = Branches()
    layers = track_layers(model, random_probe(model, 2, 4, 4)).layers
    assert {layer.name: layer.source for layer in layers} == {
        "first": "first",
        "alike": "first",
        "wider": "wider",
        "dense": "dense",
    }
    assert [(layer.inputs, layer.outputs) for layer in layers] == [(19, 3), (19, 1), (51, 3), (5, 4)]


def test_grouped_convolutions_are_refused_by_name():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(NothingToTrackError, match="0: a convolution in 2 groups, not one affine map"):
        track_layers(model, random_probe(model, 4, 4, 4))
