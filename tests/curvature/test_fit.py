"""What is fitted does not depend on how the documents are put into batches, nor on bad documents among them."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

from gindex.curvature.basis import DenseBasis
from gindex.curvature.eigenbasis import eigenbasis
from gindex.curvature.fit import COVARIANCE_STREAM, EIGENVALUE_STREAM, fit_covariances, fit_eigenvalues, label_seeds
from gindex.errors import NonFiniteError
from gindex.model.losses import CausalLanguageModel

# float64 sums in another order, after forward passes whose attention was padded differently.
REORDERED = {"rtol": 1e-9, "atol": 1e-13}


def fit(setting, batches, dtype=torch.float64, seed=5):
    covariances = fit_covariances(setting.layers, setting.task, batches, seed, dtype)
    moments = (covariances.activation_moments, covariances.gradient_moments)
    A, S = ({name: moment.mean() for name, moment in side.items()} for side in moments)
    return tokens_of(covariances), A, S


def tokens_of(covariances):
    (tokens,) = {int(moment.tokens) for moment in covariances.gradient_moments.values()}
    return tokens


def identity_bases(setting, dtype=torch.float64):
    return (
        {layer.source: DenseBasis(torch.eye(layer.inputs, dtype=dtype)) for layer in setting.layers},
        {layer.name: DenseBasis(torch.eye(layer.outputs, dtype=dtype)) for layer in setting.layers},
    )


@pytest.mark.parametrize("kind", ["language", "classifier"])
def test_eigenvalues_match_autograd(kind, request, gradients_of):
    """Reference: one backward per document, for Lambda in the identity basis."""
    setting = request.getfixturevalue(kind)()
    seeds = label_seeds(5, EIGENVALUE_STREAM, np.arange(setting.count))
    reference = gradients_of(setting, lambda b: setting.task.sampled_losses(b, [seeds[b.ordinals[0]]]))
    Lambda = fit_eigenvalues(setting.layers, setting.task, setting.batches(3), identity_bases(setting), 5)
    for layer in setting.layers:
        torch.testing.assert_close(Lambda[layer.name], reference[layer.name].square().mean(0), **REORDERED)


@pytest.mark.parametrize("kind", ["language", "classifier"])
@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize("shuffled", [False, True])
def test_neither_batch_size_nor_order_matters(kind, size, shuffled, request):
    setting = request.getfixturevalue(kind)()
    order = np.random.default_rng(size).permutation(setting.count).tolist() if shuffled else None
    base, A, S = fit(setting, setting.batches(3))
    other, A_other, S_other = fit(setting, setting.batches(size, order))
    assert other == base
    bases = (
        {name: DenseBasis(eigenbasis(moment, name)[1]) for name, moment in A.items()},
        {name: DenseBasis(eigenbasis(moment, name)[1]) for name, moment in S.items()},
    )
    Lambda, Lambda_other = (
        fit_eigenvalues(setting.layers, setting.task, batches, bases, 5)
        for batches in (setting.batches(3), setting.batches(size, order))
    )
    for got, expected in ((A_other, A), (S_other, S), (Lambda_other, Lambda)):
        assert got.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(got[name], expected[name], **REORDERED)


def test_the_language_model_task_does_not_depend_on_the_batch(language):
    """The same with the task that builds use, whose loss is taken in float32 and whose sums are float32 here."""
    setting = language()
    task = CausalLanguageModel(setting.task.model)
    one, many = (fit_covariances(setting.layers, task, setting.batches(size), 5) for size in (1, setting.count))
    for name, moment in one.gradient_moments.items():
        expected = moment.totals[0]
        # 7 documents of up to 15 tokens: float32 sums, relative to the largest entry.
        atol = 2e-6 * float(expected.abs().max())
        torch.testing.assert_close(many.gradient_moments[name].totals[0], expected, rtol=0, atol=atol)
    Lambda_one, Lambda_many = (
        fit_eigenvalues(setting.layers, task, setting.batches(size), identity_bases(setting, torch.float32), 5)
        for size in (1, setting.count)
    )
    for name, expected in Lambda_one.items():
        torch.testing.assert_close(Lambda_many[name], expected, rtol=0, atol=2e-6 * float(expected.abs().max()))


def test_labels_differ_between_documents_streams_and_seeds():
    ordinals = np.arange(50)
    seeds = [
        *label_seeds(5, COVARIANCE_STREAM, ordinals),
        *label_seeds(5, EIGENVALUE_STREAM, ordinals),
        *label_seeds(6, COVARIANCE_STREAM, ordinals),
    ]
    assert len(set(seeds)) == 150
    assert label_seeds(5, COVARIANCE_STREAM, ordinals[[7, 3]]) == [seeds[7], seeds[3]]


def test_done_is_told_of_every_document(classifier):
    setting = classifier(count=10)
    seen: list[int] = []
    fit_covariances(setting.layers, setting.task, setting.batches(4), 0, done=seen.append)
    fit_eigenvalues(setting.layers, setting.task, setting.batches(4), identity_bases(setting), 0, done=seen.append)
    assert seen == [4, 4, 2] * 2


BAD_TOKEN = 251


def spoiled_language(language, llama: nn.Module, position: int):
    """The Llama with one token id whose embedding is NaN, a document that holds it, and the ordinals of the rest."""
    # Untied, because a tied head would spread the NaN to every logit.
    llama.lm_head.weight = nn.Parameter(llama.lm_head.weight.detach().clone())
    with torch.no_grad():
        llama.model.embed_tokens.weight[BAD_TOKEN] = float("nan")
    setting = language(model=llama)
    bad = 3
    batch = setting.batch([bad])
    tokens = batch.tokens[0].tolist()
    assert len(tokens) > 3
    tokens[position] = BAD_TOKEN
    documents = [setting.batch([n]).tokens[0].tolist() for n in range(setting.count)]
    documents[bad] = tokens
    task = setting.task
    spoiled = type(setting)(task, setting.layers, setting.count, lambda ordinals: task.batch(documents, ordinals))
    return spoiled, [n for n in range(setting.count) if n != bad]


@pytest.mark.parametrize("position", [0, 2, -1], ids=["first", "middle", "last"])
def test_a_document_with_nan_is_left_out_of_the_eigenvalues(language, llama, position):
    setting, rest = spoiled_language(language, llama, position)
    bases = identity_bases(setting)
    got = fit_eigenvalues(setting.layers, setting.task, setting.batches(3), bases, 5)
    expected = fit_eigenvalues(setting.layers, setting.task, setting.batches(3, rest), bases, 5)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], **REORDERED)


@pytest.mark.parametrize("position", [0, 2, -1], ids=["first", "middle", "last"])
def test_a_document_with_nan_is_left_out_of_the_covariances(language, llama, position, caplog):
    setting, rest = spoiled_language(language, llama, position)
    with caplog.at_level(logging.WARNING):
        got, A, S = fit(setting, setting.batches(3))
    assert "1 parts of the fit have a loss that is not finite and are left out of it" in caplog.text
    expected, A_expected, S_expected = fit(setting, setting.batches(3, rest))
    assert got == expected
    for moments, others in ((A, A_expected), (S, S_expected)):
        for name in others:
            torch.testing.assert_close(moments[name], others[name], **REORDERED)


def test_a_document_with_a_finite_loss_and_an_infinite_gradient_is_left_out(classifier):
    """The mean is over the documents that were summed, so it equals a fit on the rest."""
    setting = classifier(count=10)

    class Overflowing(type(setting.task)):
        """Its loss is unchanged, but the gradient of document 3 is infinite: that of sqrt at 0."""

        def sampled_losses(self, batch, seeds):
            losses = super().sampled_losses(batch, seeds)
            at = torch.from_numpy(np.flatnonzero(batch.ordinals == 3))
            return losses.index_add(0, at, (losses - losses.detach())[at].sqrt())

    task, bases = Overflowing(setting.task.model), identity_bases(setting)
    got = fit_eigenvalues(setting.layers, task, setting.batches(4), bases, 5)
    rest = [n for n in range(10) if n != 3]
    expected = fit_eigenvalues(setting.layers, setting.task, setting.batches(4, rest), bases, 5)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], **REORDERED)


def test_only_bad_documents_is_an_error(language, llama):
    setting = language(model=llama)
    with torch.no_grad():
        llama.model.norm.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=r"expected documents with a finite loss to fit on, found none in 6"):
        fit_covariances(setting.layers, setting.task, setting.batches(3, [0, 2, 3, 4, 5, 6]), 0)


def test_no_documents_is_an_error(classifier):
    setting = classifier()
    with pytest.raises(NonFiniteError, match="found none in 0"):
        fit_eigenvalues(setting.layers, setting.task, [], identity_bases(setting), 0)
