"""Gradients held whole and rounded, and the influence of both."""

import pytest
import torch

from gindex.vectors import product_format
from gindex.vectors.held_gradients import (
    RUN,
    STEPS,
    RoundedGradients,
    joined,
    rounded,
    rounded_bytes,
    whole,
    whole_bytes,
)
from gindex.vectors.influence import exact_influence, layer_influence, precondition_queries
from gindex.vectors.token_influence import token_influence

HALF_STEP = (1 + 2.0**-8) / (2 * STEPS)
"""Largest error beside the largest value of a run: half a step, which is rounded to bfloat16's 8 places."""


def run_maxima(X):
    """The largest magnitude of the run that each value of X [Q, O, I] is in, by a loop."""
    count = -(-X.shape[2] // RUN)
    width = -(-X.shape[2] // count)
    return torch.cat([run.abs().amax(2, keepdim=True).expand_as(run) for run in X.split(width, 2)], 2)


@pytest.mark.parametrize("inputs", [1, 40, 64, 65, 577])
@pytest.mark.parametrize("spread", [0.0, 4.0, 18.0])  # decades between the largest and the smallest row
def test_a_rounded_value_is_off_by_no_more_than_half_a_step(inputs, spread):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(3, 5, inputs, generator=generator) * 10 ** (spread * torch.rand(3, 5, 1, generator=generator) - 20)
    held = RoundedGradients.of(X)
    error = (held[:].double() - X.double()).abs()
    # One more rounding, of the product, to float32's 24 places.
    assert (error <= (HALF_STEP + 2**-22) * run_maxima(X).double()).all()
    assert error.any() or inputs == 1
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


@pytest.fixture(params=[[2, 0, 3], [7], [3]], ids=["three queries", "one query", "a query of two tokens"])
def gradients(setting, request):
    """Preconditioned gradients of queries, whole and rounded; each for itself."""
    queries = request.param
    return [
        precondition_queries(
            setting.layers, setting.factors.__getitem__, 0.1, len(queries), lambda: setting.losses(queries), hold=hold
        )
        for hold in (whole, RoundedGradients.of)
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
        bound += torch.einsum("qoi,noi->qn", HALF_STEP * run_maxima(X), G[name].abs())
    assert ((found - expected).abs() <= bound).all()
    assert (found - expected).any()
    # What is left when errors cancel: decision 0017 states a hundredth of the scores' spread.
    assert ((found - expected).std(1) < 1e-2 * expected.std(1)).all()
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


def test_queries_take_the_bytes_that_are_said(setting):
    layers, cpu = setting.layers, torch.device("cpu")
    names, formats_of = [layer.name for layer in layers], (torch.float32, torch.float64, torch.bfloat16)
    alike = [dict.fromkeys(names, dtype) for dtype in formats_of]
    for formats in [*alike, alike[2] | {names[0]: torch.float32}, alike[0] | {names[0]: torch.float64}]:
        zeros = [torch.zeros(1, layer.outputs, layer.inputs, dtype=formats[layer.name]) for layer in layers]
        for hold, said in ((whole, whole_bytes), (rounded, rounded_bytes)):
            held = [hold(X) for X in zeros]
            tensors = [t for X in held for t in ((X,) if isinstance(X, torch.Tensor) else (X._rounded, X._steps))]
            assert said(layers, formats, cpu) == sum(tensor.nbytes for tensor in tensors)


def test_float64_is_not_rounded():
    X = torch.randn(2, 3, 4)
    for dtype in (torch.float32, torch.bfloat16):
        assert isinstance(rounded(X.to(dtype)), RoundedGradients)
    assert rounded(X.double()).dtype == torch.float64


@pytest.fixture
def with_bfloat16(monkeypatch):
    """A processor that is said to multiply bfloat16: torch computes the same without the instructions, but slowly."""
    monkeypatch.setattr(product_format, "multiplies_bfloat16", lambda: True)


def test_large_matrices_of_float32_are_multiplied_in_bfloat16_where_a_processor_can(with_bfloat16):
    cpu, least = torch.device("cpu"), product_format.LEAST_VALUES
    assert product_format.product_format(torch.float32, cpu, least) == torch.bfloat16
    assert product_format.product_format(torch.float32, cpu, least - 1) == torch.float32
    assert product_format.product_format(torch.float64, cpu, least) == torch.float64
    assert product_format.product_format(torch.float32, torch.device("meta"), least) == torch.float32


@pytest.mark.parametrize("queries", [[2], [7, 0], [2, 0, 3]])
@pytest.mark.parametrize("hold", [whole, RoundedGradients.of])
def test_influence_by_products_of_bfloat16_is_within_a_hundredth_of_the_spread(
    setting, with_bfloat16, monkeypatch, queries, hold
):
    """Against float64 throughout, by the way of few queries and that of many; decision 0017 states the hundredth."""
    wanted = torch.ones(len(queries), len(DOCUMENTS), dtype=torch.bool)

    def influence(hold):
        held = precondition_queries(
            setting.layers, setting.factors.__getitem__, 0.1, len(queries), lambda: setting.losses(queries), hold=hold
        )
        return held, exact_influence(setting.layers, held, wanted, lambda: setting.losses(DOCUMENTS))

    _, expected = influence(whole)
    monkeypatch.setattr(product_format, "LEAST_VALUES", 1)
    held, found = influence(lambda X: hold(X.float()))
    assert all(one.dtype == torch.bfloat16 for one in held.values())
    assert found.dtype == torch.float32
    assert (found - expected).any()
    assert ((found - expected).std(1) < 1e-2 * expected.std(1)).all()
    by_token = token_influence(setting.layers, held, len(DOCUMENTS), lambda: setting.losses(DOCUMENTS))
    if len(queries) == 1:  # tokens are of the first query
        # Its terms are rounded one by one, and add up to less than they are large.
        assert ((by_token.sum((0, 2)) - found[0]).abs() < 1e-2 * expected.std(1)).all()


def document_gradients_by_layer(setting):
    """G [N, O, I] of the documents by plain autograd: their whitened gradients, taken back."""
    result = {}
    for name, V in setting.whitened(0.1).items():
        f = setting.factors[name]
        rotated = V[DOCUMENTS] * (f.Lambda + 0.1 * f.Lambda.mean()).sqrt()
        result[name] = f.Q_S.matrix() @ rotated @ f.Q_A.matrix().T
    return result
