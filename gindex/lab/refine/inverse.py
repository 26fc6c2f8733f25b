"""Inverses of damped curvature behind one interface: factors, the dense matrix, conjugate gradients, LiSSA.

    FactoredInverse     EK-FAC or another kind               one product with the factors of each layer
    DenseInverse        the exact Gauss-Newton matrix        small models; the reference
    CgInverse           the same, by products                any model, minutes where factors take a second
    LissaInverse        the same, a batch at a time          the same, noisier

Damping is the same for all: in each layer a multiple of the mean of its Lambda. So they give the same where the
curvature is what the factors say.

Axes: Q vectors, W tracked weights.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from gindex.curvature.ekfac import FactorLoader
from gindex.lab.refine.config import LissaConfig, SolverConfig
from gindex.lab.refine.gauss_newton import Curvature, dense_matrix
from gindex.lab.refine.solvers import Product, Solution, conjugate_gradients, lissa
from gindex.model.layers import TrackedLayer
from gindex.model.passes import neutral
from gindex.vectors.influence import WeightSpace


class InverseCurvature(Protocol):
    """The inverse of a damped curvature."""

    def apply(self, b_QW: Tensor) -> Tensor:
        """The inverse times each vector [Q, W]."""
        ...


class SplitCurvature(Curvature, Protocol):
    """A curvature that is the mean of batches."""

    @property
    def batches(self) -> Sequence[object]:
        """The batches."""
        ...

    def batch_product(self, v_QW: Tensor, number: int) -> Tensor:
        """The curvature of one batch times each vector [Q, W]."""
        ...


class Damping:
    """Damping of every layer: a diagonal matrix [W, W]."""

    def __init__(self, layers: Sequence[TrackedLayer], factors: FactorLoader, scale: float) -> None:
        """Read each layer's mean eigenvalue; `scale` is the multiple of it."""
        self._space = WeightSpace(layers)
        self._damping = {layer.name: factors(layer.name).damping(scale) for layer in layers}

    def add(self, product_QW: Tensor, v_QW: Tensor) -> Tensor:
        """Add the damping times vectors [Q, W] to their product with a curvature [Q, W], in place."""
        parts = self._space.split(product_QW)
        for name, v_QOI in self._space.split(v_QW).items():
            parts[name].add_(v_QOI, alpha=self._damping[name])
        return product_QW


class FactoredInverse:
    """The inverse that EK-FAC's factors, or those of another kind, stand for: `InverseCurvature`."""

    def __init__(self, layers: Sequence[TrackedLayer], factors: FactorLoader, damping_scale: float) -> None:
        """Take the factors of the tracked layers."""
        self._layers, self._space = layers, WeightSpace(layers)
        self._factors, self._damping_scale = factors, damping_scale

    @neutral()
    def apply(self, b_QW: Tensor) -> Tensor:
        """The inverse times each vector [Q, W]; one layer's factors are held at a time."""
        result_QW = torch.empty_like(b_QW)
        results, parts = self._space.split(result_QW), self._space.split(b_QW)
        for layer in self._layers:
            factors = self._factors(layer.name)
            results[layer.name].copy_(factors.precondition(factors.rotate(parts[layer.name]), self._damping_scale))
        return result_QW


class DenseInverse:
    """The inverse of a curvature's whole matrix: `InverseCurvature`."""

    @neutral()
    def __init__(self, curvature: Curvature, damping: Damping, like: Tensor) -> None:
        """Form the matrix and decompose it, in float64.

        Args:
            curvature: The curvature.
            damping: Its damping.
            like: A vector [Q, W] whose number format the products take.

        Raises:
            ConfigError: There are too many weights.
        """
        weights = like.shape[1]
        matrix_WW = dense_matrix(curvature, weights, like).double()
        identity_WW = torch.eye(weights, dtype=torch.float64, device=like.device)
        self._factor = torch.linalg.cholesky(damping.add(matrix_WW, identity_WW))

    @neutral()
    def apply(self, b_QW: Tensor) -> Tensor:
        """The inverse times each vector [Q, W]."""
        return torch.cholesky_solve(b_QW.double().T, self._factor).T.to(b_QW.dtype)


class CgInverse:
    """Conjugate gradients on a curvature's products, preconditioned: `InverseCurvature`."""

    def __init__(
        self, curvature: Curvature, damping: Damping, config: SolverConfig, preconditioner: InverseCurvature | None
    ) -> None:
        """Take the curvature, and what approximates its inverse; plain conjugate gradients where that is None."""
        self._curvature, self._damping, self._config = curvature, damping, config
        self._precondition = _precondition_of(preconditioner)

    @neutral()
    def apply(self, b_QW: Tensor) -> Tensor:
        """The inverse times each vector [Q, W], as closely as the iterations come."""
        return self.solve(b_QW.clone()).x_QW

    @neutral()
    def solve(self, b_QW: Tensor) -> Solution:
        """The same with what the solver reports; the vectors are overwritten."""
        return conjugate_gradients(
            lambda v_QW: self._damping.add(self._curvature.product(v_QW), v_QW),
            b_QW,
            self._precondition,
            iterations=self._config.iterations,
            tolerance=self._config.tolerance,
        )


class LissaInverse:
    """LiSSA on a curvature's batches, preconditioned: `InverseCurvature`."""

    def __init__(
        self,
        curvature: SplitCurvature,
        damping: Damping,
        config: LissaConfig,
        preconditioner: InverseCurvature | None,
    ) -> None:
        """Take the curvature, and what approximates its inverse; Koh & Liang's LiSSA where that is None."""
        self._curvature, self._damping, self._config = curvature, damping, config
        self._precondition = _precondition_of(preconditioner)

    @neutral()
    def apply(self, b_QW: Tensor) -> Tensor:
        """The inverse times each vector [Q, W], as closely as the iterations come."""
        return self.solve(b_QW).x_QW

    @neutral()
    def solve(self, b_QW: Tensor) -> Solution:
        """The same with what the solver reports.

        Raises:
            DivergenceError: The iterates grow, or end further from the solution than 0 is.
        """
        return lissa(
            lambda v_QW, number: self._damping.add(self._curvature.batch_product(v_QW, number), v_QW),
            len(self._curvature.batches),
            b_QW,
            self._precondition,
            iterations=self._config.iterations,
            tolerance=self._config.tolerance,
            scale=self._config.scale,
        )


def iterative_inverse(
    curvature: SplitCurvature, damping: Damping, config: SolverConfig, preconditioner: InverseCurvature | None
) -> CgInverse | LissaInverse:
    """The inverse by the configured solver; see the classes."""
    if isinstance(config, LissaConfig):
        return LissaInverse(curvature, damping, config, preconditioner)
    return CgInverse(curvature, damping, config, preconditioner)


def _precondition_of(preconditioner: InverseCurvature | None) -> Product:
    return torch.clone if preconditioner is None else preconditioner.apply
