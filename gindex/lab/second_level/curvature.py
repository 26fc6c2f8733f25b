"""The second level of curvature: what EK-FAC leaves of the curvature, repaired in the projected space.

EK-FAC knows nothing of correlations across layers, nor of what is not Kronecker-shaped. With C = E[v v^T], the second
moment of the projected, whitened gradients v [D], documents and queries are multiplied by

    R = ((C / c + mu I) / (1 + mu))^-1/2,  c = tr(C) / D,

that is (C + mu c I)^-1/2 in a unit in which R = I where C is a multiple of the identity. As R is symmetric, the scores
<R q, R v> are also <R^2 q, v>.

C is D x D, so above a few thousand dimensions it is never formed. Its product Y = C B with a fixed basis B [D, K] is
a sum over vectors like C itself, so it does not depend on order or batches, and merges by addition. From it the K
leading directions follow by Nystroem's approximation C ~ Y (B^T Y)^+ Y^T, which is exact where the rank of C is at
most K; a second pass with B = the directions of the first (subspace iteration) sharpens it. What is outside of them is
taken as isotropic, with the trace that is left.

Cost: 2 D K multiply-adds a vector and pass, as many to apply R or R^2; memory 32 D K bytes while fitting (1 GB at
D = 30,720 and K = 1,024).

Axes: N vectors, D dimension, K directions.

Source: Tropp et al. 2017, arXiv:1706.05736, algorithm 3; Halko et al. 2011, arXiv:0909.4061.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from gindex.curvature.eigenbasis import eigenbasis
from gindex.errors import ConfigError, NonFiniteError, ShapeError
from gindex.lab.second_level.config import SecondLevelConfig
from gindex.options import default_of

DENSE_DIMENSION = 2048
"""Largest dimension at which C is formed and decomposed as a whole: seconds; it grows with the cube."""

RANK = 1024
"""Leading directions above that."""

SPARE = 16
"""Directions looked for beyond the number of vectors: a random basis of as many columns may miss the last ones."""

PASSES = 2
"""Passes over the vectors above that; one up to it."""

MU = float(default_of(SecondLevelConfig, "mu"))
"""Share of C's mean eigenvalue that is added to all of them."""


class SecondMoment:
    """A running sum of C B, and of C's trace; C itself where there is no basis.

    Attributes:
        basis_DK: B; None stands for the identity.
        product_DK: The sum of v v^T B, float64.
        trace: The sum of |v|^2.
    """

    def __init__(self, dimension: int, basis_DK: Tensor | None = None, device: torch.device | str = "cpu") -> None:
        """Start at zero.

        Args:
            dimension: D.
            basis_DK: B, of any float format and device; None for the identity, that is for C itself.
            device: Where to sum, without a basis.
        """
        width, place = (dimension, device) if basis_DK is None else (basis_DK.shape[1], basis_DK.device)
        self.basis_DK = basis_DK
        self.product_DK = torch.zeros(dimension, width, dtype=torch.float64, device=place)
        self.trace = 0.0

    def add(self, vectors_ND: Tensor) -> None:
        """Add vectors [N, D].

        Raises:
            ShapeError: They have another dimension.
            NonFiniteError: One holds a NaN or an infinity.
        """
        if vectors_ND.dim() != 2 or vectors_ND.shape[1] != len(self.product_DK):
            raise ShapeError(expected=f"vectors [N, {len(self.product_DK)}]", found=list(vectors_ND.shape))
        squares = float(vectors_ND.double().square().sum())
        if not squares < float("inf"):
            raise NonFiniteError(
                field="second level",
                expected="finite vectors",
                found="NaN or infinity",
                remedy="leave those documents out",
            )
        seen = vectors_ND if self.basis_DK is None else vectors_ND @ self.basis_DK.to(vectors_ND.dtype)
        self.product_DK += vectors_ND.T @ seen
        self.trace += squares

    def merge(self, other: "SecondMoment") -> None:
        """Add what another one has summed.

        Raises:
            ShapeError: It has another basis.
        """
        if not _equal(self.basis_DK, other.basis_DK) or len(self.product_DK) != len(other.product_DK):
            raise ShapeError(field="second level", expected="a sum with the same basis", found="another one")
        self.product_DK += other.product_DK
        self.trace += other.trace


@dataclass(frozen=True, kw_only=True, eq=False)
class SecondLevel:
    """R, ready to be applied.

    Attributes:
        directions_KD: Leading eigenvectors of C as rows, orthonormal.
        values_K: Their eigenvalues in units of C's mean eigenvalue, largest first, float64.
        rest: Mean eigenvalue of all other directions, in the same unit.
        mu: What is added to every eigenvalue, in the same unit.
    """

    directions_KD: Tensor
    values_K: Tensor
    rest: float
    mu: float

    def apply(self, vectors_ND: Tensor, power: int = 1) -> Tensor:
        """R v, or R^2 v with `power` 2, of vectors [N, D], in their format and on their device."""
        outer = ((1 + self.mu) / (self.rest + self.mu)) ** (power / 2)
        inner_K = ((1 + self.mu) / (self.values_K + self.mu)) ** (power / 2) - outer
        directions_KD = self.directions_KD.to(vectors_ND)
        along_NK = vectors_ND @ directions_KD.T
        return torch.addmm(vectors_ND, along_NK * inner_K.to(vectors_ND), directions_KD, beta=outer)


def second_level(moment: SecondMoment, mu: float = MU, rank: int | None = None) -> SecondLevel:
    """R for a second moment.

    Args:
        moment: The sums.
        mu: What is added to every eigenvalue, in units of their mean.
        rank: Most directions to keep; None keeps all that the sums give.

    Returns:
        R; the identity where all vectors were zero.

    Raises:
        ConfigError: mu is not positive.
        NonFiniteError: No eigendecomposition converged.
    """
    SecondLevelConfig(mu=mu)  # checks it
    dimension, mean = len(moment.product_DK), moment.trace / len(moment.product_DK)
    values_K, directions_DK = leading_directions(moment)
    values_K, directions_DK = values_K[:rank] / (mean or 1.0), directions_DK[:, :rank]
    left = dimension - len(values_K)
    rest = max(0.0, dimension - float(values_K.sum())) / left if left else 0.0
    return SecondLevel(directions_KD=directions_DK.T.contiguous(), values_K=values_K, rest=rest, mu=mu)


def leading_directions(moment: SecondMoment) -> tuple[Tensor, Tensor]:
    """The eigenvalues [K] of the sum, largest first, and its eigenvectors [D, K], both float64.

    With a basis those of Nystroem's approximation, without directions that are rounding; none where the sum is zero.
    """
    Y_DK, B_DK = moment.product_DK, moment.basis_DK
    if B_DK is None or not moment.trace:
        return eigenbasis(Y_DK, "second level") if moment.trace else (Y_DK[0, :0], Y_DK[:, :0])
    # Products were taken in the basis's format: what is below its rounding is no direction of the vectors.
    rounding = 16 * torch.finfo(B_DK.dtype).eps
    g_K, W_KK = eigenbasis(B_DK.double().T @ Y_DK, "second level")
    sound = g_K > g_K[0] * rounding
    F_DK = Y_DK @ (W_KK[:, sound] / g_K[sound].sqrt())  # C ~ F F^T
    values_K, Z_KK = eigenbasis(F_DK.T @ F_DK, "second level")
    sound = values_K > values_K[0] * rounding
    return values_K[sound], F_DK @ (Z_KK[:, sound] / values_K[sound].sqrt())


def fit_second_level(
    blocks: Callable[[], Iterable[Tensor]],
    dimension: int,
    mu: float = MU,
    *,
    count: int | None = None,
    rank: int = RANK,
    passes: int | None = None,
) -> SecondLevel:
    """R for vectors that are given in blocks, as often as asked for.

    Args:
        blocks: Gives the vectors, float32 [N, D] each, from the first on.
        dimension: D. Up to `DENSE_DIMENSION`, C is formed.
        mu: See `second_level`.
        count: How many vectors there are, where that is known: fewer directions then may be enough.
        rank: Most directions K, above that.
        passes: Passes over the vectors; None takes as many as suit the dimension.

    Raises:
        ConfigError: mu, rank or passes is not positive.
        NonFiniteError: A vector is not finite.
    """
    passes = suited_passes(dimension) if passes is None else passes
    if rank < 1 or passes < 1:
        raise ConfigError(
            field="second level", expected="a rank and passes of at least 1", found=f"{rank} and {passes}"
        )
    basis_DK = (
        None
        if dimension <= DENSE_DIMENSION
        else first_basis(dimension, rank if count is None else min(rank, count + SPARE))
    )
    for number in range(passes):
        moment = SecondMoment(dimension, basis_DK)
        for vectors_ND in blocks():
            moment.add(vectors_ND)
        if basis_DK is None or number == passes - 1:
            break
        if moment.trace:
            basis_DK = leading_directions(moment)[1].float()
    return second_level(moment, mu)


def suited_passes(dimension: int) -> int:
    """Number of passes over vectors of D dimensions."""
    return 1 if dimension <= DENSE_DIMENSION else PASSES


def first_basis(dimension: int, rank: int, seed: int = 0) -> Tensor:
    """A random basis [D, K], float32, that no vector was looked at for; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    shape = dimension, min(rank, dimension)
    basis_DK: Tensor = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    return basis_DK.div_(dimension**0.5)


def _equal(first: Tensor | None, second: Tensor | None) -> bool:
    return first is second or (first is not None and second is not None and torch.equal(first, second))
