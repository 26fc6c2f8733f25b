"""Second moments of values with few digits, summed in a format with many."""

from contextlib import nullcontext

import torch
from torch import Tensor

from gindex.model.passes import rounded_products

COLUMNS = 384
"""Columns of the blocks that a symmetric product is made of."""


def add_second_moment(moment_XX: Tensor, x_MX: Tensor) -> None:
    """Add x^T x to the upper triangle of a second moment [X, X] in place, in the moment's number format.

    Only blocks on and above the diagonal are computed, so what lies below it is left unfinished: see `symmetric`.

    Args:
        moment_XX: The sum so far, float32 or wider.
        x_MX: Values [M, X]. Those of bfloat16 are multiplied as such, without an error, and summed in float32.
    """
    x = x_MX.to(moment_XX.dtype)
    with rounded_products() if x_MX.dtype == torch.bfloat16 else nullcontext():
        for start in range(0, len(moment_XX), COLUMNS):
            moment_XX[start : start + COLUMNS, start:].addmm_(x[:, start : start + COLUMNS].T, x[:, start:])


def symmetric(moment_XX: Tensor) -> Tensor:
    """The whole matrix [X, X] of which `add_second_moment` filled the upper triangle."""
    return moment_XX.triu() + moment_XX.triu(1).T
