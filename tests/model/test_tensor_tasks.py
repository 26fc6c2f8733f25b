"""Classification and regression: losses, sampled labels, the loss's Hessian, and labels that the model cannot give."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from gindex.errors import LabelError, ModelError, ShapeError
from gindex.model.tensor_batches import TensorBatch, tensor_batches
from gindex.model.tensor_tasks import Classification, Regression

WIDE = torch.float64


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Dropout(), nn.Linear(5, 4)).double()


def batch(labels: torch.Tensor, first: int = 0) -> TensorBatch:
    """Documents with random inputs."""
    inputs = torch.randn(len(labels), 3, dtype=WIDE, generator=torch.Generator().manual_seed(1))
    return tensor_batches(inputs, labels, ordinals=range(first, first + len(labels)))[0]


def test_losses_are_those_of_the_definition(model):
    classes, values = torch.tensor([0, 3, 1]), torch.randn(3, 4, dtype=WIDE)
    out = Classification(model).outputs(batch(classes))
    assert not model.training
    expected = -out.softmax(1).log()[torch.arange(3), classes]
    torch.testing.assert_close(Classification(model).losses(batch(classes)), expected)
    torch.testing.assert_close(Regression(model).losses(batch(values)), (out - values).square().sum(1) / 2)


@pytest.mark.parametrize("task", [Classification, Regression])
def test_sampled_gradients_have_the_hessian_as_covariance(task, model):
    """E[grad grad^T] over the labels that a model draws is the Hessian of its loss in the outputs: the true Fisher."""
    copies = 40_000
    inputs = torch.randn(1, 3, dtype=WIDE).expand(copies, 3)
    many = TensorBatch(inputs=inputs, labels=torch.zeros(copies), ordinals=np.arange(copies))
    made = task(model)
    leaf = made.outputs(many).detach().requires_grad_(True)
    made.run = lambda _inputs: leaf
    (g,) = torch.autograd.grad(made.sampled_losses(many, range(copies)).sum(), leaf)
    hessian = made.output_hessian(leaf[:4].detach(), torch.eye(4, dtype=WIDE))
    # Entries are means of products of at most about 1 with 3: 5 standard errors of 40,000 draws.
    torch.testing.assert_close(g.T @ g / copies, hessian, rtol=0, atol=5 * 1.5 / copies**0.5)
    assert g.mean(0).abs().max() < 5 / copies**0.5


@pytest.mark.parametrize("task", [Classification, Regression])
def test_the_hessian_is_that_of_autograd(task, model):
    labels = torch.tensor([2]) if task is Classification else torch.randn(1, 4, dtype=WIDE)
    made, one = task(model), batch(labels)
    outputs = made.outputs(one).detach()

    def loss(row: torch.Tensor) -> torch.Tensor:
        made.run = lambda _inputs: row[None]
        return made.losses(one).sum()

    expected = torch.autograd.functional.hessian(loss, outputs[0])
    got = made.output_hessian(outputs.expand(4, 4), torch.eye(4, dtype=WIDE))
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("task", [Classification, Regression])
def test_sampled_losses_do_not_depend_on_the_batch(task, model):
    made, all_at_once = task(model), batch(torch.zeros(4))
    together = made.sampled_losses(all_at_once, [5, 6, 7, 8])
    for n, seed in enumerate([5, 6, 7, 8]):
        one = TensorBatch(
            inputs=all_at_once.inputs[n : n + 1], labels=torch.zeros(1), ordinals=all_at_once.ordinals[n : n + 1]
        )
        torch.testing.assert_close(made.sampled_losses(one, [seed])[0], together[n], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_outside_the_classes_names_its_document(model, label):
    expected = f"document 12: expected a label from 0 to 3, the model's classes, found {label}; correct"
    with pytest.raises(LabelError, match=expected):
        Classification(model).losses(batch(torch.tensor([0, 3, label]), first=10))


def test_a_value_that_is_not_finite_names_its_document(model):
    values = torch.zeros(3, 4)
    values[1, 2] = float("nan")
    with pytest.raises(LabelError, match="document 11: expected finite values"):
        Regression(model).losses(batch(values, first=10))


def test_labels_and_outputs_of_another_shape(model):
    with pytest.raises(ShapeError, match="expected 4 values for each of 3 documents, found shape \\(3, 2\\)"):
        Regression(model).losses(batch(torch.zeros(3, 2)))
    with pytest.raises(ShapeError, match="expected one whole number for each of 3 documents"):
        Classification(model).losses(batch(torch.zeros(3)))
    with pytest.raises(ShapeError, match="found 2 inputs, 3 labels"):
        tensor_batches(torch.zeros(2, 3), torch.zeros(3))
    picture = nn.Sequential(nn.Unflatten(1, (3, 1)))
    picture.weight = nn.Parameter(torch.zeros(1))
    with pytest.raises(ModelError, match="expected outputs of shape \\[documents, values\\], found \\(3, 3, 1\\)"):
        Classification(picture).losses(batch(torch.zeros(3).long()))


def test_one_output_needs_no_axis():
    model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)).double()
    assert Regression(model).losses(batch(torch.zeros(3))).shape == (3,)


def test_sequence_classifiers_of_transformers_ignore_padding():
    """Keyword inputs, an attention mask, layers of all tokens and layers behind the pooling."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3
    )
    task = Classification(BertForSequenceClassification(config))
    tokens, mask = torch.randint(20, (2, 6)), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    both = TensorBatch(
        inputs={"input_ids": tokens, "attention_mask": mask}, labels=torch.tensor([0, 2]), ordinals=np.arange(2)
    )
    assert both.mask.tolist() == mask.bool().tolist()
    alone = TensorBatch(
        inputs={"input_ids": tokens[1:, :4], "attention_mask": mask[1:, :4]},
        labels=both.labels[1:],
        ordinals=np.arange(1),
    )
    torch.testing.assert_close(task.losses(both)[1], task.losses(alone)[0], rtol=1e-5, atol=1e-6)  # float32


@pytest.mark.parametrize(
    "mask",
    [
        torch.tensor([[0.0, 0.0, -1e9]]),  # added to scores: 0 for real tokens
        torch.ones(1, 1, 1, 3),
        torch.ones(1, 3, 3),
        torch.zeros(1, 3, dtype=torch.long),
    ],
    ids=["additive", "of heads", "of pairs", "nothing"],
)
def test_a_mask_of_another_kind_is_refused(mask):
    """Read as the usual one, it would call padding real, or real tokens padding."""
    batch = TensorBatch(
        inputs={"input_ids": torch.ones(1, 3, dtype=torch.long), "attention_mask": mask},
        labels=torch.zeros(1, dtype=torch.long),
        ordinals=np.arange(1),
    )
    with pytest.raises(ShapeError, match="attention_mask: expected \\[documents, tokens\\] with 1 for real tokens"):
        _ = batch.mask
