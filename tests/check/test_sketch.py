"""Sketches against the gradients that they stand for."""

import numpy as np
import pytest
import torch

from gindex.check.sketch import Sketches, sketch
from gindex.config import ModelConfig
from gindex.corpus.objectives import Objective
from gindex.model.tracked_model import TrackedModel
from gindex.vectors.influence import document_gradients


@pytest.fixture(scope="module")
def model(model_folder) -> TrackedModel:
    return TrackedModel.load(ModelConfig(name=str(model_folder), device="cpu"))


@pytest.fixture(scope="module")
def documents() -> list[Objective]:
    generator = np.random.default_rng(0)
    return [Objective.counting(generator.integers(1, 250, length)) for length in (20, 9, 33)]


def test_inner_products_are_those_of_gradients_up_to_noise(model, documents):
    """Both sides of a layer get 16 signs: of 15 layers an inner product is off by some percent of the norms."""
    sketches = sketch(model, documents)
    found_NX = torch.cat([of.flatten(1) for of in sketches.by_layer.values()], 1)
    (batch,) = model.batches(documents, np.arange(3), 1000)
    gradients_NW, _ = document_gradients(model.table.layers, 3, lambda: model.task.losses(batch))
    exact_NW = torch.empty_like(gradients_NW)
    exact_NW[torch.from_numpy(batch.ordinals)] = gradients_NW
    exact_NW = exact_NW.double()
    norms_N = exact_NW.norm(dim=1)
    off_NN = (found_NX @ found_NX.T - exact_NW @ exact_NW.T) / (norms_N[:, None] * norms_N)
    assert off_NN.abs().max() < 0.25


def test_order_and_batch_leave_sketches_as_they_are(model, documents):
    together, alone = sketch(model, documents), sketch(model, documents, together=False)
    assert together.difference(alone)[0] < 1e-4
    turned = sketch(model, documents[::-1])
    turned = Sketches(by_layer={name: of.flip(0) for name, of in turned.by_layer.items()})
    assert turned.difference(alone)[0] < 1e-4 and turned.cosine(alone) == pytest.approx(1, abs=1e-6)


def test_a_difference_is_relative_and_names_the_layer(model, documents):
    exact = sketch(model, documents)
    name = list(exact.by_layer)[4]
    off = Sketches(by_layer=exact.by_layer | {name: exact.by_layer[name] * 1.1})
    assert off.difference(exact) == (pytest.approx(0.1), name)
    lost = Sketches(by_layer=exact.by_layer | {name: exact.by_layer[name] * torch.nan})
    assert lost.difference(exact) == (torch.inf, name) and lost.cosine(exact) == 0
    assert exact.difference(exact)[0] == 0 and exact.cosine(exact) == pytest.approx(1)
    opposite = Sketches(by_layer={name: -of for name, of in exact.by_layer.items()})
    assert opposite.cosine(exact) == pytest.approx(-1)
    fewer = Sketches(by_layer={key: of for key, of in exact.by_layer.items() if key != name})
    assert 0 < fewer.cosine(exact) < 1 and fewer.cosine(exact) == pytest.approx(exact.cosine(fewer))
