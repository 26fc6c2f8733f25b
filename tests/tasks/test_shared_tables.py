"""Tables that an encoder, a decoder and a head share, and biases of tied heads, against autograd in float64."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gindex.config import ModelConfig
from gindex.corpus.batches import pad
from gindex.curvature.covariance import CovarianceObserver
from gindex.model.capture import observe
from gindex.model.tracked_model import TrackedModel
from gindex.vectors.influence import document_gradients
from gindex.vectors.token_influence import token_influence
from tests.support.task_models import TASK_MODELS

EXACT = {"rtol": 1e-9, "atol": 1e-12}
MODEL = {of.name: of for of in TASK_MODELS}


def load(name: str, folder: Path, **choice: Any) -> TrackedModel:
    MODEL[name].save(folder)
    model = TrackedModel.load(ModelConfig(name=str(folder), device="cpu", dtype="float32", **choice))
    model.loaded.model.double()
    return model


def batch_of(model: TrackedModel, lengths: tuple[int, ...] = (9, 4, 6)):
    generator = np.random.default_rng(0)
    objectives = [model.task.trial(generator.integers(5, 24, length).astype(np.uint32)) for length in lengths]
    return pad(objectives, np.arange(len(lengths))), objectives


@pytest.mark.parametrize("name", ["T5", "T5 v1.1", "BART"])
def test_a_table_of_encoder_decoder_and_head_has_the_gradient_of_all_uses(name, tmp_path):
    """T5 scales what its tied head reads; T5 v1.1 has a head of its own. Positions of BART are a table too."""
    model = load(name, tmp_path, layers="everything")
    batch, objectives = batch_of(model)
    layers = model.table.layers
    G_NW, space = document_gradients(layers, 3, partial(model.task.losses, batch))
    found, tables = space.split(G_NW), [layer for layer in layers if "shared" in layer.name]
    assert [layer.calls for layer in tables] == [2]
    assert not any("embed" in weight.name or "shared" in weight.name for weight in model.table.untracked)
    weights = {layer.name: layer.module.weight for layer in layers if "shared" in layer.name or "embed_" in layer.name}
    assert len(weights) == (3 if name == "BART" else 1)
    model.loaded.model.requires_grad_(True)
    for n, each in enumerate(objectives):
        loss = model.task.losses(pad([each], [0]))[0]
        expected = torch.autograd.grad(loss, list(weights.values()))
        for layer, G in zip(weights, expected, strict=True):
            torch.testing.assert_close(found[layer][n], G, **EXACT)


def test_influence_of_a_shared_table_is_told_apart_by_source_and_target(tmp_path):
    """Its sum over tokens is that of the gradient, and tokens of the source come first."""
    model = load("T5", tmp_path, track=("shared",), untrack=("*",))
    batch, _ = batch_of(model)
    (layer,) = model.table.layers
    X = {layer.name: torch.randn(1, layer.outputs, layer.inputs, dtype=torch.float64)}
    losses, widths = partial(model.task.losses, batch), [side.tokens.shape[1] for side in batch.sides]
    influence_NT = token_influence([layer], X, 3, losses, widths=widths)[0]
    assert influence_NT.shape == (3, sum(widths))
    G_NW, _ = document_gradients([layer], 3, losses)
    torch.testing.assert_close(
        influence_NT.sum(1), (G_NW.view(3, layer.outputs, -1) * X[layer.name]).sum((1, 2)), **EXACT
    )
    source, target = batch.sides
    assert not influence_NT[:, : widths[0]][~torch.from_numpy(source.mask)].any()
    assert not influence_NT[:, widths[0] :][~torch.from_numpy(target.mask)].any()
    assert influence_NT[0, 0] != 0 and influence_NT[0, widths[0]] != 0


def test_covariances_of_a_shared_table_count_the_tokens_of_all_uses(tmp_path):
    model = load("T5", tmp_path, track=("shared",), untrack=("*",))
    batch, _ = batch_of(model)
    observer = CovarianceObserver(dtype=torch.float64)
    observer.begin(*map(torch.from_numpy, batch.masks))
    observe(model.table.layers, observer, 3, partial(model.task.losses, batch))
    sources, targets = (int(mask.sum()) for mask in batch.masks)
    assert int(observer.activation_moments["shared"].tokens) == sources + 2 * targets  # decoder and head


def test_the_bias_of_a_tied_head_is_a_parameter_of_its_own(tmp_path):
    model = load("BERT", tmp_path, layers="everything")
    assert not model.table.untracked
    batch, objectives = batch_of(model)
    G_NW, space = document_gradients(model.table.layers, 3, partial(model.task.losses, batch))
    names = ["bert.embeddings.word_embeddings", "cls.predictions.bias"]
    weights = [layer.module.weight for name in names for layer in model.table.layers if layer.name == name]
    assert len(weights) == 2
    model.loaded.model.requires_grad_(True)
    for n, each in enumerate(objectives):
        expected = torch.autograd.grad(model.task.losses(pad([each], [0]))[0], weights)
        for name, G in zip(names, expected, strict=True):
            torch.testing.assert_close(space.split(G_NW)[name][n].flatten(), G.flatten(), **EXACT)


def test_a_block_that_all_layers_share_is_right_in_a_pass_that_recomputes_it(tmp_path):
    """Reference: the same pass without checkpoints, which is compared with autograd in test_gradients."""
    from gindex.model.checkpointing import checkpointed

    model = load("ALBERT, one block for all layers", tmp_path)
    assert {layer.calls for layer in model.table.layers if "albert_layers" in layer.name} == {2}
    batch, _ = batch_of(model)
    expected, _ = document_gradients(model.table.layers, 3, partial(model.task.losses, batch))
    group = model.loaded.model.albert.encoder.albert_layer_groups[0]
    with checkpointed([group]):
        found, _ = document_gradients(model.table.layers, 3, partial(model.task.losses, batch))
    torch.testing.assert_close(found, expected, **EXACT)
