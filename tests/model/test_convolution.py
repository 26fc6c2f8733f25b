"""Convolutions as affine maps of patches, against autograd, in float64."""

import pytest
import torch
from observers import Gradients
from probes import random_probe
from torch import Tensor, nn

from gindex.model.capture import by_module, observe
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


DIMENSIONS = {
    "one": (nn.Sequential(nn.Conv1d(3, 4, 3, padding=2, dilation=2), nn.GELU(), nn.Conv1d(4, 2, 2, stride=2)), (3, 9)),
    "three": (nn.Sequential(nn.Conv3d(2, 3, (1, 2, 2), padding="same"), nn.GELU(), nn.Conv3d(3, 2, 2)), (2, 2, 4, 3)),
    "groups": (nn.Sequential(nn.Conv2d(6, 9, 2, groups=3), nn.GELU(), nn.Conv2d(9, 2, 2, bias=False)), (6, 4, 4)),
    "groups of one axis": (nn.Sequential(nn.Conv1d(4, 6, 3, groups=2, padding=1, bias=False), nn.GELU()), (4, 5)),
}


@pytest.mark.parametrize(("model", "shape"), DIMENSIONS.values(), ids=DIMENSIONS)
def test_convolutions_of_any_axes_and_few_groups_match_autograd(model, shape):
    """Reference: one backward pass a document. The layers of the groups lie one behind the other in the weight."""
    torch.manual_seed(0)
    model, x = model.double(), torch.randn(3, *shape, dtype=torch.float64)
    table = track_layers(model, random_probe(model, *shape, dtype=torch.float64))
    assert table.share == 1
    observer = Gradients()
    observe(table.layers, observer, len(x), lambda: model(x).square().flatten(1).sum(1))
    model.requires_grad_(True)
    for layers in by_module(table.layers):
        for n in range(len(x)):
            parameters = list(layers[0].module.parameters())
            weight, *bias = torch.autograd.grad(model(x[n : n + 1]).square().sum(), parameters)
            expected = torch.cat([weight.flatten(1), *[b[:, None] for b in bias]], 1)
            found = torch.cat([observer.found[layer.name][n] for layer in layers])
            torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


def test_each_group_is_a_layer_of_its_channels():
    model = nn.Sequential(nn.Conv2d(6, 9, 2, groups=3))
    layers = track_layers(model, random_probe(model, 6, 4, 4)).layers
    assert [(layer.name, layer.whole, layer.source) for layer in layers] == [
        (f"0.{g}", "0", f"0.{g}") for g in range(3)
    ]
    assert {(layer.inputs, layer.outputs) for layer in layers} == {(9, 3)}


def test_depthwise_convolutions_are_no_affine_maps():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.LazyLinear(2))
    probe = random_probe(model, 4, 4, 4)
    probe(2)
    assert [layer.name for layer in track_layers(model, probe)] == ["2"]
