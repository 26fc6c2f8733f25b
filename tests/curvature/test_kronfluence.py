"""Parity with kronfluence, an independent implementation of EK-FAC influence (Grosse et al. 2023).

Everything runs in float64 in both. kronfluence multiplies the gradient of its measurement by that of the training loss
without a minus; the measurement here is the loss, so its scores have our sign: positive helps the query.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from gindex.curvature.basis import DenseBasis
from gindex.curvature.eigenbasis import eigenbasis
from gindex.curvature.ekfac import LayerFactors
from gindex.curvature.fit import fit_covariances, fit_eigenvalues
from gindex.vectors.influence import exact_influence, precondition_queries

kronfluence = pytest.importorskip("kronfluence", reason="tools/setup.sh installs it without its dependencies")
from kronfluence.analyzer import Analyzer, prepare_model  # noqa: E402
from kronfluence.arguments import FactorArguments, ScoreArguments  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*GradScaler:FutureWarning")

WIDE = torch.float64
SAME = 1e-5
"""Bound on the error relative to the largest score; the two agree to rounding in float64, and this is the promise."""


class Documents(Dataset):
    """Documents of a setting by ordinal, padded to one length so that the default collation stacks them."""

    def __init__(self, setting: Any, ordinals: Sequence[int]) -> None:
        batch = setting.batch(list(ordinals))
        if hasattr(batch, "inputs"):
            self.items = [{"x": x, "y": y} for x, y in zip(batch.inputs, batch.labels, strict=True)]
        else:
            self.items = [
                {"x": torch.from_numpy(x), "mask": torch.from_numpy(m)}
                for x, m in zip(batch.tokens, batch.mask, strict=True)
            ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, n: int) -> dict[str, Tensor]:
        return self.items[n]


class SummedLoss(kronfluence.Task):
    """The summed loss of a setting's model, for training documents and queries alike."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def compute_train_loss(self, batch: dict[str, Tensor], model: nn.Module, sample: bool = False) -> Tensor:
        if "mask" in batch:
            log_p = model(batch["x"], use_cache=False).logits[:, :-1].log_softmax(-1)
            labels, counts = batch["x"][:, 1:], batch["mask"][:, 1:]
        else:
            log_p, labels = model(batch["x"])[:, None].log_softmax(-1), batch["y"][:, None]
            counts = torch.ones_like(labels)
        if sample:
            with torch.no_grad():
                labels = torch.multinomial(log_p.flatten(0, 1).exp(), 1).view(labels.shape)
        return -(log_p.gather(2, labels[..., None])[..., 0] * counts).sum()

    def compute_measurement(self, batch: dict[str, Tensor], model: nn.Module) -> Tensor:
        return self.compute_train_loss(batch, model)

    def get_influence_tracked_modules(self) -> list[str]:
        return self.names

    def get_attention_mask(self, batch: dict[str, Tensor]) -> Tensor | None:
        return batch["mask"].long() if "mask" in batch else None


@dataclass(frozen=True)
class Other:
    """What kronfluence made of a setting: covariances and factors by layer name, and pairwise scores [Q, N]."""

    covariances: Mapping[str, Mapping[str, Tensor]]
    eigen: Mapping[str, Mapping[str, Tensor]]
    lambdas: Mapping[str, Mapping[str, Tensor]]
    scores: Tensor

    def factors(self, name: str) -> LayerFactors:
        Lambda = self.lambdas["lambda_matrix"][name] / self.lambdas["num_lambda_processed"][name]
        return LayerFactors(
            Q_A=DenseBasis(self.eigen["activation_eigenvectors"][name]),
            Q_S=DenseBasis(self.eigen["gradient_eigenvectors"][name]),
            Lambda=Lambda,
            mean_eigenvalue=float(Lambda.mean()),
        )


def run_kronfluence(
    setting: Any,
    folder: Path,
    fit_on: Sequence[int],
    queries: Sequence[int],
    damping: float | None = None,
    empirical: bool = False,
) -> Other:
    """Fit kronfluence's EK-FAC on documents and score all queries against them, in float64."""
    names = [layer.name for layer in setting.layers]
    task = SummedLoss(names)
    model = prepare_model(copy.deepcopy(setting.task.model), task)
    analyzer = Analyzer(
        "parity", model, task, cpu=True, output_dir=str(folder), disable_tqdm=True, log_main_process_only=True
    )
    factor_args = FactorArguments(
        strategy="ekfac",
        use_empirical_fisher=empirical,
        activation_covariance_dtype=WIDE,
        gradient_covariance_dtype=WIDE,
        eigendecomposition_dtype=WIDE,
        per_sample_gradient_dtype=WIDE,
        lambda_dtype=WIDE,
    )
    score_args = ScoreArguments(
        damping_factor=damping, per_sample_gradient_dtype=WIDE, precondition_dtype=WIDE, score_dtype=WIDE
    )
    torch.manual_seed(0)
    documents = Documents(setting, fit_on)
    analyzer.fit_all_factors("factors", documents, per_device_batch_size=16, factor_args=factor_args)
    analyzer.compute_pairwise_scores(
        "scores",
        "factors",
        query_dataset=Documents(setting, queries),
        train_dataset=documents,
        per_device_query_batch_size=len(queries),
        per_device_train_batch_size=16,
        score_args=score_args,
    )
    return Other(
        analyzer.load_covariance_matrices("factors"),
        analyzer.load_eigendecomposition("factors"),
        analyzer.load_lambda_matrices("factors"),
        analyzer.load_pairwise_scores("scores")["all_modules"],
    )


def our_scores(
    setting: Any, factors: Callable[[str], LayerFactors], damping_scale: float, documents, queries
) -> Tensor:
    preconditioned = precondition_queries(
        setting.layers,
        factors,
        damping_scale,
        len(queries),
        lambda: setting.task.losses(setting.batch(list(queries))),
    )
    parts = [list(documents[start : start + 16]) for start in range(0, len(documents), 16)]
    return torch.cat(
        [
            exact_influence(
                setting.layers,
                preconditioned,
                torch.ones(len(queries), len(part), dtype=torch.bool),
                lambda p=part: setting.task.losses(setting.batch(p)),
            )
            for part in parts
        ],
        1,
    )


def fit_ours(setting: Any, task: Any, ordinals: Sequence[int], seed: int = 0):
    """Fit EK-FAC on documents; return the means of A and S and the factors by layer name."""
    batches = [setting.batch(list(ordinals[start : start + 16])) for start in range(0, len(ordinals), 16)]
    observer = fit_covariances(setting.layers, task, batches, seed, WIDE)
    moments = (observer.activation_moments, observer.gradient_moments)
    A, S = ({name: moment.mean() for name, moment in side.items()} for side in moments)
    bases = (
        {name: DenseBasis(eigenbasis(moment, name)[1]) for name, moment in A.items()},
        {name: DenseBasis(eigenbasis(moment, name)[1]) for name, moment in S.items()},
    )
    Lambda = fit_eigenvalues(setting.layers, task, batches, bases, seed)
    factors = {
        layer.name: LayerFactors(
            Q_A=bases[0][layer.source],
            Q_S=bases[1][layer.name],
            Lambda=Lambda[layer.name],
            mean_eigenvalue=float(Lambda[layer.name].mean()),
        )
        for layer in setting.layers
    }
    return A, S, factors


def without_curvature(f: LayerFactors) -> LayerFactors:
    return LayerFactors(Q_A=f.Q_A, Q_S=f.Q_S, Lambda=torch.zeros_like(f.Lambda), mean_eigenvalue=1.0)


def pearson(got: Tensor, expected: Tensor) -> float:
    return float(np.corrcoef(got.flatten(), expected.flatten())[0, 1])


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max())


# Documents fitted on and scored, and queries that are not among them.
SIZES = {"classifier": 2000, "language": 300}
QUERIES = 8


@pytest.fixture(scope="module", params=["classifier", "language"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def setting(kind, request):
    make = request.getfixturevalue(kind)
    return make(count=SIZES[kind] + QUERIES)


@pytest.fixture
def fit_on(kind) -> list[int]:
    return list(range(SIZES[kind]))


@pytest.fixture
def queries(kind) -> list[int]:
    return list(range(SIZES[kind], SIZES[kind] + QUERIES))


def test_scores_with_the_same_factors(setting, fit_on, queries, tmp_path):
    """kronfluence's eigenvectors and Lambda through our path, at its heuristic damping of 0.1 times the mean."""
    other = run_kronfluence(setting, tmp_path, fit_on, queries)
    ours = our_scores(setting, other.factors, 0.1, fit_on, queries)
    assert relative_error(ours, other.scores) <= SAME


def test_factors_fitted_apart(setting, fit_on, queries, tmp_path):
    """Each samples labels of its own, so only the Fisher matrix they estimate is the same.

    Pearson over all pairs: .998 and .995 measured. What differs is the noise of the labels, which falls with documents.
    """
    other = run_kronfluence(setting, tmp_path, fit_on, queries)
    _, _, factors = fit_ours(setting, setting.task, fit_on)
    ours = our_scores(setting, factors.__getitem__, 0.1, fit_on, queries)
    assert pearson(ours, other.scores) >= 0.99
    # The bound means something: without curvature it is .79 and .57.
    plain = our_scores(setting, lambda name: without_curvature(factors[name]), 1.0, fit_on, queries)
    assert pearson(plain, other.scores) < 0.9


class DataLabels:
    """A task whose pseudo-gradients use the data's labels, so that two fits have nothing to sample."""

    def __init__(self, task: Any) -> None:
        self.task = task

    def losses(self, batch: Any) -> Tensor:
        return self.task.losses(batch)

    def sampled_losses(self, batch: Any, seeds: Sequence[int]) -> Tensor:
        return self.task.losses(batch)


def test_fitted_factors_with_the_same_labels(setting, fit_on, queries, tmp_path):
    """With the data's labels on both sides covariances, Lambda and scores agree, each fitted on its own."""
    documents = fit_on[:48]
    other = run_kronfluence(setting, tmp_path, documents, queries, empirical=True)
    A, S, factors = fit_ours(setting, DataLabels(setting.task), documents)
    for layer in setting.layers:
        for ours, what in ((A[layer.source], "activation"), (S[layer.name], "gradient")):
            theirs = other.covariances[f"{what}_covariance"][layer.name]
            theirs = theirs / other.covariances[f"num_{what}_covariance_processed"][layer.name]
            assert relative_error(ours, theirs) <= 1e-10, (layer.name, what)  # float64 sums in another order
    ours = our_scores(setting, factors.__getitem__, 0.1, documents, queries)
    assert relative_error(ours, other.scores) <= SAME


def test_a_given_damping(classifier, tmp_path):
    """A number is added to every layer's Lambda by kronfluence; ours is a multiple of each layer's mean."""
    setting = classifier(count=40)
    other = run_kronfluence(setting, tmp_path, range(32), range(32, 40), damping=0.02)

    def factors(name: str) -> LayerFactors:
        f = other.factors(name)
        return LayerFactors(Q_A=f.Q_A, Q_S=f.Q_S, Lambda=f.Lambda, mean_eigenvalue=0.02)

    ours = our_scores(setting, factors, 1.0, list(range(32)), list(range(32, 40)))
    assert relative_error(ours, other.scores) <= SAME
