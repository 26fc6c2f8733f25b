"""Choose ranks and damping of stored vectors for a model and a dimension, by looking at a few documents.

Whitening flattens the spectrum of gradients, and what is flat does not compress: with all directions kept and little
damping, a short vector is mostly the noise of its projection; with too few or too much damping, too little of the exact
influence is left. So each setting's scores between documents are computed without projection, the noise that a
projection and a code of the wanted size would add is known in closed form, and the setting whose noisy scores would
correlate best with exact influence is taken. See docs/decisions/0002-calibration.md.

Axes: N documents, G layer groups, O and I outputs and inputs of a layer, P and R kept eigenvectors.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gindex.curvature.ekfac import LayerFactors, rotated_gradients, whitening_scale
from gindex.curvature.ranks import ranks
from gindex.model.capture import append_one, observe
from gindex.model.devices import to_device
from gindex.model.layers import TrackedLayer
from gindex.model.observer import Observer

FRACTIONS = (1.0, 0.5, 0.25, 0.125, 0.0625)
"""Shares of each eigenbasis that are tried."""

DAMPINGS = (0.1, 1.0, 10.0, 100.0)
"""Dampings that are tried, as multiples of a layer's mean eigenvalue."""

SAMPLED_ABOVE = 1 << 17
"""Layers with more weights than this are looked at in part: `sampled_rows`."""

FORMED_VALUES = 1 << 27
"""Most values of the gradients of a batch in a layer that are formed at once: 512 MiB in float32."""

LEADING, STRIDE = 0.125, 16
"""All of this leading share of the gradient side is looked at, and one row in so many of the rest."""

TOLERANCE = 0.05
"""Share of the best expectation that is given up for more of the signal: `choose`."""

CODE_COSINES = {1: 0.7979, 2: 0.9385, 4: 0.9942, 8: 0.99997, 16: 1.0}
"""Mean cosine between a Gaussian vector and its code, by bits."""


@dataclass(frozen=True, order=True)
class Setting:
    """Kept share of each eigenbasis, and damping as a multiple of a layer's mean eigenvalue."""

    rank_fraction: float
    index_damping: float


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """How a setting's scores are expected to correlate with exact influence: as stored, and without projection."""

    stored: float
    unprojected: float


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a vector may be: the width of each layer group's slice, and bits a coordinate."""

    widths: Mapping[str, int]
    bits: int


class CalibrationObserver(Observer):
    """Collects inner products between the documents of one batch, for every setting and for exact influence."""

    def __init__(
        self, factors: Callable[[str], LayerFactors], exact_damping: float, settings: Sequence[Setting], documents: int
    ) -> None:
        """Prepare for a batch of N documents.

        Args:
            factors: Loads a layer's untruncated factors.
            exact_damping: Damping of exact influence.
            settings: What to try.
            documents: N.
        """
        self.exact_NN = torch.zeros(documents, documents, dtype=torch.float64, device="cpu")
        self.scores_NN = {setting: torch.zeros_like(self.exact_NN) for setting in settings}
        self.norms_N: dict[tuple[Setting, str], Tensor] = {}
        self.coordinates: dict[tuple[Setting, str], int] = {}
        self._factors, self._exact_damping = factors, exact_damping
        self._fractions: dict[float, list[Setting]] = {exact_damping: []}  # by damping
        for setting in settings:
            self._fractions.setdefault(setting.index_damping, []).append(setting)

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
        """Keep activations [N, T, I]."""
        return append_one(a_NTI, layer)

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        """Whiten document gradients in every way and add their inner products."""
        factors = self._factors(layer.name)
        rows, weights = sampled_rows(layer.outputs, layer.inputs)
        size = max(1, FORMED_VALUES // max(1, len(g_NTO) * layer.inputs))
        for some, stands_for in zip(rows.split(size), weights.split(size), strict=True):
            self._add(layer, factors, some, stands_for, kept, g_NTO)
        for setting in self.scores_NN:
            key, (R, P) = (setting, layer.group), ranks(layer, setting.rank_fraction)
            self.coordinates[key] = self.coordinates.get(key, 0) + P * R

    def _add(
        self, layer: TrackedLayer, factors: LayerFactors, rows: Tensor, weights: Tensor, kept: Tensor, g_NTO: Tensor
    ) -> None:
        """Add the inner products of some rows [S] of the whitened gradients, each of which stands for so many."""
        there_S = to_device(rows.numpy(), factors.Lambda.device)
        G_NSI = rotated_gradients(kept, g_NTO, factors.Q_A, factors.Q_S.some(there_S))
        Lambda_SI = factors.Lambda[there_S]
        roots_S1 = to_device(weights.sqrt().numpy(), Lambda_SI.device).to(Lambda_SI.dtype)[:, None]
        if self.exact_NN.device != G_NSI.device:  # with the first layer
            self.exact_NN = self.exact_NN.to(G_NSI.device)
            self.scores_NN = {setting: scores_NN.to(G_NSI.device) for setting, scores_NN in self.scores_NN.items()}
        for damping, settings in self._fractions.items():
            V_NSI = G_NSI * (whitening_scale(Lambda_SI, factors.damping(damping)) * roots_S1)
            if damping == self._exact_damping:
                self.exact_NN += _gram(V_NSI)
            for setting in settings:
                R, P = ranks(layer, setting.rank_fraction)
                gram_NN = _gram(V_NSI[:, : int((rows < P).sum()), :R])
                self.scores_NN[setting] += gram_NN
                key = setting, layer.group
                self.norms_N[key] = self.norms_N.get(key, 0) + gram_NN.diagonal()


def sampled_rows(outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
    """Choose the rows of a layer's whitened gradients that inner products are estimated from.

    Inner products of many small terms need not be summed whole: all leading rows, which hold the large ones, and an
    even sample of the others, each of which stands for `STRIDE`.

    Args:
        outputs: O.
        inputs: I.

    Returns:
        Rows [S], ascending, and how many rows each stands for [S], float32.
    """
    rows = torch.arange(outputs, device="cpu")
    if outputs * inputs <= SAMPLED_ABOVE:
        return rows, torch.ones_like(rows, dtype=torch.float32)
    leading, rest = rows[: math.ceil(LEADING * outputs)], rows[math.ceil(LEADING * outputs) :]
    sampled = rest[STRIDE // 2 :: STRIDE]
    chosen = torch.cat([leading, sampled])
    weights = torch.ones_like(chosen, dtype=torch.float32)
    weights[len(leading) :] = len(rest) / len(sampled)
    return chosen, weights


def _gram(V_NPR: Tensor) -> Tensor:
    """The inner products [N, N] between whitened gradients."""
    V_NC = V_NPR.flatten(1)
    return (V_NC @ V_NC.T).double()


def noise(norms_NG: Tensor, coordinates: Sequence[int], widths: Sequence[int], bits: int) -> Tensor:
    """The variance [N, N] of the score of every pair that a projection and a code add.

    A count sketch of C coordinates in W buckets has variance |x|^2 |y|^2 (C / W - 1) / (C - 1), none where each has a
    bucket of its own; a code with cosine c adds |x|^2 |y|^2 (1 / c^2 - 1) / W.

    Args:
        norms_NG: Squared norms of the documents' parts in each layer group [N, G].
        coordinates: C of each group.
        widths: W of each group.
        bits: Bits a coordinate.
    """
    coding = 1 / CODE_COSINES[bits] ** 2 - 1
    factors = [max(0.0, C / W - 1) / max(1, C - 1) + coding / W for C, W in zip(coordinates, widths, strict=True)]
    return torch.einsum("ig,jg,g->ij", norms_NG, norms_NG, norms_NG.new_tensor(factors))


def expected_pearson(exact_NN: Tensor, scores_NN: Tensor, noise_NN: Tensor) -> list[float]:
    """Return, for every document as a query, the correlation of noisy scores with exact influence over the others."""
    correlations = []
    for query in range(len(exact_NN)):
        others = torch.arange(len(exact_NN), device=exact_NN.device) != query
        e, t = exact_NN[query, others], scores_NN[query, others]
        e, t = e - e.mean(), t - t.mean()
        spread = math.sqrt(float(e @ e) * float(t @ t + noise_NN[query, others].sum()))
        if spread > 0:
            correlations.append(float(e @ t) / spread)
    return correlations


def calibrate(
    layers: Sequence[TrackedLayer],
    factors: Callable[[str], LayerFactors],
    exact_damping: float,
    settings: Sequence[Setting],
    budget: Budget,
    batches: Sequence[tuple[int, int, Callable[[], Tensor]]],
    done: Callable[[int], None] = lambda _documents: None,
) -> dict[Setting, Expectation]:
    """The expected Pearson correlations of scores with exact influence, for every setting.

    Args:
        layers: Tracked layers.
        factors: Loads a layer's untruncated factors.
        exact_damping: Damping of exact influence.
        settings: What to try.
        budget: What a vector may be.
        batches: Number of documents of each batch, rows of each document (see `observe`), and what runs the model on it
            and returns their losses.
        done: Called after each batch with its number of documents.
    """
    groups = list(budget.widths)
    found: dict[Setting, tuple[list[float], list[float]]] = {setting: ([], []) for setting in settings}
    for documents, texts, losses in batches:
        observer = CalibrationObserver(factors, exact_damping, settings, documents)
        observe(layers, observer, documents, losses, texts)
        for setting, (stored, unprojected) in found.items():
            norms_NG = torch.stack([observer.norms_N[setting, group] for group in groups], 1).cpu()
            coordinates = [observer.coordinates[setting, group] for group in groups]
            added = noise(norms_NG, coordinates, list(budget.widths.values()), budget.bits)
            exact_NN, scores_NN = observer.exact_NN.cpu(), observer.scores_NN[setting].cpu()
            stored += expected_pearson(exact_NN, scores_NN, added)
            unprojected += expected_pearson(exact_NN, scores_NN, torch.zeros_like(added))
        done(documents)
    return {setting: Expectation(stored=_mean(pair[0]), unprojected=_mean(pair[1])) for setting, pair in found.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def choose(expected: Mapping[Setting, Expectation]) -> Setting:
    """The setting to take: of those whose stored scores do almost as well as any, the truest without projection.

    Expected correlation is flat around its best. Truncation and damping trade signal for less noise, but what they take
    is lost for good and moves the few best documents, while the noise of a projection spares them most.

    Args:
        expected: What `calibrate` returned.
    """
    best = max(each.stored for each in expected.values())
    enough = [setting for setting, each in expected.items() if each.stored >= best - TOLERANCE * abs(best)]
    return max(enough, key=lambda setting: expected[setting].unprojected)
