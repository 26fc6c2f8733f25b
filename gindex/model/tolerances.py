"""Comparison of tensors up to rounding."""

import torch
from torch import Tensor

PRODUCT_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
"""Largest relative difference of two products of the same factors: summed in another order, in TF32 at worst."""

ROUNDED_TOLERANCE = 5e-3
"""The same in 16 bits: rounded to 8 bits, which moves a value by .4% at most."""


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return |found - expected| / |expected|, 0 where they are equal, without values that are finite in neither."""
    wide = torch.promote_types(expected.dtype, torch.float32)
    difference = torch.where(expected.isfinite() | found.isfinite(), found.to(wide) - expected.to(wide), 0)
    error = float(torch.linalg.vector_norm(difference))
    return error / float(torch.linalg.vector_norm(expected.nan_to_num(0, 0, 0), dtype=wide)) if error else 0.0


def is_same_product(found: Tensor, expected: Tensor) -> bool:
    """Say whether two outputs are the same product of the same factors, but for rounding.

    Args:
        found: A model's output.
        expected: The product that it should be; its number format decides what counts as rounding.
    """
    error = relative_error(found, expected)
    return error <= PRODUCT_TOLERANCE.get(expected.dtype, ROUNDED_TOLERANCE)
