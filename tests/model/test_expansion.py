"""Document gradients of parameters that are no matrices, against autograd one document at a time, in float64."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from probes import names, random_probe, reasons
from torch import Tensor, nn

from gindex.errors import TrackedLayerError
from gindex.model.capture import observe
from gindex.model.checkpointing import checkpointed
from gindex.model.layer_choice import LayerChoice
from gindex.model.layers import LayerTable
from gindex.model.observer import Observer
from gindex.model.tracking import track_layers

WIDE = torch.float64
EVERYTHING = LayerChoice(layers="everything")


class Gradients(Observer):
    """Document gradients [N, O, I] by layer name."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}

    def activations(self, layer, a_NTI):
        return a_NTI

    def gradients(self, layer, kept, g_NTO):
        self.found[layer.name] = g_NTO.mT @ kept


class Norms(nn.Module):
    """Each norm of torch, and one as Gemma has it, on [N, H, T]; its width may be the number of documents."""

    def __init__(self, width: int = 22) -> None:
        super().__init__()
        self.layer, self.rms = nn.LayerNorm([width, 3]), nn.RMSNorm(3)
        self.group, self.batch = nn.GroupNorm(width // 11, width), nn.BatchNorm1d(width)
        self.shifted = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.rms(self.layer(x).tanh()) * (1.0 + self.shifted.to(x))
        return self.batch(self.group(x).tanh()).square().flatten(1)


class Depthwise(nn.Module):
    """A picture's and a sequence's depthwise convolution, and a scale for each channel as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.picture, self.sequence = nn.Conv2d(6, 6, 3, groups=6, padding=1), nn.Conv1d(6, 12, 2, groups=6, padding=1)
        self.scale, self.norm = nn.Parameter(torch.ones(6, 1, 1)), nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale * self.picture(x)
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.sequence(x.flatten(2))[..., :-1].square().flatten(1)


class Tokens(nn.Module):
    """A class token and positions as in a ViT, one number for a layer, and rows of documents one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.positions = nn.Parameter(torch.zeros(1, 1, 4)), nn.Parameter(torch.zeros(1, 4, 4))
        self.number, self.sinks, self.norm = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(4)), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.start.expand(len(x), -1, -1), x], dim=1) + self.positions
        x = self.norm(x.reshape(-1, 4)).view_as(x) * self.number
        sinks = self.sinks.reshape(1, -1, 1).expand(len(x), -1, 1)
        return torch.cat([x, sinks], dim=-1).softmax(-1).flatten(1)


class StateSpace(nn.Module):
    """What a state space has beside its projections, and a weight that is multiplied without its module."""

    def __init__(self) -> None:
        super().__init__()
        self.A_log, self.D = nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.ones(3))
        self.step = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        step = F.softplus(self.step.weight @ x[:, :2] + self.step.bias[:, None])
        A = -torch.exp(self.A_log.to(x))
        decay, state, found = torch.exp(A[None, :, None, :] * step[..., None]), x.new_zeros(len(x), 3, 2), []
        for t in range(x.shape[2]):
            state = decay[:, :, t] * state + x[:, :, t, None]
            found.append(state.sum(-1) + self.D * x[:, :, t])
        return torch.stack(found, 1).square().flatten(1)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "norms": (Norms, (22, 3)),
    "depthwise": (Depthwise, (6, 3, 4)),
    "tokens": (Tokens, (3, 4)),
    "state space": (StateSpace, (3, 5)),
}


def made(kind: str) -> tuple[nn.Module, LayerTable]:
    torch.manual_seed(0)
    model = MODELS[kind][0]().to(WIDE).eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
            tensor.add_(0.3 * torch.randn_like(tensor).abs())
    return model, track_layers(model, random_probe(model, *MODELS[kind][1], dtype=WIDE), EVERYTHING)


def observed(model: nn.Module, table: LayerTable, x: Tensor) -> dict[str, Tensor]:
    observer = Gradients()
    observe(table.layers, observer, len(x), lambda: losses(model, x))
    return observer.found


def losses(model: nn.Module, x: Tensor) -> Tensor:
    """A loss that weighs each output differently."""
    outputs = model(x)
    return outputs @ torch.linspace(-1, 2, outputs.shape[1], dtype=WIDE)


@pytest.mark.parametrize("documents", [1, 6, 22])
@pytest.mark.parametrize("kind", MODELS)
def test_document_gradients_match_autograd(kind, documents):
    """Reference: one backward pass a document. 22 documents are as many as one norm has features, 1 stands alone."""
    model, table = made(kind)
    assert {layer.name for layer in table} == {name for name, _ in model.named_parameters()}
    assert table.share == 1
    x = torch.randn(documents, *MODELS[kind][1], dtype=WIDE)
    found = observed(model, table, x)
    assert {tuple(G.shape) for G in found.values()} == {(documents, layer.outputs, 1) for layer in table}
    model.requires_grad_(True)
    for n in range(documents):
        expected = torch.autograd.grad(losses(model, x[n : n + 1]).sum(), list(model.parameters()))
        for (name, _), gradient in zip(model.named_parameters(), expected, strict=True):
            torch.testing.assert_close(found[name][n].flatten(), gradient.flatten(), rtol=1e-9, atol=1e-10)


def test_a_checkpointed_block_gives_the_same_gradients():
    model, table = made("norms")
    x = torch.randn(3, 22, 3, dtype=WIDE)
    expected = observed(model, table, x)
    with checkpointed([model.layer, model.batch]):
        found = observed(model, table, x)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-12, atol=1e-12)


def test_texts_of_a_document_add_up():
    model, table = made("tokens")
    x, observer = torch.randn(6, 3, 4, dtype=WIDE), Gradients()
    observe(table.layers, observer, 3, lambda: losses(model, x).view(3, 2).sum(1), texts=2)
    each = observed(model, table, x)
    for name, gradient in observer.found.items():
        torch.testing.assert_close(gradient, each[name].view(3, 2, -1, 1).sum(1), rtol=1e-12, atol=1e-12)


class _Doubled(torch.autograd.Function):
    """A kernel of its own."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return 2 * weight * x

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, Tensor]:
        (x,) = ctx.saved_tensors
        return 2 * g, 2 * (g * x).flatten(0, -2).sum(0)


class Refused(nn.Module):
    """Parameters that can't be expanded by document, beside one that can."""

    def __init__(self) -> None:
        super().__init__()
        self.good, self.kernel, self.mixing = (nn.Parameter(torch.ones(4)) for _ in range(3))
        self.unused, self.large = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(1 << 18, 2))
        self.choosing = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        x = _Doubled.apply(x * self.good, self.kernel)
        x = x + (self.mixing * x).sum((0, 1)) * 0.1
        if self.choosing.sum() > 100:
            x = x * self.choosing
        return (x.mT @ (x + self.choosing[(x[0, 0] > 0).nonzero()].sum())).flatten(1)


def test_what_cannot_be_expanded_is_left_out_by_name():
    model = Refused()
    table = track_layers(model, random_probe(model, 3, 4), EVERYTHING)
    why = reasons(table)
    assert "good" not in names(table)  # what follows it mixes documents
    assert "is not the one that" in why["good"]
    assert "is not the one that" in why["kernel"]
    assert "by document" in why["mixing"] or "is not the one that" in why["mixing"]
    assert why["unused"] == "not used in a forward pass"
    assert why["large"] == "524,288 values of Refused, above the limit of 262,144"


class Changing(nn.Module):
    """Does something else with its scale where there are many documents."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale if len(x) < 15 else torch.addcmul(x, x, self.scale)


def test_an_operation_that_was_not_tried_is_an_error():
    model = Changing()
    layers = track_layers(model, random_probe(model, 3, 4), EVERYTHING).layers
    message = r"^scale: expected operations that can be done for each document by itself.*addcmul"
    with pytest.raises(TrackedLayerError, match=message):
        observe(layers, Gradients(), 16, lambda: model(torch.randn(16, 3, 4)).sum((1, 2)))


def test_by_default_no_parameter_is_a_layer_by_itself_and_patterns_take_some():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    probe = random_probe(model, 3, 4)
    table = track_layers(model, probe)
    assert names(table) == ["0"]
    assert reasons(table)["1.bias"] == "of LayerNorm, not a linear layer: `layers` everything takes it"
    assert names(track_layers(model, probe, LayerChoice(track=["1.w*"]))) == ["0", "1.weight"]
    assert names(track_layers(model, probe, LayerChoice(layers="everything", untrack=["1.w*"]))) == ["0", "1.bias"]
