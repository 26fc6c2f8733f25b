"""Symmetric products by blocks, and bfloat16 inputs that are summed in float32."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from gindex.curvature import products
from gindex.curvature.products import add_second_moment, symmetric
from gindex.model.passes import neutral, plain, rounded_products


@pytest.mark.parametrize("width", [1, 3, 4, 7, 8, 13])
@pytest.mark.parametrize("tokens", [0, 1, 6])
def test_blocks_do_not_show(width, tokens, monkeypatch):
    monkeypatch.setattr(products, "COLUMNS", 4)
    torch.manual_seed(width)
    first, second = torch.randn(tokens, width, dtype=torch.float64), torch.randn(5, width, dtype=torch.float64)
    moment = torch.zeros(width, width, dtype=torch.float64)
    add_second_moment(moment, first)
    add_second_moment(moment, second)
    expected = first.T @ first + second.T @ second
    torch.testing.assert_close(symmetric(moment), expected, rtol=1e-13, atol=1e-13)
    assert torch.equal(symmetric(moment), symmetric(moment).T)


def test_bfloat16_inputs_are_summed_in_float32():
    """Against float64: the error is that of a float32 sum, not 2**-8.

    Each of 2,048 terms rounds by 2**-24 of the sum at most. Processors differ in the order of the sum and in how they
    round pairs; a walk of so many steps ends within 2**-18, four times its standard deviation.
    """
    torch.manual_seed(0)
    x = torch.randn(2048, 600).bfloat16()
    moment = torch.zeros(600, 600)
    add_second_moment(moment, x)
    expected = x.double().T @ x.double()
    scale = x.double().square().sum(0).sqrt()
    assert ((symmetric(moment).double() - expected).abs() / (scale[:, None] * scale)).max() < 2**-18


@pytest.mark.parametrize("before", ["highest", "high"])
def test_precision_of_other_products_is_left_alone(before):
    torch.set_float32_matmul_precision(before)
    try:
        with pytest.raises(RuntimeError):
            add_second_moment(torch.zeros(2, 2), torch.zeros(3, 5, dtype=torch.bfloat16))
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_no_thread_has_its_products_rounded_by_another():
    """The setting is one of the process: it is left alone beside another thread's work, which waits for its end."""
    there, leave = threading.Event(), threading.Event()

    def work() -> str:
        with neutral():
            there.set()
            leave.wait(60)
            return torch.get_float32_matmul_precision()

    with ThreadPoolExecutor(1) as pool, neutral():
        with rounded_products():
            assert torch.get_float32_matmul_precision() == "medium"
            working = pool.submit(work)
            assert not there.wait(0.1)
        assert there.wait(60)
        with rounded_products():
            assert torch.get_float32_matmul_precision() == "highest"
        leave.set()
        assert working.result() == "highest"
        with rounded_products():
            assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_precision_of_products_is_the_callers_again_after_many_threads():
    def work(_number: int) -> None:
        for _ in range(50):
            with plain():
                add_second_moment(torch.zeros(8, 8), torch.randn(4, 8).bfloat16())

    torch.set_float32_matmul_precision("high")
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(8)))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
