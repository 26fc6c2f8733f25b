"""The number format that the products of an exact re-rank run in.

A re-rank multiplies the gradients of queries with those of documents. Processors with instructions for bfloat16 do that
two to eight times as fast as in float32. Sums stay float32; what the rounding of factors costs is said in
docs/decisions/0017-held-queries.md. The passes over the model themselves are not touched.
"""

import platform
from functools import cache
from pathlib import Path

import torch

LEAST_VALUES = 1 << 16
"""Values of the smallest matrix that is rounded: products of smaller ones are not faster."""

INSTRUCTIONS = frozenset({"avx512_bf16", "amx_bf16"})
"""Instructions of x86 that multiply bfloat16, as Linux calls them."""


def product_format(dtype: torch.dtype, device: torch.device, values: int) -> torch.dtype:
    """The format in which a matrix is multiplied: bfloat16 for a large one of float32 where that is faster.

    Args:
        dtype: Format of the matrix.
        device: Where it is.
        values: How many values it has.
    """
    if dtype == torch.float32 and device.type == "cpu" and values >= LEAST_VALUES and multiplies_bfloat16():
        return torch.bfloat16
    return dtype


@cache
def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16."""
    listed = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not listed.is_file():
        return False
    flags = next((line for line in listed.read_text().splitlines() if line.startswith("flags")), "")
    return not INSTRUCTIONS.isdisjoint(flags.split())
