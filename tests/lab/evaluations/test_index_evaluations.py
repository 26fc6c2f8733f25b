"""Evaluations that ask an index: recall of known documents, planted ones, and steps on the best."""

import numpy as np
import pytest
import torch

from gindex.errors import ConfigError, NonFiniteError, SettingsMismatchError, UnknownDocumentError
from gindex.lab.evaluations import poison, recall
from gindex.lab.evaluations.config import EXACT, FUNNEL, INDEX, RANDOM, RankingsConfig, TailPatchConfig
from gindex.lab.evaluations.rankings import rank
from gindex.lab.evaluations.recall import Sought, evaluate_recall, ranks_of
from gindex.lab.evaluations.tail_patch import Stepper, evaluate_tail_patch, tail_patch_report
from gindex.lab.report import Source
from gindex.model.losses import CausalLanguageModel
from gindex.model.tracked_model import TrackedModel
from gindex.progress import Silent
from gindex.queries.query import Query
from gindex.queries.tokens import tokenize_query

QUERIES = [Query(prompt="the compiler", completion=" stack heap"), Query(prompt="a race", completion=" lock")]


def test_recall_and_reciprocal_rank_are_those_of_the_definition():
    ranking = [(name, 0.0) for name in "abcdefgh"]
    ranks = [ranks_of(ranking, of) for of in (("c", "a"), ("h",), ("z", "b"))]
    assert ranks == [[1, 3], [8], [2, None]]
    measured = recall.measure(ranks, documents=8)
    assert measured.mrr.mean == pytest.approx((1 + 1 / 8 + 1 / 2) / 3)
    assert {k: v.mean for k, v in measured.recall.items()} == pytest.approx({1: 0.5 / 3, 3: 1.5 / 3})
    assert measured.mrr.low < measured.mrr.mean < measured.mrr.high


def test_planted_documents_are_counted_as_by_definition():
    planted = np.array([False, True, False, True])
    measured = poison.measure(np.array([[4.0, 3.0, 2.0, 1.0], [1.0, 4.0, 3.0, 4.0]]), planted)
    # Query 0: a planted one is above 1 of 2 others, the other above none. Query 1: both are above both.
    assert measured.auc.mean == pytest.approx((0.25 + 1.0) / 2)
    assert measured.precision == pytest.approx((0.5 + 1.0) / 2) and measured.first == 1.5
    assert measured.curve[0] == 0.0 and measured.curve[-1] == 1.0


def test_rankings_are_what_searches_give(index):
    count = len(index.ids())
    few = RankingsConfig(candidates=20)
    by = {method: rank(index, QUERIES, method, count, few, Silent()) for method in (INDEX, FUNNEL, EXACT)}
    for query in range(len(QUERIES)):
        exact = dict(by[EXACT][query])
        assert len(exact) == count and list(exact.values()) == sorted(exact.values(), reverse=True)
        assert sorted(document_id for document_id, _ in by[FUNNEL][query]) == sorted(index.ids())
        scores = dict(by[INDEX][query])
        vectors = index.encode(QUERIES[query : query + 1])[0].vector_D[None]
        assert sum(scores.values()) == pytest.approx(float(index.scores(vectors).sum()), rel=1e-4)
        first = by[FUNNEL][query][:10]  # 20 parts were re-ranked, of at least 10 documents
        values = [exact[document_id] for document_id, _ in first]
        assert values == sorted(values, reverse=True)
    shuffled = rank(index, QUERIES, RANDOM, 5, RankingsConfig(), Silent())
    assert shuffled == rank(index, QUERIES, RANDOM, 5, RankingsConfig(), Silent()) and shuffled[0] != shuffled[1]


def test_recall_finds_the_document_that_is_the_query(index):
    text = index.document("d7").text
    sought = [Sought(query=Query(prompt=text), documents=("d7",))]
    measured = evaluate_recall(index, sought, RankingsConfig(methods=(EXACT, "bm25")), Silent())
    assert measured.methods[EXACT].ranks[0][0] <= 3
    with pytest.raises(UnknownDocumentError, match=r"query 1: .*'missing'"):
        evaluate_recall(index, [Sought(query=QUERIES[0], documents=("missing",))], RankingsConfig(), Silent())


def test_poison_needs_some_documents_and_not_all(index):
    with pytest.raises(ConfigError, match=r"where: .* found 150"):
        poison.evaluate_poison(index, QUERIES, "number >= 0", RankingsConfig(), Silent())
    measured = poison.evaluate_poison(index, QUERIES, "number < 10", RankingsConfig(methods=(INDEX, RANDOM)), Silent())
    assert measured.planted == 10 and measured.documents == 150
    assert 0.2 < measured.methods[RANDOM].auc.mean < 0.8


def test_a_step_changes_the_loss_as_its_gradient_says(index):
    """A small step of SGD raises the log-likelihood by rate times the inner product of the two gradients."""
    rate = 2e-4
    stepper = Stepper(index, QUERIES, TailPatchConfig(optimizer="sgd", rate=rate))
    engine = TrackedModel.load(index.model.config)
    task = CausalLanguageModel(engine.loaded.model)
    weights = list(engine.loaded.model.requires_grad_(True).parameters())

    def gradient(objective):
        batch = engine.batches([objective], np.array([0]), 0)[0]
        return torch.autograd.grad(task.losses(batch).sum(), weights)

    name = next(i for i in index.ids() if len(index.objectives(i)) == 1 and len(index.objectives(i)[0]) > 8)
    (part,) = index.objectives(name)
    document = gradient(part)
    for number, query in enumerate(QUERIES):
        asked = tokenize_query(query, engine.loaded)
        inner = sum((g * h).sum() for g, h in zip(gradient(asked.objective), document, strict=True))
        expected = rate * float(inner) / (len(part) - 1)
        # The second order is below 2% at this rate, and losses of about 20 nats are rounded to 2e-6.
        assert stepper.gains(name, [number])[0] == pytest.approx(expected, rel=0.05, abs=4e-6)
    before = stepper.before
    assert stepper._losses(range(len(QUERIES))) == pytest.approx(before, abs=0)


def test_tail_patch_goes_on_from_finished_steps(index, tmp_path, monkeypatch):
    config = TailPatchConfig(methods=(INDEX, EXACT, RANDOM), k=3, rate=1e-3)
    whole = evaluate_tail_patch(index, QUERIES, config, Silent(), tmp_path / "w")
    assert whole.methods[EXACT].gain.mean > whole.methods[RANDOM].gain.mean
    steps = len(list((tmp_path / "w/steps").glob("*.json")))
    assert steps == whole.steps
    monkeypatch.setattr(Stepper, "gains", lambda *_: pytest.fail("a finished step was taken again"))
    again = evaluate_tail_patch(index, QUERIES, config, Silent(), tmp_path / "w")
    source = Source.of(index)
    assert tail_patch_report(again, source).numbers == tail_patch_report(whole, source).numbers
    with pytest.raises(SettingsMismatchError):
        evaluate_tail_patch(index, QUERIES, TailPatchConfig(methods=(INDEX,), rate=1e-2), Silent(), tmp_path / "w")


def test_a_step_that_explodes_is_named(index):
    with pytest.raises(NonFiniteError, match=r"document '.*': .* lower `rate`"):
        config = TailPatchConfig(methods=(RANDOM,), k=1, optimizer="sgd", rate=1e30)
        evaluate_tail_patch(index, QUERIES, config, Silent())
