"""Refined re-ranking: what the solver starts from, what it converges to, and how it is asked for and reported."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from gindex_cli.commands import gindex

from gindex import GradientIndex
from gindex.corpus.batches import pad
from gindex.errors import ConfigError, DivergenceError
from gindex.exact.refiner import refiner_sample
from gindex.lab.attribution import Attribution
from gindex.lab.refine.config import CgConfig, LissaConfig
from gindex.lab.refine.refiner import SolverRefiner
from gindex.progress import Silent
from gindex.queries.query import Query
from gindex.queries.tokens import tokenize_query
from gindex.search_options import SearchOptions
from gindex.vectors.influence import WeightSpace

PROMPT, COMPLETION = "the compiler race", " bug the stack"
ROUNDING = 2e-3
"""Of the largest: float32 solvers, products and sums in different batches."""


class FactoredCurvature:
    """A curvature that is EK-FAC itself, Q diag(Lambda) Q^T, in two batches that are alike."""

    batches = (0, 1)

    def __init__(self, layers, load) -> None:
        self.space, self.layers, self.load = WeightSpace(layers), layers, load

    def product(self, v_QW):
        out = torch.empty_like(v_QW)
        parts, given = self.space.split(out), self.space.split(v_QW)
        for layer in self.layers:
            f = self.load(layer.name)
            parts[layer.name].copy_(f.Q_S.matrix() @ (f.rotate(given[layer.name]) * f.Lambda) @ f.Q_A.matrix().T)
        return out

    def batch_product(self, v_QW, number):
        assert number in self.batches
        return self.product(v_QW)


@pytest.fixture(scope="module")
def tokens(index):
    texts = [(PROMPT, COMPLETION), ("the heap a lock", None)]
    return [tokenize_query(Query(prompt=p, completion=c), index.model.tracked.loaded) for p, c in texts]


def influence(result):
    return {(hit.document_id, hit.part): hit.influence for hit in result.hits}


@pytest.mark.parametrize("method", ["cg", "lissa"])
@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_where_the_curvature_is_ekfac_the_query_is_the_plain_one(index, tokens, method, iterations):
    config = {"cg": CgConfig, "lissa": LissaConfig}[method](iterations=iterations, tolerance=1e-2)
    load = index.model.factors
    refiner = SolverRefiner(index.model.tracked, load, index.manifest.damping.exact, index.snapshot.documents, config)
    plain = index.reranker.precondition(tokens, Silent())
    got, reports = refiner.solve_on(FactoredCurvature(index.model.tracked.table.layers, load), tokens, 7)
    assert got.keys() == plain.keys()
    for name, expected in plain.items():
        torch.testing.assert_close(got[name], expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert all(report.converged and report.residual < 1e-3 and report.parts == 7 for report in reports)


def test_no_iterations_give_the_plain_influence_and_say_how_far_it_is_from_refined(index):
    options = SearchOptions(k=8, exact=True, candidates=12)
    plain = index.search(PROMPT, COMPLETION, options)
    for method in ("cg", "lissa"):
        refined = index.search(
            PROMPT, COMPLETION, options, refine=method, refine_parts=20, refine_settings={"iterations": 0}
        )
        assert influence(refined) == pytest.approx(influence(plain), rel=1e-3)
        assert refined.refinement.iterations == 0 and refined.refinement.parts == 20
        assert refined.refinement.residual > 0.05 and not refined.refinement.converged
    assert plain.refinement is None


def test_influence_is_that_of_the_exact_matrix_of_the_sample(index):
    """Reference: the library's in-memory path, with the factors of the index and its parts in other batches."""
    settings = {"refine": "cg", "refine_parts": 16, "refine_settings": {"iterations": 6, "tolerance": 1e-3}}
    result = index.search(PROMPT, COMPLETION, k=9, exact=True, candidates=12, **settings)
    assert result.refinement.iterations == 6 and result.refinement.seconds > 0
    usable = np.setdiff1d(np.arange(index.manifest.stored_parts), index.snapshot.excluded)
    parts, engine, load = index.snapshot.documents.objectives(usable), index.model.tracked, index.model.factors
    layers = engine.table.layers
    attribution = Attribution(engine.task, layers, {layer.name: load(layer.name) for layer in layers})
    batches = [pad([parts[n]], usable[n : n + 1]) for n in range(len(parts))]
    sample = refiner_sample(usable, 16, index.manifest.settings.seed)
    of_sample = [batch for batch in batches if batch.ordinals[0] in sample]
    config = CgConfig(iterations=6, tolerance=1e-3)
    inverse = attribution.iterative_inverse(of_sample, index.manifest.damping.exact, config)
    query = tokenize_query(Query(prompt=PROMPT, completion=COMPLETION), engine.loaded)
    expected_N = attribution.influence_by(inverse, [pad([query.objective], [0])], batches)[0]
    found = index.snapshot.documents.parts(usable)
    expected = {(p.document_id, p.part): float(value) for p, value in zip(found, expected_N, strict=True)}
    largest = max(abs(value) for value in expected.values())
    for name, value in influence(result).items():
        assert value == pytest.approx(expected[name], abs=ROUNDING * largest)


def test_queries_in_blocks_and_with_a_certainty_are_refined_alike(index, monkeypatch):
    queries = [Query(prompt=PROMPT, completion=COMPLETION), Query(prompt="the heap a lock"), Query(prompt="a parser")]
    options = SearchOptions(
        k=3, exact=True, candidates=40, refine="cg", refine_parts=12, refine_settings={"iterations": 3}
    )
    together = index.search_many(queries, options)
    monkeypatch.setattr(index.reranker, "_block_bytes", 1)  # one query at a time
    for changes in ({}, {"certainty": 0.999}):
        apart = index.search_many(queries, options, **changes)
        for one, other in zip(together, apart, strict=True):
            assert influence(other) == pytest.approx(influence(one), rel=ROUNDING)
            assert other.refinement.residual == pytest.approx(one.refinement.residual, rel=0.01)
            assert other.refinement.iterations == one.refinement.iterations == 3


def test_the_sample_is_drawn_with_the_seed_from_what_can_be_found():
    usable = np.array([2, 3, 5, 7, 11, 13])
    drawn = refiner_sample(usable, 3, 1)
    assert len(set(drawn.tolist())) == 3 and set(drawn) <= set(usable) and list(drawn) == sorted(drawn)
    assert list(drawn) == list(refiner_sample(usable, 3, 1))
    assert any(list(refiner_sample(usable, 3, seed)) != list(drawn) for seed in range(2, 6))
    for count in (None, 6, 100):
        assert list(refiner_sample(usable, count, 1)) == list(usable)


def test_bad_settings_are_refused_and_divergence_names_what_to_change(index):
    search = partial(index.search, PROMPT, COMPLETION)
    with pytest.raises(ConfigError, match="refine: expected `exact`"):
        search(refine="cg")
    with pytest.raises(ConfigError, match="refine: expected one of cg, lissa"):
        search(exact=True, refine="newton")
    with pytest.raises(ConfigError, match="refine_parts: expected at least 1"):
        search(exact=True, refine="cg", refine_parts=-1)
    with pytest.raises(DivergenceError, match=r"raise the scale \(`refine_scale`\)"):
        search(exact=True, refine="lissa", refine_parts=8, refine_settings={"scale": 1e-3, "iterations": 6})
    with pytest.raises(ConfigError, match="query of text"):
        index.search_vectors(torch.ones(1, 512), exact=True, refine="cg")


def test_the_command_line_refines_and_reports(built):
    arguments = ["search", str(built), PROMPT, "--completion", COMPLETION, "--exact", "--candidates", "8", "-k", "2"]
    arguments += ["--refine", "cg", "--refine-parts", "10", "--refine-iterations", "2", "--device", "cpu"]
    shown = CliRunner().invoke(gindex, arguments)
    assert shown.exit_code == 0, shown.output
    assert "refined by cg over 10 parts: 2 iterations, residual " in shown.output
    assert "not converged: the best iterate is used" in shown.output
    record = json.loads(CliRunner().invoke(gindex, [*arguments, "--json"]).stdout)
    found = record["refinement"]
    assert found.keys() == {"method", "parts", "iterations", "residual", "converged", "seconds"}
    assert found["method"] == "cg" and found["iterations"] == 2 and found["converged"] is False
    opened = GradientIndex.open(built, device="cpu")
    expected = opened.search(
        PROMPT,
        COMPLETION,
        k=2,
        exact=True,
        candidates=8,
        refine="cg",
        refine_parts=10,
        refine_settings={"iterations": 2},
    )
    assert [hit["influence"] for hit in record["hits"]] == pytest.approx([h.influence for h in expected.hits], rel=1e-4)
