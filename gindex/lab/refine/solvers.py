"""Solving (C + damping) x = b with products alone: conjugate gradients and LiSSA.

Both take a preconditioner M, an approximation of the inverse, and begin at M b: where it is the inverse, they end
there too. The residual r = b - (C + damping) x is measured as the root of <r, M r> / <b, M b>: the change that M still
asks for, relative to the first.

Axes: Q vectors, W weights.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gindex.errors import DivergenceError

Product = Callable[[Tensor], Tensor]
"""Multiplies vectors [Q, W] with a symmetric positive matrix."""

GROWTH_LIMIT = 1e6
"""How many times its first iterate LiSSA may grow to before it counts as diverging."""

SCALE_STEPS, SCALE_MARGIN = 10, 1.5
"""Products that find LiSSA's scale, and the margin over the largest growth seen in them."""

CHUNK = 1 << 22
"""Weights that are multiplied at once, which bounds the memory of inner products."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """What a solver found.

    Attributes:
        x_QW: The solutions.
        iterations: Products with the curvature that went into each, Q numbers.
        residuals: Relative residual of each, Q numbers.
        converged: Whether each residual is within the tolerance, Q values.
    """

    x_QW: Tensor
    iterations: list[int]
    residuals: list[float]
    converged: list[bool]


def conjugate_gradients(
    product: Product, b_QW: Tensor, precondition: Product, *, iterations: int, tolerance: float
) -> Solution:
    """Solve by preconditioned conjugate gradients, for all vectors at once.

    Each iterate has the least error, in the norm of the matrix, of all that as many products can reach: where the
    tolerance isn't reached, the last is the best. A step whose curvature comes out negative or not finite, as rounding
    can make it near convergence, is not taken, and that vector is left as it is.

    Args:
        product: Multiplies with C + damping.
        b_QW: Right-hand sides; overwritten with the residuals.
        precondition: Multiplies with M; the identity gives plain conjugate gradients.
        iterations: Most products; none leaves M b.
        tolerance: Relative residual to reach.

    Source: Hestenes & Stiefel 1952; Saad 2003, algorithm 9.1.
    """
    r_QW = b_QW
    z_QW = precondition(r_QW)
    first_Q = _dots(r_QW, z_QW)
    rz_Q = first_Q.clone()
    if not iterations:
        residuals_Q = _residuals(r_QW - product(z_QW), first_Q, precondition)
        return _solution(z_QW, [0] * len(b_QW), residuals_Q, tolerance)
    x_QW, p_QW = torch.zeros_like(b_QW), z_QW.clone()
    taken = [0] * len(b_QW)
    open_queries = [q for q in range(len(b_QW)) if first_Q[q] > 0]
    for _ in range(iterations):
        if not open_queries:
            break
        curved_QW = product(p_QW[open_queries])
        curvature_Q = _dots(p_QW[open_queries], curved_QW)
        for position, q in enumerate(open_queries):
            if 0 < curvature_Q[position] < float("inf"):
                alpha = float(rz_Q[q] / curvature_Q[position])
                x_QW[q].add_(p_QW[q], alpha=alpha)
                r_QW[q].sub_(curved_QW[position], alpha=alpha)
                taken[q] += 1
        stuck = {q for position, q in enumerate(open_queries) if not 0 < curvature_Q[position] < float("inf")}
        del curved_QW
        open_queries = [q for q in open_queries if q not in stuck]
        if not open_queries:
            break
        z_QW = precondition(r_QW[open_queries])
        fresh_Q = _dots(r_QW[open_queries], z_QW)
        for position, q in enumerate(open_queries):
            p_QW[q].mul_(float(fresh_Q[position] / rz_Q[q])).add_(z_QW[position])
            rz_Q[q] = fresh_Q[position]
        open_queries = [q for q in open_queries if rz_Q[q] > tolerance**2 * first_Q[q]]
    return _solution(x_QW, taken, _relative(rz_Q, first_Q), tolerance)


def lissa(
    batch_product: Callable[[Tensor, int], Tensor],
    batches: int,
    b_QW: Tensor,
    precondition: Product,
    *,
    iterations: int,
    tolerance: float,
    scale: float | None = None,
) -> Solution:
    """Solve by LiSSA: x <- x + M (b - (C_j + damping) x) / scale, with the curvature of one batch an iteration.

    With M the identity this is what Koh & Liang use. The batches come in turn; the iterates of the second half are
    averaged, which takes out what single batches add to them.

    Args:
        batch_product: Multiplies with C_j + damping, by the number j of a batch; their mean is C + damping.
        batches: How many batches there are.
        b_QW: Right-hand sides.
        precondition: Multiplies with M.
        iterations: Iterations; none leaves M b.
        tolerance: Relative residual that counts as converged.
        scale: Must be above half the largest eigenvalue of M (C_j + damping); None has it estimated.

    Raises:
        DivergenceError: The iterates grow, or end further from the solution than 0 is.

    Source: Agarwal et al. 2017, arXiv:1602.03943; Koh & Liang 2017, arXiv:1703.04730.
    """
    x_QW = precondition(b_QW)
    first_Q, largest = _dots(b_QW, x_QW), float(x_QW.abs().max())
    if scale is None:
        scale = SCALE_MARGIN * _growth(batch_product, batches, x_QW, precondition) if iterations else 1.0
    mean_QW, averaged = torch.zeros_like(x_QW), 0
    for step in range(iterations):
        x_QW = x_QW + precondition(b_QW - batch_product(x_QW, step % batches)) / scale
        if not float(x_QW.abs().max()) <= GROWTH_LIMIT * largest:
            raise _diverged("infinity", step + 1, scale)
        if step >= iterations // 2:
            mean_QW += x_QW
            averaged += 1
    if averaged:
        x_QW = mean_QW / averaged
    r_QW = b_QW.clone()
    for number in range(batches):
        r_QW.sub_(batch_product(x_QW, number), alpha=1 / batches)
    residuals_Q = _residuals(r_QW, first_Q, precondition)
    if iterations and not bool((residuals_Q <= 1).all()):
        raise _diverged(f"{float(residuals_Q.max()):.3g}", iterations, scale)
    return _solution(x_QW, [iterations] * len(b_QW), residuals_Q, tolerance)


def _growth(
    batch_product: Callable[[Tensor, int], Tensor], batches: int, start_QW: Tensor, precondition: Product
) -> float:
    """Estimate the largest eigenvalue of M (C_j + damping) over the batches, by power iteration through them."""
    v_1W, largest = start_QW[:1], 0.0
    for step in range(SCALE_STEPS):
        v_1W = v_1W / v_1W.norm().clamp(min=torch.finfo(v_1W.dtype).tiny)
        v_1W = precondition(batch_product(v_1W, step % batches))
        largest = max(largest, float(v_1W.norm()))
    return largest or 1.0


def _diverged(found: str, iterations: int, scale: float) -> DivergenceError:
    return DivergenceError(
        field="LiSSA",
        expected="a relative residual below 1",
        found=f"{found} after {iterations} iterations at scale {scale:.3g}",
        remedy="raise the scale (`refine_scale`) or the damping, or take conjugate gradients (`refine` cg)",
    )


def _dots(x_QW: Tensor, y_QW: Tensor) -> Tensor:
    """Inner products [Q], summed in float64."""
    total_Q = x_QW.new_zeros(len(x_QW), dtype=torch.float64)
    for x, y in zip(x_QW.split(CHUNK, 1), y_QW.split(CHUNK, 1), strict=True):
        total_Q += (x * y).sum(1, dtype=torch.float64)
    return total_Q


def _residuals(r_QW: Tensor, first_Q: Tensor, precondition: Product) -> Tensor:
    return _relative(_dots(r_QW, precondition(r_QW)), first_Q)


def _relative(rz_Q: Tensor, first_Q: Tensor) -> Tensor:
    """Relative residuals [Q]; 0 where there was nothing to solve."""
    return torch.where(first_Q > 0, rz_Q.clamp(min=0) / first_Q, torch.zeros_like(rz_Q)).sqrt()


def _solution(x_QW: Tensor, iterations: list[int], residuals_Q: Tensor, tolerance: float) -> Solution:
    residuals = residuals_Q.tolist()
    return Solution(
        x_QW=x_QW,
        iterations=iterations,
        residuals=residuals,
        converged=[residual <= tolerance for residual in residuals],
    )
