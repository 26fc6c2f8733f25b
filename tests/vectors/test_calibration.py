"""What calibration expects, against vectors that are really projected and coded."""

import numpy as np
import pytest
import torch

from gindex.curvature.basis import DenseBasis
from gindex.curvature.ekfac import LayerFactors, whitening_scale
from gindex.vectors import calibration
from gindex.vectors.calibration import (
    Budget,
    Expectation,
    Setting,
    calibrate,
    choose,
    expected_pearson,
    noise,
    sampled_rows,
)
from gindex.vectors.codes import decode, encode
from gindex.vectors.count_sketch import CountSketch
from gindex.vectors.projection import LayerShape, ProjectionSpec

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("bits", "dimension"), [*((bits, dimension) for bits in (1, 2, 4, 16) for dimension in (64, 512)), (16, 4096)]
)
def test_noise_is_that_of_a_sketch_and_its_code(bits, dimension):
    """Over 300 seeds the variance of every score is the predicted one, within the spread of a variance of 300."""
    shapes = tuple(LayerShape(name=name, group=name, rows=20, columns=30) for name in "ab")
    generator = torch.Generator().manual_seed(0)
    V = {name: torch.randn(6, 20, 30, generator=generator) for name in "ab"}
    scores = []
    for seed in range(300):
        spec = ProjectionSpec(layers=shapes, dimension=dimension, seed=seed)
        out, sketch = torch.zeros(6, dimension), CountSketch(spec, CPU)
        for name, v in V.items():
            sketch.add(out, name, v)
        slices = list(spec.slices.values())
        scores.append((out[:3] @ decode(*encode(out[3:], bits, slices), bits, slices).T).double())
    measured = torch.stack(scores).var(0)
    norms_NG = torch.stack([V[name].flatten(1).square().sum(1) for name in "ab"], 1).double()
    predicted = noise(norms_NG, [600, 600], [dimension // 2] * 2, bits)[:3, 3:]
    if dimension == 4096:
        assert float(predicted.abs().max()) == 0 and float(measured.max()) < 1e-4  # every coordinate alone; float16
    else:
        # A variance of 300 is known to 8% (1 sigma); the mean of nine to 3%. <x, y>^2 / W is left out, up to 4%.
        assert float(measured.mean() / predicted.mean()) == pytest.approx(1, abs=0.15)


def test_expected_pearson_is_the_correlation_with_noise_added():
    numbers = np.random.default_rng(0)
    exact = torch.from_numpy(numbers.normal(size=(40, 40)))
    scores = exact + 0.5 * torch.from_numpy(numbers.normal(size=(40, 40)))
    variance = torch.full((40, 40), 0.8, dtype=torch.float64)
    measured = []
    for _ in range(300):
        noisy = scores + variance.sqrt() * torch.from_numpy(numbers.normal(size=(40, 40)))
        for query in range(40):
            others = np.arange(40) != query
            measured.append(np.corrcoef(exact[query, others], noisy[query, others])[0, 1])
    # The mean of a ratio is not the ratio of means: 39 others leave a bias of about 1%.
    assert np.mean(expected_pearson(exact, scores, variance)) == pytest.approx(np.mean(measured), rel=0.02)


def test_without_noise_the_exact_setting_is_perfect(setting):
    chosen = Setting(1.0, 0.1)
    budget = Budget(widths=dict.fromkeys({layer.group for layer in setting.layers}, 1 << 20), bits=16)
    documents = [0, 2, 4, 6, 7]
    batches = [(len(documents), 1, lambda: setting.losses(documents))]
    found = calibrate(setting.layers, setting.factors.__getitem__, 0.1, [chosen, Setting(0.5, 10.0)], budget, batches)
    assert found[chosen].stored == pytest.approx(1.0) and found[chosen].unprojected == pytest.approx(1.0)
    assert found[Setting(0.5, 10.0)].stored < 0.999
    assert choose(found) == chosen


@pytest.mark.parametrize("formed", [calibration.FORMED_VALUES, 500, 1])
def test_inner_products_are_those_of_the_whitened_gradients(setting, monkeypatch, formed):
    """The observer's scores against autograd's gradients, for a truncated and damped setting, also row by row."""
    from gindex.model.capture import observe
    from gindex.vectors.calibration import CalibrationObserver

    monkeypatch.setattr(calibration, "FORMED_VALUES", formed)
    setting_, everyone = Setting(0.5, 10.0), list(range(8))
    observer = CalibrationObserver(setting.factors.__getitem__, 0.1, [setting_], 8)
    observe(setting.layers, observer, 8, lambda: setting.losses(everyone))
    exact, cut = setting.whitened(0.1), setting.whitened(10.0)
    expected = sum(V.flatten(1) @ V.flatten(1).T for V in exact.values())
    torch.testing.assert_close(observer.exact_NN, expected, rtol=1e-9, atol=1e-9)
    scores = torch.zeros(8, 8, dtype=torch.float64)
    for V in cut.values():
        kept = V[:, : round(V.shape[1] / 2), : round(V.shape[2] / 2)].flatten(1)
        scores += kept @ kept.T
    torch.testing.assert_close(observer.scores_NN[setting_], scores, rtol=1e-9, atol=1e-9)
    shapes = [(round(layer.outputs / 2), round(layer.inputs / 2)) for layer in setting.layers]
    assert sum(observer.coordinates.values()) == sum(P * R for P, R in shapes)


def test_sampled_rows_stand_for_all():
    rows, weights = sampled_rows(10, 20)
    assert rows.tolist() == list(range(10)) and (weights == 1).all()
    rows, weights = sampled_rows(1536, 576)
    assert rows[:192].tolist() == list(range(192)) and (weights[:192] == 1).all()
    assert float(weights.sum()) == pytest.approx(1536) and len(rows) < 300
    assert rows.diff().min() > 0 and rows[-1] < 1536


def test_sampling_changes_little(setting, monkeypatch):
    """Reference: all rows. One in two of the others, in layers of a few dozen rows; settings keep their order."""
    settings = [Setting(f, d) for f in (1.0, 0.5) for d in (0.1, 1000.0)]
    budget = Budget(widths=dict.fromkeys({layer.group for layer in setting.layers}, 8), bits=1)
    batches = [(8, 1, lambda: setting.losses(list(range(8))))]
    whole = calibrate(setting.layers, setting.factors.__getitem__, 0.1, settings, budget, batches)
    monkeypatch.setattr(calibration, "SAMPLED_ABOVE", 0)
    monkeypatch.setattr(calibration, "STRIDE", 2)
    sampled = calibrate(setting.layers, setting.factors.__getitem__, 0.1, settings, budget, batches)
    assert sampled != whole
    for each in settings:
        assert sampled[each].stored == pytest.approx(whole[each].stored, abs=0.15)


def test_small_vectors_want_fewer_directions(setting):
    """As the dimension falls, the best setting keeps no more of the whitened norm."""
    settings = [Setting(f, d) for f in (1.0, 0.5, 0.25) for d in (0.1, 10.0, 1000.0)]
    batches = [(8, 1, lambda: setting.losses(list(range(8))))]
    kept = []
    for width in (8, 64, 1 << 20):
        budget = Budget(
            widths=dict.fromkeys({layer.group for layer in setting.layers}, width), bits=1 if width < 99 else 16
        )
        found = calibrate(setting.layers, setting.factors.__getitem__, 0.1, settings, budget, batches)
        best = max(settings, key=lambda s: found[s].stored)
        standing = 0.0
        for f in setting.factors.values():
            R, P = round(f.Lambda.shape[1] * best.rank_fraction), round(f.Lambda.shape[0] * best.rank_fraction)
            standing += float(
                (f.Lambda[:P, :R] * whitening_scale(f.Lambda[:P, :R], f.damping(best.index_damping)) ** 2).sum()
            )
        kept.append(standing)
    assert kept == sorted(kept) and kept[-1] > kept[0]


def test_of_settings_that_do_almost_as_well_the_truest_is_taken():
    found = {
        Setting(1.0, 0.1): Expectation(stored=0.50, unprojected=1.0),  # too noisy
        Setting(0.5, 0.1): Expectation(stored=0.62, unprojected=0.96),
        Setting(0.25, 10.0): Expectation(stored=0.64, unprojected=0.85),
        Setting(0.125, 10.0): Expectation(stored=0.65, unprojected=0.8),
    }
    assert choose(found) == Setting(0.5, 0.1)
    assert choose({Setting(1.0, 1.0): Expectation(stored=0.0, unprojected=0.0)}) == Setting(1.0, 1.0)
    assert choose({Setting(1.0, 1.0): Expectation(stored=-0.1, unprojected=-0.2)}) == Setting(1.0, 1.0)


def test_a_dead_layer_and_equal_documents_are_no_trouble():
    zeros = torch.zeros(4, 4, dtype=torch.float64)
    assert expected_pearson(zeros, zeros, zeros) == []
    dead = LayerFactors(
        Q_A=DenseBasis(torch.eye(3)), Q_S=DenseBasis(torch.eye(2)), Lambda=torch.zeros(2, 3), mean_eigenvalue=0.0
    )
    assert not whitening_scale(dead.Lambda, dead.damping(10.0)).any()
