"""Sides too wide for one matrix: an index with blocks and unit vectors in it, from the build to exact influence."""

import json

import numpy as np
import pytest
import torch
from exact_reference import Reference

from gindex import GradientIndex
from gindex.documents.table import DocumentTable
from gindex.model import layer_costs, sides
from tests.support.objectives import ids_of

PROMPT, COMPLETION = "the compiler race", " bug the stack"

ROUNDING = 5e-6
"""Float32 against float64, relative to the largest influence, as in tests/test_index.py."""


@pytest.fixture(scope="module", params=["blocks", "blocks and unit vectors"])
def wide(request, tmp_path_factory, corpus_file, make_config):
    """An index of a model of which some sides count as too wide for a matrix; opened where they no longer do."""
    folder = tmp_path_factory.mktemp("wide") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sides, "WIDEST_MATRIX", 39)  # the model's MLP has 40 features
        patch.setattr(sides, "WIDEST_BLOCK", 15)
        if request.param != "blocks":
            patch.setattr(sides, "WIDEST_BLOCK", 1)
        index = GradientIndex.build([str(corpus_file)], folder, make_config(rank_fraction=0.6, index_damping=1.0))
    return folder, index


def test_the_structure_is_recorded(wide):
    folder, _ = wide
    layers = json.loads((folder / "manifests/00000001.json").read_text())["layers"]
    blocks = {
        layer["name"].rpartition(".")[2]: (layer.get("input_block"), layer.get("output_block")) for layer in layers
    }
    wanted = 14 if blocks["up_proj"][1] != 1 else 1
    assert (blocks["up_proj"], blocks["down_proj"], blocks["q_proj"]) == ((None, wanted), (wanted, None), (None, None))
    assert all("input_block" not in layer for layer in layers if layer["name"].endswith("q_proj"))


def test_exact_influence_is_that_of_the_recorded_factors(wide):
    folder, _ = wide
    reference = Reference(folder)
    with DocumentTable.open(folder / "volumes/00000/documents.sqlite") as table:
        ordinals = range(30)
        names = [(part.document_id, part.part) for part in table.parts(ordinals)]
        documents = [ids_of(part).tolist() for part in table.objectives(ordinals)]
    prompt, completion = (reference.tokenizer(text).input_ids for text in (PROMPT, COMPLETION))
    expected = reference.influence(prompt + completion, len(prompt), documents)
    result = GradientIndex.open(folder, device="cpu").search(PROMPT, COMPLETION, k=1000, exact=True, candidates=10_000)
    found = {(hit.document_id, hit.part): hit.influence for hit in result.hits}
    got = np.array([found[name] for name in names])
    np.testing.assert_allclose(got, expected, rtol=0, atol=ROUNDING * np.abs(expected).max())


def test_stored_scores_are_close_to_exact_influence(wide):
    """Whole vectors of as many coordinates as gradients lose little: the path to vectors has the same bases."""
    _, index = wide
    result = index.search(PROMPT, COMPLETION, k=1000, exact=True, candidates=10_000)
    scores = np.array([(hit.score, hit.influence) for hit in result.hits])
    assert np.corrcoef(scores.T)[0, 1] > 0.8


def test_documents_are_added_with_the_same_structure(wide, tmp_path):
    folder, _ = wide
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps({"id": "new", "text": "the compiler race bug the stack"}) + "\n")
    index = GradientIndex.open(folder, device="cpu")
    index.add([str(more)])
    assert index.refresh().search(PROMPT, COMPLETION, k=1, exact=True, candidates=10_000).hits[0].document_id == "new"


def test_a_wide_head_has_unit_vectors(tmp_path, corpus_file, make_config, monkeypatch):
    """An untied head of more tokens than a matrix is made for: influence is still that of autograd."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tied = make_config().model.name
    model, folder = AutoModelForCausalLM.from_pretrained(tied), tmp_path / "model"
    torch.manual_seed(0)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(0.3 * torch.randn_like(model.lm_head.weight))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tied).save_pretrained(folder)
    monkeypatch.setattr(layer_costs, "WIDE_HEAD", 100)
    config = make_config(name=str(folder), track=("lm_head",), rank_fraction=1.0, index_damping=1.0)
    index = GradientIndex.build([str(corpus_file)], tmp_path / "index", config)
    head = index.manifest.layers[-1]
    assert (head.name, head.output_side.is_unit, head.input_block) == ("lm_head", True, None)
    reference = Reference(tmp_path / "index")
    prompt, completion = (reference.tokenizer(text).input_ids for text in (PROMPT, COMPLETION))
    hits = index.search(PROMPT, COMPLETION, k=5, exact=True, candidates=10_000).hits
    documents = [ids_of(index.objectives(hit.document_id)[hit.part]).tolist() for hit in hits]
    expected = reference.influence(prompt + completion, len(prompt), documents)
    np.testing.assert_allclose([hit.influence for hit in hits], expected, rtol=1e-5)


@pytest.mark.parametrize("choice", [{"track": ("model.embed_tokens",)}, {"layers": "everything"}], ids=["table", "all"])
def test_an_index_with_embedding_and_tied_head(choice, tmp_path, corpus_file, make_config):
    """Influence is that of autograd, which adds up both uses; explanations and added documents too."""
    config = make_config(rank_fraction=1.0, index_damping=1.0, fit_documents=20, **choice)
    index = GradientIndex.build([str(corpus_file)], tmp_path / "index", config)
    (record,) = [layer for layer in index.manifest.layers if layer.name == "model.embed_tokens"]
    assert record.output_side.is_unit
    reference = Reference(tmp_path / "index")
    prompt, completion = (reference.tokenizer(text).input_ids for text in (PROMPT, COMPLETION))
    hits = index.search(PROMPT, COMPLETION, k=5, exact=True, candidates=10_000).hits
    documents = [ids_of(index.objectives(hit.document_id)[hit.part]).tolist() for hit in hits]
    expected = reference.influence(prompt + completion, len(prompt), documents)
    np.testing.assert_allclose([hit.influence for hit in hits], expected, rtol=1e-5)
    explained = index.explain(hits[0].document_id, PROMPT, COMPLETION)
    assert sum(explained.groups.values()) == pytest.approx(explained.influence, rel=1e-5)
    assert explained.groups["model.embed_tokens"] != 0
