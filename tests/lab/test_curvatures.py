"""Every kind of curvature takes the same path; exact influence by definition, with nothing but autograd."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gindex import GradientIndex
from gindex.config import CURVATURES
from gindex.documents.table import DocumentTable
from tests.support.objectives import ids_of

PROMPT, COMPLETION = "the compiler race", " bug the stack"
DAMPING = 0.1


@pytest.fixture(scope="module")
def indexes(tmp_path_factory, corpus_file, make_config) -> dict[str, Path]:
    """An index of each kind, of the whole gradient."""
    folders = {}
    for kind in CURVATURES.names():
        folders[kind] = tmp_path_factory.mktemp("kinds") / kind
        config = make_config(curvature=kind, rank_fraction=1.0, index_damping=DAMPING, bits=16, dimension=8192)
        GradientIndex.build([str(corpus_file)], folders[kind], config)
    return folders


@pytest.fixture(scope="module")
def gradients(indexes) -> tuple[list[dict], dict[str, torch.Tensor], dict[tuple[str, int], dict[str, torch.Tensor]]]:
    """Layers, the query's gradient, and those of every fifth part, float64, [O, I] with the bias as last column."""
    folder = indexes["ekfac"]
    manifest = json.loads((folder / "manifests/00000001.json").read_text())
    name = manifest["model"]["name"]
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(name)

    def gradient(tokens: list[int], first_target: int) -> dict[str, torch.Tensor]:
        model.zero_grad()
        log_p = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
        (-sum(log_p[t - 1, tokens[t]] for t in range(first_target, len(tokens)))).backward()
        found = {}
        for layer in manifest["layers"]:
            module = model.get_submodule(layer["name"])
            sides = [module.weight.grad] + ([module.bias.grad[:, None]] if module.bias is not None else [])
            found[layer["name"]] = torch.cat(sides, 1).clone()
        return found

    prompt, completion = (tokenizer(text).input_ids for text in (PROMPT, COMPLETION))
    documents = {}
    with DocumentTable.open(folder / "volumes/00000/documents.sqlite") as table:
        ordinals = range(0, table.counts().parts, 5)
        for part, tokens in zip(table.parts(ordinals), map(ids_of, table.objectives(ordinals)), strict=True):
            if len(tokens) > 1:
                documents[part.document_id, part.part] = gradient(tokens.tolist(), 1)
    return manifest["layers"], gradient(prompt + completion, len(prompt)), documents


def dense_influence(kind: str, folder: Path, layers: list[dict], query: dict, document: dict) -> float:
    """Return sum over layers of G_q^T H^-1 G_d by the definition of each kind of curvature."""
    tensors = {}
    for path in (folder / "factors").iterdir():
        tensors |= {name: tensor.double() for name, tensor in load_file(path).items()}
    total = 0.0
    for layer in layers:
        name, source = layer["name"], layer["source"]
        G_q, G_d = query[name], document[name]
        if kind == "identity":
            total += float((G_q * G_d).sum())
            continue
        Q_A, Q_S = tensors[f"activation.{source}"].T, tensors[f"gradient.{name}"].T
        if kind == "kfac":
            values = torch.outer(tensors[f"gradient_values.{name}"], tensors[f"activation_values.{source}"])
            # A common factor, the tokens of a document, is in the eigenvalues.
            values = values * (tensors[name].sum() / values.sum())
        else:
            values = tensors[name]
        rotated = [Q_S.T @ G @ Q_A for G in (G_q, G_d)]
        total += float((rotated[0] * rotated[1] / (values + DAMPING * values.mean())).sum())
    return total


@pytest.mark.parametrize("kind", CURVATURES.names())
def test_exact_influence_is_that_of_the_definition(indexes, gradients, kind):
    layers, query, documents = gradients
    hits = (
        GradientIndex.open(indexes[kind], device="cpu")
        .search(PROMPT, COMPLETION, k=1000, exact=True, candidates=1000)
        .hits
    )
    found = {(hit.document_id, hit.part): hit for hit in hits}
    expected = {key: dense_influence(kind, indexes[kind], layers, query, G) for key, G in documents.items()}
    largest = max(map(abs, expected.values()))
    for key, value in expected.items():
        assert found[key].influence == pytest.approx(value, abs=1e-5 * largest)  # float32 passes
    scores = np.array([found[key].score for key in expected])
    # 4,096 buckets for each block's 4,000 coordinates; measured .97 or more for all kinds.
    assert np.corrcoef(scores, list(expected.values()))[0, 1] > 0.93


def test_diagonal_curvature_keeps_the_layers_own_coordinates(indexes, gradients):
    """Its eigenvalues are the second moments of the gradient's own entries, in another order."""
    for path in sorted((indexes["diagonal"] / "factors").glob("eigenbases-*")):
        for name, tensor in load_file(path).items():
            if "values" in name:
                assert (tensor.diff() <= 0).all()  # leading coordinates first
            else:
                assert torch.equal(tensor @ tensor.T, torch.eye(len(tensor)))
                assert set(tensor.unique().tolist()) == {0.0, 1.0}


def test_kinds_share_what_they_should(indexes):
    """The three kinds with eigenbases have the same ones; only ekfac and diagonal look at documents again."""

    def tensors(kind: str, pattern: str) -> dict[str, torch.Tensor]:
        found = {}
        for path in sorted((indexes[kind] / "factors").glob(pattern)):
            found |= load_file(path)
        return found

    reference = tensors("ekfac", "eigenbases-*")
    for kind in ("kfac", "identity"):
        assert all(torch.equal(tensor, reference[name]) for name, tensor in tensors(kind, "eigenbases-*").items())
    assert all((tensor == 1).all() for tensor in tensors("identity", "eigenvalues-*").values())
    corrected, assumed = tensors("ekfac", "eigenvalues-*"), tensors("kfac", "eigenvalues-*")
    for name, Lambda in corrected.items():
        # Independent tokens and sides are a rough assumption; the trace is of the right size.
        assert 0.2 < float(assumed[name].sum() / Lambda.sum()) < 5, name


@pytest.mark.parametrize("kind", CURVATURES.names())
def test_info_names_the_kind(indexes, kind):
    assert GradientIndex.open(indexes[kind]).info()["curvature"] == kind
