"""Gradients held whole and rounded, and the influence of both."""

import pytest
import torch

from gindex.vectors.held_gradients import RoundedGradients, joined, rounded, rounded_bytes, whole, whole_bytes
from gindex.vectors.influence import exact_influence, layer_influence, precondition_queries
from gindex.vectors.token_influence import token_influence

BITS = 2.0**-11
"""Largest relative error of a value that float16 holds in full: half a unit in the last of 11 places."""

LEAST = 2.0**-25
"""Largest error beside the largest value of a row, which is 1 there: half of float16's smallest subnormal."""


@pytest.mark.parametrize("spread", [0.0, 4.0, 30.0])  # decades between the largest and the smallest row
def test_a_rounded_value_is_off_by_no_more_than_its_last_bit(spread):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(3, 5, 40, generator=generator) * 10 ** (spread * torch.rand(3, 5, 1, generator=generator) - 20)
    held = RoundedGradients.of(X)
    error = (held[:].double() - X.double()).abs()
    largest = X.double().abs().amax(2, keepdim=True)
    # Two more roundings, of the quotient and of the product, each to float32's 24 places.
    assert (error <= torch.maximum((BITS + 2**-22) * X.double().abs(), LEAST * (1 + 2**-10) * largest)).all()
    assert error.any()
    assert held.shape == X.shape and held.dtype == torch.float32 and held.device == X.device


def test_a_part_is_read_as_from_a_tensor():
    X = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(1))
    held = RoundedGradients.of(X)
    everything = held[:]
    assert torch.equal(held[2], everything[2])
    assert torch.equal(held[1:3], everything[1:3])
    assert torch.equal(held[:, 2:4], everything[:, 2:4])


def test_zeros_stay_zeros_and_what_is_not_finite_is_not_hidden():
    X = torch.zeros(1, 3, 4)
    X[0, 1, 2], X[0, 2, 0] = float("nan"), float("inf")
    found = RoundedGradients.of(X)[0]
    assert torch.equal(found[0], torch.zeros(4))
    assert not found[1].isfinite().any()
    assert not found[2].isfinite().any()


@pytest.mark.parametrize("hold", [whole, RoundedGradients.of])
def test_joined_parts_are_the_queries_in_order(hold):
    X = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(2))
    parts = [{"one": hold(X[:2]), "two": hold(2 * X[:2])}, {"one": hold(X[2:]), "two": hold(2 * X[2:])}]
    found = joined(parts)
    assert torch.equal(found["one"][:], hold(X)[:]) and torch.equal(found["two"][:], hold(2 * X)[:])
    assert parts == [{}, {}]


class Rounded64(RoundedGradients):
    """The rounded values of a float64 model, read as float64: nothing but the rounding differs from whole ones."""

    @classmethod
    def of(cls, X_QOI):
        held = RoundedGradients.of(X_QOI.float())
        return cls(held._rounded, held._scales.double())


@pytest.fixture(params=[[2, 0, 3], [7], [3]], ids=["three queries", "one query", "a query of two tokens"])
def gradients(setting, request):
    """Preconditioned gradients of queries, whole and rounded; each for itself."""
    queries = request.param
    return [
        precondition_queries(
            setting.layers, setting.factors.__getitem__, 0.1, len(queries), lambda: setting.losses(queries), hold=hold
        )
        for hold in (whole, Rounded64.of)
    ]


DOCUMENTS = [4, 1, 5, 6, 0, 7, 2]


def test_influence_of_rounded_queries_is_within_the_stated_bound(setting, gradients):
    """The bound of the module's header: the sum over weights of the largest error of X times |G|."""
    exact, rounded = gradients
    queries = len(next(iter(exact.values())))
    wanted = torch.ones(queries, len(DOCUMENTS), dtype=torch.bool)

    def losses():
        return setting.losses(DOCUMENTS)

    G = document_gradients_by_layer(setting)
    expected = exact_influence(setting.layers, exact, wanted, losses)
    found = exact_influence(setting.layers, rounded, wanted, losses)
    bound = torch.zeros_like(expected)
    for name, X in exact.items():
        largest = X.abs().amax(2, keepdim=True)
        error = torch.maximum((BITS + 2**-22) * X.abs(), LEAST * (1 + 2**-10) * largest)
        bound += torch.einsum("qoi,noi->qn", error, G[name].abs())
    assert ((found - expected).abs() <= bound).all()
    assert (found - expected).any()
    # What is left when errors cancel: decision 0017 states 1e-3 of the scores' spread.
    assert ((found - expected).std(1) < 1e-3 * expected.std(1)).all()
    by_layer = layer_influence(setting.layers, rounded, wanted, losses)
    torch.testing.assert_close(by_layer.sum(0), found, rtol=1e-9, atol=1e-10)
    by_token = token_influence(setting.layers, rounded, len(DOCUMENTS), losses)
    torch.testing.assert_close(by_token.sum((0, 2)), found[0], rtol=1e-9, atol=1e-10)


def test_a_query_that_few_want_is_the_same_as_one_that_all_want(setting, gradients):
    """Documents take one of two ways, of which one reads a query and the other some outputs of all."""
    for held in gradients:
        queries = next(iter(held.values())).shape[0]
        every = torch.ones(queries, 3, dtype=torch.bool)
        together = exact_influence(setting.layers, held, every, lambda: setting.losses([4, 5, 6]))
        for query in range(queries):
            few = torch.zeros(queries, 3, dtype=torch.bool)
            few[query, 1] = True
            found = exact_influence(setting.layers, held, few, lambda: setting.losses([4, 5, 6]))
            torch.testing.assert_close(found, torch.where(few, together, 0.0), rtol=1e-9, atol=1e-10)


def test_rounded_queries_take_half_the_bytes(setting):
    layers = setting.layers
    names, formats_of = [layer.name for layer in layers], (torch.float32, torch.float64, torch.bfloat16)
    float32, float64, bfloat16 = (dict.fromkeys(names, dtype) for dtype in formats_of)
    held = [RoundedGradients.of(torch.zeros(1, layer.outputs, layer.inputs)) for layer in layers]
    taken = sum(t.numel() * t.element_size() for one in held for t in (one._rounded, one._scales))
    assert taken == rounded_bytes(layers, float32)
    assert whole_bytes(layers, float32) == sum(4 * layer.parameters for layer in layers)
    for formats in (float64, bfloat16):  # chosen for their digits, or have none to spare
        assert rounded_bytes(layers, formats) == whole_bytes(layers, formats)
    mixed = bfloat16 | {layers[0].name: torch.float32}
    spared = 2 * layers[0].parameters - 4 * layers[0].outputs
    assert whole_bytes(layers, mixed) - rounded_bytes(layers, mixed) == spared


def test_only_float32_is_rounded():
    X = torch.randn(2, 3, 4)
    assert isinstance(rounded(X), RoundedGradients)
    for dtype in (torch.float64, torch.bfloat16):
        assert rounded(X.to(dtype)).dtype == dtype and isinstance(rounded(X.to(dtype)), torch.Tensor)


def document_gradients_by_layer(setting):
    """G [N, O, I] of the documents by plain autograd: their whitened gradients, taken back."""
    result = {}
    for name, V in setting.whitened(0.1).items():
        f = setting.factors[name]
        rotated = V[DOCUMENTS] * (f.Lambda + 0.1 * f.Lambda.mean()).sqrt()
        result[name] = f.Q_S.matrix() @ rotated @ f.Q_A.matrix().T
    return result
