"""Indexes of a mixture of experts: influence is that of autograd's gradients and of the factors that are recorded."""

import json

import numpy as np
import pytest
import torch
from against_autograd import reference_gradients, wide
from families import FAMILIES

from gindex import GradientIndex
from gindex.store.factors import FactorReader

WORDS = [
    "compiler",
    "race",
    "bug",
    "stack",
    "heap",
    "lock",
    "token",
    "parser",
    "page",
    "disk",
    "cache",
    "thread",
    "file",
]
PROMPT, COMPLETION = "the compiler race", " bug the stack"


@pytest.fixture(scope="module")
def mixture():
    (family,) = (family for family in FAMILIES if family.name == "Mixtral")
    return family.model()


@pytest.fixture
def build(mixture, tmp_path, small_tokenizer, run):
    """Builds an index of so many documents; returns its folder, the documents and what a dry run said."""

    def make(count):
        mixture.save_pretrained(tmp_path / "model")
        small_tokenizer.save_pretrained(tmp_path / "model")
        generator = np.random.default_rng(0)
        texts = [" ".join(generator.choice(WORDS, 8)) for _ in range(count)]
        corpus = tmp_path / "corpus.jsonl"
        corpus.write_text("\n".join(json.dumps({"id": f"d{n}", "text": text}) for n, text in enumerate(texts)))
        arguments = [
            "build", corpus, "--model", tmp_path / "model", "--max-tokens", 64, "--dimension", 256, "--device", "cpu",
            "--rank-fraction", 0.5, "--index-damping", 1, "--fidelity-queries", 0, "--dtype", "float32",
        ]  # fmt: skip
        plan = run(*arguments, "--dry-run", "--json")
        assert plan.exit_code == 0, plan.output
        built = run(*arguments, "--out", tmp_path / "index")
        assert built.exit_code == 0, built.output
        return tmp_path / "index", texts, json.loads(plan.stdout)

    return make


@pytest.mark.parametrize(("count", "shared"), [(3, True), (60, False)])
def test_exact_influence_is_that_of_the_recorded_factors(count, shared, build, mixture, small_tokenizer, run):
    """Few tokens: all experts share; many: those that routing leaves with too few do. Float32: rounding of 1e-4."""
    folder, texts, plan = build(count)
    index = GradientIndex.open(folder)
    records = index.manifest.layers
    experts = [layer for layer in records if ".experts." in layer.name]
    sharing = [layer for layer in experts if layer.factors is not None]
    assert sharing == experts if shared else len(sharing) < len(experts)
    assert all(layer.factors == layer.source == layer.name.rpartition(".")[0] for layer in sharing)
    stored = sum(path.stat().st_size for path in (folder / "factors").iterdir() if path.suffix == ".safetensors")
    assert plan["disk_bytes"]["factors"] == pytest.approx(stored, rel=0.1 if shared else 0.5)

    found = run(
        "search", folder, PROMPT, "--completion", COMPLETION, "--exact", "--candidates", 50, "-k", 3, "--json",
        "--device", "cpu",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    reference, names = wide(mixture), [layer.name for layer in records]
    reader = FactorReader(index.snapshot.layout, records, torch.device("cpu"), dict.fromkeys(names, torch.float64))
    before = len(small_tokenizer(PROMPT).input_ids)

    def whitened(text, first=1):
        tokens = np.array(small_tokenizer(text).input_ids)
        gradients = reference_gradients(reference, names, tokens, first)
        return {name: reader.load(name).whiten(G[None], 0.1) for name, G in gradients.items()}

    query = whitened(PROMPT + COMPLETION, before)
    for hit in json.loads(found.stdout)["hits"]:
        document = whitened(texts[int(hit["document_id"][1:])])
        expected = sum(float((query[name] * V).sum()) for name, V in document.items())
        assert hit["influence"] == pytest.approx(expected, rel=2e-3)
