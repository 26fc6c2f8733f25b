"""Inverse curvature: solvers against dense algebra, approximations in the order that theory gives them, in float64."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gindex.config import CURVATURES
from gindex.errors import ConfigError, DivergenceError
from gindex.lab.attribution import Attribution, tracked_layers
from gindex.lab.refine.config import CgConfig, LissaConfig
from gindex.lab.refine.gauss_newton import GaussNewton, dense_matrix
from gindex.lab.refine.inverse import CgInverse, Damping, LissaInverse
from gindex.lab.refine.solvers import conjugate_gradients
from gindex.model.tensor_batches import TensorBatch, tensor_batches
from gindex.model.tensor_tasks import Classification
from gindex.search_options import SearchOptions
from gindex.vectors.influence import WeightSpace

WIDE = torch.float64
DOCUMENTS, QUERIES, SCALE = 60, 4, 0.3
CONFIGS = {"cg": CgConfig, "lissa": LissaConfig}


class Setting:
    """A classifier of width 6 with unequal, correlated inputs, its documents, queries and fits."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6, bias=False), nn.Tanh(), nn.Linear(6, 3))
        x = torch.randn(DOCUMENTS + QUERIES, 5, dtype=WIDE) @ torch.randn(5, 5, dtype=WIDE)
        y = torch.randint(3, (len(x),))
        self.task = Classification(model.double())
        self.documents = tensor_batches(x[:DOCUMENTS], y[:DOCUMENTS], 20)
        self.queries = tensor_batches(x[DOCUMENTS:], y[DOCUMENTS:], 3)
        self.layers = tracked_layers(self.task, self.documents)
        self.size = WeightSpace(self.layers).size
        self.b_QW = torch.randn(QUERIES, self.size, dtype=WIDE)
        # Labels are sampled anew for each copy of a document: factors with less noise of their own.
        copies = [
            TensorBatch(inputs=b.inputs, labels=b.labels, ordinals=b.ordinals + DOCUMENTS * copy)
            for copy in range(30)
            for b in self.documents
        ]
        self.fits = {kind: Attribution.fit(self.task, self.layers, copies, kind, seed=3) for kind in CURVATURES.names()}
        self.ekfac = self.fits["ekfac"]

    def dense(self) -> Tensor:
        """Return C + damping [W, W]."""
        matrix = dense_matrix(GaussNewton(self.layers, self.task, self.documents), self.size, self.b_QW)
        damping = Damping(self.layers, self.ekfac.factors.__getitem__, SCALE)
        return damping.add(matrix, torch.eye(self.size, dtype=WIDE))


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting()


class Factored:
    """A curvature that is what factors say, two batches that are alike: `SplitCurvature`."""

    batches = (0, 1)

    def __init__(self, setting: Setting) -> None:
        self.space = WeightSpace(setting.layers)
        self.factors = setting.ekfac.factors

    def product(self, v_QW: Tensor) -> Tensor:
        parts = self.space.split(v_QW)
        return self.space.join(
            {n: f.Q_S.matrix() @ (f.rotate(parts[n]) * f.Lambda) @ f.Q_A.matrix().T for n, f in self.factors.items()}
        )

    def batch_product(self, v_QW: Tensor, number: int) -> Tensor:
        assert number in self.batches
        return self.product(v_QW)


def test_damping_is_a_multiple_of_each_layers_mean_eigenvalue(setting):
    added = Damping(setting.layers, setting.ekfac.factors.__getitem__, SCALE).add(
        torch.zeros_like(setting.b_QW), setting.b_QW
    )
    parts, given = WeightSpace(setting.layers).split(added), WeightSpace(setting.layers).split(setting.b_QW)
    means = [float(setting.ekfac.factors[layer.name].Lambda.mean()) for layer in setting.layers]
    for layer, mean in zip(setting.layers, means, strict=True):
        torch.testing.assert_close(parts[layer.name], SCALE * mean * given[layer.name])
    assert max(means) > 1.1 * min(means)  # else one damping for all would pass


def test_the_dense_inverse_is_that_of_dense_algebra(setting):
    expected = torch.linalg.solve(setting.dense(), setting.b_QW.T).T
    torch.testing.assert_close(setting.ekfac.dense_inverse(setting.documents, SCALE).apply(setting.b_QW), expected)


@pytest.mark.parametrize("preconditioned", [True, False])
def test_conjugate_gradients_converge_to_the_dense_inverse(setting, preconditioned):
    inverse = cg_inverse(setting, CgConfig(iterations=2 * setting.size, tolerance=1e-9), preconditioned)
    solution = inverse.solve(setting.b_QW.clone())
    expected = setting.ekfac.dense_inverse(setting.documents, SCALE).apply(setting.b_QW)
    torch.testing.assert_close(solution.x_QW, expected, rtol=1e-6, atol=1e-7)
    assert all(solution.converged) and max(solution.residuals) <= 1e-9


def test_ekfac_before_them_saves_conjugate_gradients_iterations(setting):
    """After four, the error in the norm of the matrix was .20 and .54 of the solution's size."""
    exact = setting.dense()
    expected = torch.linalg.solve(exact, setting.b_QW.T).T
    errors = []
    for preconditioned in (True, False):
        x_QW = cg_inverse(setting, CgConfig(iterations=4, tolerance=1e-9), preconditioned).apply(setting.b_QW)
        errors.append(float(((x_QW - expected) @ exact * (x_QW - expected)).sum().sqrt()))
    assert errors[0] < errors[1] / 2


def cg_inverse(setting, config, preconditioned):
    return CgInverse(
        GaussNewton(setting.layers, setting.task, setting.documents),
        Damping(setting.layers, setting.ekfac.factors.__getitem__, SCALE),
        config,
        setting.ekfac.factored_inverse(SCALE) if preconditioned else None,
    )


def test_conjugate_gradients_that_are_cut_short_report_it_and_are_nearer_with_each_step(setting):
    exact = setting.dense()
    expected = torch.linalg.solve(exact, setting.b_QW.T).T
    errors = []
    for iterations in (0, 1, 3, 6):
        config = CgConfig(iterations=iterations, tolerance=1e-12)
        solution = setting.ekfac.iterative_inverse(setting.documents, SCALE, config).solve(setting.b_QW.clone())
        assert solution.iterations == [iterations] * QUERIES and not any(solution.converged)
        left = solution.x_QW - expected
        errors.append((left @ exact * left).sum(1))  # in the norm that conjugate gradients minimise
        r = setting.b_QW - solution.x_QW @ exact
        M = setting.ekfac.factored_inverse(SCALE)
        true = ((r * M.apply(r)).sum(1) / (setting.b_QW * M.apply(setting.b_QW)).sum(1)).sqrt()
        torch.testing.assert_close(torch.tensor(solution.residuals, dtype=WIDE), true, rtol=1e-6, atol=1e-9)
    assert all((later < earlier).all() for earlier, later in itertools.pairwise(errors))


def test_queries_are_solved_alike_alone_and_together_with_others_that_end_earlier(setting):
    config = CgConfig(iterations=30, tolerance=1e-2)
    b = setting.b_QW.clone()
    b[1] = 0  # nothing to solve
    b[2] = setting.dense() @ setting.ekfac.factored_inverse(SCALE).apply(torch.ones(1, setting.size, dtype=WIDE))[0]
    inverse = setting.ekfac.iterative_inverse(setting.documents, SCALE, config)
    together = inverse.solve(b.clone())
    assert together.iterations[1] == 0 and not together.x_QW[1].any() and together.residuals[1] == 0
    assert len(set(together.iterations)) > 2
    for query in range(QUERIES):
        alone = inverse.solve(b[query : query + 1].clone())
        torch.testing.assert_close(alone.x_QW[0], together.x_QW[query], rtol=1e-8, atol=1e-10)


def test_a_matrix_that_is_not_positive_leaves_the_best_iterate():
    def product(v_QW: Tensor) -> Tensor:
        return v_QW * torch.tensor([2.0, 1.0, -1.0], dtype=WIDE)

    b = torch.tensor([[4.0, 1.0, 1e-9], [0.0, 0.0, 1.0]], dtype=WIDE)
    solution = conjugate_gradients(product, b.clone(), torch.clone, iterations=9, tolerance=1e-15)
    torch.testing.assert_close(solution.x_QW[0, :2], torch.tensor([2.0, 1.0], dtype=WIDE))
    assert not solution.converged[0] and solution.x_QW.isfinite().all()
    assert solution.iterations[1] == 0 and solution.residuals[1] == 1.0


@pytest.mark.parametrize("method", ["cg", "lissa"])
@pytest.mark.parametrize("iterations", [0, 1, 8])
def test_where_the_curvature_is_ekfac_all_give_what_ekfac_gives(setting, method, iterations):
    config = CONFIGS[method](iterations=iterations, tolerance=1e-9)
    damping = Damping(setting.layers, setting.ekfac.factors.__getitem__, SCALE)
    plain = setting.ekfac.factored_inverse(SCALE)
    made = CgInverse if method == "cg" else LissaInverse
    solution = made(Factored(setting), damping, config, plain).solve(setting.b_QW.clone())
    torch.testing.assert_close(solution.x_QW, plain.apply(setting.b_QW), rtol=1e-9, atol=1e-11)
    assert max(solution.residuals) < 1e-9 and all(solution.converged)


@pytest.mark.parametrize("preconditioned", [True, False])
def test_lissa_converges_to_the_dense_inverse(setting, preconditioned):
    """As far as the batches let it: their differences stay in the iterates, and the average leaves a few per cent."""
    scale = 10.0  # a strong damping, so that the plain series converges within a test's time
    expected = setting.ekfac.dense_inverse(setting.documents, scale).apply(setting.b_QW)
    errors = []
    for iterations in (3, 90):
        inverse = LissaInverse(
            GaussNewton(setting.layers, setting.task, setting.documents),
            Damping(setting.layers, setting.ekfac.factors.__getitem__, scale),
            LissaConfig(iterations=iterations),
            setting.ekfac.factored_inverse(scale) if preconditioned else None,
        )
        errors.append(float((inverse.apply(setting.b_QW) - expected).norm() / expected.norm()))
    assert errors[1] < 0.03 and errors[1] < errors[0] / 3


def test_lissa_on_one_batch_converges_fully(setting):
    x, y = (torch.cat([getattr(b, name) for b in setting.documents]) for name in ("inputs", "labels"))
    whole = tensor_batches(x, y, DOCUMENTS)
    config = LissaConfig(iterations=200, tolerance=1e-4)
    solution = setting.ekfac.iterative_inverse(whole, 10.0, config).solve(setting.b_QW)
    expected = setting.ekfac.dense_inverse(whole, 10.0).apply(setting.b_QW)
    torch.testing.assert_close(solution.x_QW, expected, rtol=1e-3, atol=1e-3)
    assert all(solution.converged)


@pytest.mark.parametrize("iterations", [4, 200])
def test_lissa_that_diverges_names_the_scale_and_the_damping(setting, iterations):
    config = LissaConfig(iterations=iterations, scale=0.05)
    inverse = setting.ekfac.iterative_inverse(setting.documents, SCALE, config)
    with pytest.raises(DivergenceError, match=r"scale 0.05; raise the scale \(`refine_scale`\) or the damping"):
        inverse.apply(setting.b_QW)


def test_ekfac_is_nearer_to_the_exact_matrix_than_kfac_than_diagonal(setting):
    """In the Frobenius norm of each layer's block, where George et al. prove it: the same basis, the best diagonal."""
    exact = dense_matrix(GaussNewton(setting.layers, setting.task, setting.documents), setting.size, setting.b_QW)
    start = 0
    for layer in setting.layers:
        block = exact[start : start + layer.parameters, start : start + layer.parameters]
        start += layer.parameters
        distances = []
        for kind in ("ekfac", "kfac", "diagonal"):
            factors = setting.fits[kind].factors[layer.name]
            basis = torch.kron(factors.Q_S.matrix().contiguous(), factors.Q_A.matrix().contiguous())
            approximation = basis @ torch.diag(factors.Lambda.flatten()) @ basis.T
            distances.append(float((approximation - block).norm() / block.norm()))
        assert distances[0] < distances[1] < distances[2], layer.name


def test_influence_by_ekfac_is_nearer_to_dense_than_diagonal_and_identity(setting):
    """K-FAC's is as near as EK-FAC's here, where all documents have one position: .880 and .882."""
    exact = setting.ekfac.dense_inverse(setting.documents, SCALE)
    influence_QN = setting.ekfac.influence_by(exact, setting.queries, setting.documents)
    correlations = {}
    for kind, fitted in setting.fits.items():
        got_QN = fitted.influence(setting.queries, setting.documents, SCALE)
        correlations[kind] = float(torch.corrcoef(torch.stack([got_QN.flatten(), influence_QN.flatten()]))[0, 1])
    assert min(correlations["ekfac"], correlations["kfac"]) > 0.85
    assert max(correlations["diagonal"], correlations["identity"]) < 0.7


def test_influence_by_the_factored_inverse_is_the_plain_one(setting):
    for kind, fitted in setting.fits.items():
        plain = fitted.influence(setting.queries, setting.documents, SCALE)
        got = fitted.influence_by(fitted.factored_inverse(SCALE), setting.queries, setting.documents)
        torch.testing.assert_close(got, plain, rtol=1e-9, atol=1e-11, msg=kind)


def test_settings_out_of_range_are_refused():
    for settings, message in [
        ({"iterations": -1}, "iterations: expected at least 0"),
        ({"tolerance": 0.0}, "tolerance: expected a positive finite number"),
        ({"scale": -1.0}, "scale: expected a positive finite number"),
        ({"scale": float("nan")}, "scale: expected a positive finite number"),
    ]:
        with pytest.raises(ConfigError, match=message):
            LissaConfig(**settings)
    with pytest.raises(ConfigError, match="refine: expected one of cg, lissa"):
        SearchOptions(exact=True, refine="newton")
    assert np.isfinite(CgConfig().tolerance)
