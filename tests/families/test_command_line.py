"""Families through the command line, from text to exact influence, against autograd; and what is refused there."""

import json

import pytest
import torch
from against_autograd import reference_gradients, wide
from families import FAMILIES

from gindex import GradientIndex

FAMILY = {family.name: family for family in FAMILIES}

PROMPT, COMPLETION = "the compiler race", " bug the stack"

ROUNDING = 1e-4
"""Of the largest influence: float32 passes, as in the table."""

TEXTS = [
    "the stack the heap a lock", "a race a bug", "the parser token loop file disk page", "kernel",
    "the compiler race bug the stack", "a thread a lock a race the cache", "patch the test", "disk page file cache",
]  # fmt: skip


@pytest.fixture
def saved(tmp_path, small_tokenizer):
    """Saves a family's model with a tokenizer, and a corpus; returns the arguments of a build and the model."""

    def save(name):
        model = FAMILY[name].model()
        model.save_pretrained(tmp_path / "model")
        small_tokenizer.save_pretrained(tmp_path / "model")
        corpus = tmp_path / "corpus.jsonl"
        corpus.write_text("\n".join(json.dumps({"id": f"d{n}", "text": text}) for n, text in enumerate(TEXTS)))
        build = [
            "build", corpus, "--model", tmp_path / "model", "--max-tokens", 32, "--dimension", 256, "--device", "cpu",
            "--rank-fraction", 0.5, "--index-damping", 1, "--fidelity-queries", 0,
        ]  # fmt: skip
        return build, model

    return save


def search(run, folder, *options):
    """Return what an exact search of everything finds, as JSON."""
    found = run(
        "search", folder, PROMPT, "--completion", COMPLETION, "--exact", "--candidates", 50, "-k", 50, "--json",
        "--device", "cpu", *options,
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


@pytest.mark.parametrize("name", ["GPT-2", "Gemma 2", "OPT", "Mixtral", "Mamba"])
def test_exact_influence_is_the_inner_product_of_autograds_gradients(name, saved, run, tmp_path, small_tokenizer):
    build, model = saved(name)
    built = run(*build, "--curvature", "identity", "--out", tmp_path / "index")
    assert built.exit_code == 0, built.output
    names = [layer.name for layer in GradientIndex.open(tmp_path / "index").manifest.layers]
    reference = wide(model)
    before, whole = (len(small_tokenizer(text).input_ids) for text in (PROMPT, PROMPT + COMPLETION))

    def gradient(text, first=1):
        tokens = torch.tensor(small_tokenizer(text).input_ids)
        return reference_gradients(reference, names, tokens.numpy(), first)

    assert 0 < before < whole
    query = gradient(PROMPT + COMPLETION, before)
    expected = {
        f"d{n}": sum(float((G * query[layer]).sum()) for layer, G in gradient(text).items())
        for n, text in enumerate(TEXTS)
        if len(small_tokenizer(text).input_ids) > 1
    }
    found = {hit["document_id"]: hit["influence"] for hit in search(run, tmp_path / "index")["hits"]}
    largest = max(map(abs, expected.values()))
    assert largest > 0 and expected.keys() <= found.keys()
    for document, value in expected.items():
        assert found[document] == pytest.approx(value, abs=ROUNDING * largest)


@pytest.mark.parametrize("name", ["Mixtral", "BLOOM"])
def test_refining_takes_what_has_no_forward_derivative(name, saved, run, tmp_path):
    """The residual of what was solved falls: the products, which the table compares, are those of one matrix."""
    build, _ = saved(name)
    built = run(*build, "--out", tmp_path / "index")
    assert built.exit_code == 0, built.output
    residuals = [
        search(run, tmp_path / "index", "--refine", "cg", "--refine-iterations", count)["refinement"]["residual"]
        for count in (0, 8)
    ]
    assert residuals[1] < 0.5 * residuals[0]


@pytest.mark.parametrize("name", [family.name for family in FAMILIES if family.refused][::6])
@pytest.mark.parametrize("dry", [False, True])
def test_what_is_refused_leaves_nothing(name, dry, saved, run, tmp_path):
    build, _ = saved(name)
    refused = run(*build, *(["--dry-run"] if dry else ["--out", tmp_path / "index"]))
    assert refused.exit_code == 5 and refused.stdout == ""
    (line,) = refused.stderr.strip().splitlines()
    assert line.startswith("gindex: ") and FAMILY[name].refused in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "model"]
