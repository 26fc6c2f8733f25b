"""A model whose modules have several number formats: ERNIE 4.5 keeps its routers in float32 beside 16 bits."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from against_autograd import documents, gradients, reference_gradients, wide
from families import FAMILIES

from gindex import GradientIndex
from gindex.config import FidelityConfig
from gindex.model.number_formats import factor_formats
from gindex.model.tracked_model import TrackedModel
from gindex.store.factors import FactorReader
from gindex.vectors.influence import document_gradients

ROUTER = "model.layers.1.mlp.gate"


@pytest.fixture(scope="module")
def config(tmp_path_factory, small_tokenizer, make_config):
    """Settings that track the routed experts and their router, which runs before them."""
    folder: Path = tmp_path_factory.mktemp("ernie")
    next(family for family in FAMILIES if family.name == "ERNIE 4.5 MoE").model().save_pretrained(folder)
    small_tokenizer.save_pretrained(folder)
    left_out = ("model.layers.0.*", "*self_attn*", "*shared_experts*", "lm_head")
    few = {"fit_documents": 8, "limit": 8, "fidelity": FidelityConfig(queries=0)}
    return make_config(name=str(folder), dtype="bfloat16", untrack=left_out, **few)


@pytest.fixture(scope="module")
def model(config) -> TrackedModel:
    return TrackedModel.load(config.model)


def formats(model: TrackedModel) -> dict[str, torch.dtype]:
    return {layer.name: next(layer.module.parameters()).dtype for layer in model.table.layers}


def test_the_format_of_the_passes_is_that_of_most_weights(model):
    assert model.table.layers[0].name == ROUTER
    assert formats(model) == dict.fromkeys(formats(model), torch.bfloat16) | {ROUTER: torch.float32}
    assert model.dtype == torch.bfloat16


def test_gradients_are_right_to_rounding_in_every_format(model):
    """Against float64 on the same rounded weights: 16 bits round activations to 2^-9, some dozen times."""
    tokens = documents(model.task.vocabulary)
    reference = wide(copy.deepcopy(model.loaded.model)).requires_grad_(True)
    expected = [reference_gradients(reference, list(formats(model)), part) for part in tokens]
    for found, exact in zip(gradients(model, tokens), expected, strict=True):
        whole = torch.cat([G.flatten() for G in exact.values()]).norm()
        for name in exact:
            assert (found[name] - exact[name]).norm() < 0.03 * whole, name


def test_an_index_is_opened_in_the_format_that_it_was_built_in(config, corpus_file, tmp_path):
    index = GradientIndex.build([str(corpus_file)], tmp_path / "index", config)
    assert index.manifest.model.dtype == "bfloat16"
    text = index.document("d7").text
    assert index.search("", completion=text, k=1).hits[0].document_id == "d7"
    assert formats(index.model.tracked)[ROUTER] == torch.float32 and index.model.tracked.dtype == torch.bfloat16


def test_factors_are_in_the_format_of_their_layer(model):
    assert model.factor_formats == formats(model)


def test_a_router_in_float32_has_the_vectors_of_float32(config, corpus_file, tmp_path):
    """The rotated gradient of the router beside that in float64, from the same activations: bfloat16 is 2^-9 off."""
    index = GradientIndex.build([str(corpus_file)], tmp_path / "index", config)
    tracked, layout = index.model.tracked, index.snapshot.layout
    own = FactorReader.of(layout, index.manifest.layers, tracked).load(ROUTER)
    assert own.Q_A.dtype == own.Q_S.dtype == torch.float32
    other = FactorReader.of(layout, index.manifest.layers, tracked).load(tracked.table.layers[1].name)
    assert other.Q_A.dtype == torch.bfloat16
    wide = FactorReader(layout, index.manifest.layers, tracked.device, {ROUTER: torch.float64}).load(ROUTER)
    batch = tracked.batches([index.snapshot.documents.objectives([3])[0]], np.arange(1), 0)[0]
    G_NW, space = document_gradients(tracked.table.layers, 1, lambda: tracked.task.losses(batch))
    G_NOI = space.split(G_NW)[ROUTER]
    found, expected = own.rotate(G_NOI), wide.rotate(G_NOI.double())
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_layers_with_one_basis_have_the_widest_format_among_them(model):
    """Copies of two layers that are said to read the same activations."""
    router, other = model.table.layers[:2]
    shared = replace(other, source=router.source)
    assert factor_formats([router, shared]) == dict.fromkeys([router.name, other.name], torch.float32)
    half = replace(router, module=copy.deepcopy(router.module).half())
    assert factor_formats([half]) == {router.name: torch.float32}
