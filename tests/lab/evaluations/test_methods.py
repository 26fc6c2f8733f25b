"""Methods that invert the exact Gauss-Newton matrix, against dense algebra on Jacobians by autograd."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gindex.errors import ConfigError
from gindex.lab.evaluations.methods import TensorMethods
from gindex.model.tensor_batches import tensor_batches
from gindex.model.tensor_tasks import Classification, Regression

WIDE = torch.float64
DOCUMENTS, QUERIES, FEATURES, OUTPUTS = 30, 4, 4, 3
SCALE = 0.3


class Setting:
    """A perceptron with documents and queries, and what autograd says of them."""

    def __init__(self, task: type[Classification] | type[Regression]) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, OUTPUTS)).to(WIDE)
        self.x = torch.randn(DOCUMENTS + QUERIES, FEATURES, dtype=WIDE)
        classes = torch.randint(OUTPUTS, (len(self.x),))
        self.classifies = task is Classification
        self.y = classes if self.classifies else torch.randn(len(self.x), OUTPUTS, dtype=WIDE)
        documents = tensor_batches(self.x[:DOCUMENTS], self.y[:DOCUMENTS], 7)
        queries = tensor_batches(self.x[DOCUMENTS:], self.y[DOCUMENTS:], 3)
        self.task = task(self.model)
        self.methods = TensorMethods(self.task, documents, queries)

    def jacobians(self) -> Tensor:
        """Return the derivative of each output in all weights [N, K, W], layers by the rows of [weight, bias]."""
        parameters = {name: p.detach() for name, p in self.model.named_parameters()}

        def outputs(some: dict[str, Tensor], x: Tensor) -> Tensor:
            return torch.func.functional_call(self.model, some, (x[None],))[0]

        found = torch.func.vmap(torch.func.jacrev(outputs), (None, 0))(parameters, self.x)
        layers = [torch.cat([found[f"{n}.weight"], found[f"{n}.bias"][..., None]], -1).flatten(2) for n in (0, 2)]
        return torch.cat(layers, 2)

    def influence(self) -> Tensor:
        """Return g_q^T (C + damping)^-1 g_d, with C the mean of J^T H J over the documents, all of it formed."""
        J_NKW, outputs_NK = self.jacobians(), self.model(self.x).detach()
        if self.classifies:
            p_NK = outputs_NK.softmax(1)
            hessian_NKK = torch.diag_embed(p_NK) - p_NK[:, :, None] * p_NK[:, None]
            slope_NK = p_NK - nn.functional.one_hot(self.y, OUTPUTS)
        else:
            hessian_NKK = torch.eye(OUTPUTS, dtype=WIDE).expand(len(self.x), -1, -1)
            slope_NK = outputs_NK - self.y
        C_WW = torch.einsum("nkw,nkl,nlv->wv", J_NKW[:DOCUMENTS], hessian_NKK[:DOCUMENTS], J_NKW[:DOCUMENTS])
        C_WW = C_WW / DOCUMENTS
        factors = self.methods.fitted("ekfac").factors
        damping_W = torch.cat(
            [SCALE * factors[name].Lambda.mean().expand(factors[name].Lambda.numel()) for name in "02"]
        )
        g_NW = torch.einsum("nkw,nk->nw", J_NKW, slope_NK)
        return g_NW[DOCUMENTS:] @ torch.linalg.solve(C_WW + torch.diag(damping_W), g_NW[:DOCUMENTS].T)


@pytest.fixture(params=[Classification, Regression])
def setting(request) -> Setting:
    return Setting(request.param)


def test_the_dense_method_inverts_the_whole_gauss_newton_matrix(setting):
    expected = setting.influence().numpy()
    np.testing.assert_allclose(setting.methods.dense(SCALE), expected, rtol=1e-9, atol=1e-10)


def test_the_refined_method_goes_from_ekfac_to_the_dense_one(setting):
    """Without iterations it is EK-FAC; each further one comes closer, and twenty converge on 43 weights."""
    dense, ekfac = setting.methods.dense(SCALE), setting.methods.exact("ekfac", SCALE)
    found = [setting.methods.refined(SCALE, iterations) for iterations in (0, 4, 20)]
    np.testing.assert_allclose(found[0], ekfac, rtol=1e-9, atol=1e-10)
    errors = [np.linalg.norm(scores - dense) / np.linalg.norm(dense) for scores in found]
    assert errors[0] > 0.05  # EK-FAC is another matrix
    assert errors[1] < errors[0] / 2 and errors[2] < 2e-3  # the solver stops at a residual of 1e-3


def test_a_model_too_large_for_a_dense_matrix_is_refused():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(100, 90), nn.Tanh(), nn.Linear(90, 2))
    documents = tensor_batches(torch.randn(4, 100), torch.randint(2, (4,)))
    with pytest.raises(ConfigError, match="at most 8,192 tracked weights, found 9,272; take conjugate gradients"):
        TensorMethods(Classification(model), documents, documents).dense(0.1)
