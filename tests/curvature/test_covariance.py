"""A and S against loops over tokens."""

import pytest
import torch
from torch import Tensor, nn

from gindex.curvature.covariance import CovarianceObserver, add_second_moment
from gindex.model.layers import TrackedLayer

# float64 sums of a few dozen products.
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def layer(name: str, inputs: int, outputs: int, *, bias: bool = False, source: str = "") -> TrackedLayer:
    return TrackedLayer(
        name=name,
        module=nn.Identity(),
        inputs=inputs + bias,
        outputs=outputs,
        has_bias=bias,
        group="group",
        source=source or name,
    )


def loop_moment(x_NTX: Tensor, mask_NT: Tensor, *, bias: bool = False) -> Tensor:
    width = x_NTX.shape[2] + bias
    total = torch.zeros(width, width, dtype=torch.float64)
    for x_TX, mask_T in zip(x_NTX, mask_NT, strict=True):
        for x, real in zip(x_TX, mask_T, strict=True):
            if real:
                one = torch.cat([x, x.new_ones(1)]) if bias else x
                total += torch.outer(one, one)
    return total


@pytest.fixture
def mask() -> Tensor:
    return torch.arange(5)[None, :] < torch.tensor([5, 1, 3])[:, None]


def see(observer, tracked, a):
    """Run activations through an observer, with pseudo-gradients of zero."""
    observer.gradients(tracked, observer.activations(tracked, a), a.new_zeros(*a.shape[:2], tracked.outputs))


@pytest.mark.parametrize("reached", [("one", "two"), ("one",), ("two",)])
def test_activations_count_once_whichever_layers_gradients_come_to(mask, reached):
    """As a pass shows them: backward, and after it those without a gradient, which have no token."""
    a = torch.randn(3, 5, 4, dtype=torch.float64)
    tracked = [layer("one", 4, 2), layer("two", 4, 3, source="one")]
    observer = CovarianceObserver(dtype=torch.float64)
    for _ in range(2):
        observer.begin(mask)
        for one in sorted(tracked, key=lambda one: (one.name not in reached, -one.outputs)):
            see(observer, one, a if one.name in reached else a[:, :0])
    assert observer.activation_moments["one"].tokens == 18
    torch.testing.assert_close(observer.activation_moments["one"].totals[0], 2 * loop_moment(a, mask), **EXACT)
    assert [observer.gradient_moments[name].tokens for name in ("one", "two")] == [
        18 * (name in reached) for name in ("one", "two")
    ]


@pytest.mark.parametrize("bias", [False, True])
def test_second_moments_match_loops(mask, bias):
    a, g = (torch.randn(3, 5, width, dtype=torch.float64) for width in (4, 2))
    tracked, observer = layer("one", 4, 2, bias=bias), CovarianceObserver(dtype=torch.float64)
    observer.begin(mask)
    kept = observer.activations(tracked, a)
    observer.gradients(tracked, kept, g)
    assert observer.gradient_moments["one"].tokens == 9
    torch.testing.assert_close(observer.activation_moments["one"].totals[0], loop_moment(a, mask, bias=bias), **EXACT)
    torch.testing.assert_close(observer.gradient_moments["one"].totals[0], loop_moment(g, mask), **EXACT)
    mean = observer.activation_moments["one"].mean()
    torch.testing.assert_close(mean, loop_moment(a, mask, bias=bias) / 9, **EXACT)
    if bias:
        assert mean[-1, -1] == 1  # E[1 * 1] over real tokens alone


def test_padding_does_not_count(mask):
    """Whatever stands in the padding, NaN included, nothing changes."""
    a = torch.randn(3, 5, 4, dtype=torch.float64)
    spoiled = torch.where(mask[..., None], a, torch.tensor([float("nan"), float("inf"), 1e9, -1.0]).double())
    sums = []
    for x in (a, spoiled):
        observer = CovarianceObserver(dtype=torch.float64)
        observer.begin(mask)
        see(observer, layer("one", 4, 2), x)
        sums.append(observer.activation_moments["one"].totals[0])
    assert torch.equal(*sums)


def test_batches_add_up(mask):
    a = torch.randn(6, 5, 4, dtype=torch.float64)
    masks, observer = mask.repeat(2, 1), CovarianceObserver(dtype=torch.float64)
    for half in (slice(0, 3), slice(3, 6)):
        observer.begin(masks[half])
        see(observer, layer("one", 4, 2), a[half])
    torch.testing.assert_close(observer.activation_moments["one"].totals[0], loop_moment(a, masks), **EXACT)
    assert observer.activation_moments["one"].tokens == 18


def test_layers_that_share_activations_are_counted_once(mask):
    q, k = layer("q", 4, 2, source="q"), layer("k", 4, 3, source="q")
    a, g_q, g_k = (torch.randn(3, 5, width, dtype=torch.float64) for width in (4, 2, 3))
    observer = CovarianceObserver(dtype=torch.float64)
    observer.begin(mask)
    for tracked, g in ((q, g_q), (k, g_k)):
        observer.gradients(tracked, observer.activations(tracked, a), g)
    assert list(observer.activation_moments) == ["q"]
    torch.testing.assert_close(observer.activation_moments["q"].totals[0], loop_moment(a, mask), **EXACT)
    torch.testing.assert_close(observer.gradient_moments["k"].totals[0], loop_moment(g_k, mask), **EXACT)


def test_tokens_that_are_not_finite_are_left_out(mask):
    a = torch.randn(3, 5, 4, dtype=torch.float64)
    a[0, 2, 1], a[2, 0, 3] = float("nan"), float("-inf")
    observer = CovarianceObserver(dtype=torch.float64)
    observer.begin(mask)
    see(observer, layer("one", 4, 2), a)
    finite = mask & torch.isfinite(a).all(2)
    assert int(finite.sum()) == 7
    torch.testing.assert_close(observer.activation_moments["one"].totals[0], loop_moment(a, finite), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_the_format_of_the_moment(dtype):
    """4,096 ones: bfloat16 stops counting at 256 and float16 at 2,048, and 256**2 overflows float16."""
    moment = torch.zeros(2, 2)
    add_second_moment(moment, torch.tensor([[1.0, 256.0]], dtype=dtype).expand(4096, 2))
    assert moment.dtype == torch.float32
    assert moment.tolist() == [[2**12, 2**20], [2**20, 2**28]]  # powers of two: float32 sums are exact


def test_no_tokens_divide_by_one():
    observer = CovarianceObserver()
    observer.begin(torch.zeros(2, 3, dtype=torch.bool))
    see(observer, layer("one", 4, 2), torch.randn(2, 3, 4))
    assert not observer.activation_moments["one"].mean().any()
