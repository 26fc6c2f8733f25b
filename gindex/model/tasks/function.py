"""Tasks of a user's own: a function of the model and a batch of tensors that gives the loss of each document.

    def transcription(model, batch):
        logits = transcription.outputs(model, batch)
        return cross_entropy(logits.transpose(1, 2), batch["labels"], reduction="none").sum(1)

    transcription.columns = "input_features", "labels"
    transcription.outputs = lambda model, batch: model(**batch).logits
    transcription.likelihood = "classification"

Beside the losses, curvature needs those of labels that are drawn from the model: of `outputs` by a `likelihood`, or by
a function `sampled(model, batch, generators)` of its own.

Axes: N documents, P outputs of a document, V values of each, K values of a label.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gindex.corpus.batches import TokenBatch, pad
from gindex.corpus.contents import Content
from gindex.corpus.objectives import Objective
from gindex.errors import ConfigError, GindexError, ModelError
from gindex.model.devices import to_device
from gindex.model.isolation import alone
from gindex.model.library_messages import first_line
from gindex.model.named_functions import load_function
from gindex.model.tasks.likelihoods import Binary, Categorical, Gaussian, Likelihood
from gindex.model.tasks.plain import PlainTask
from gindex.model.tolerances import is_same_product, relative_error

Tensors = Mapping[str, Tensor]
Losses = Callable[[nn.Module, Tensors], Tensor]
SampledLosses = Callable[[nn.Module, Tensors, Sequence[torch.Generator]], Tensor]

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "classification": Categorical,
    "multi-label": Binary,
    "regression": Gaussian,
}
"""How labels are drawn from outputs, by name: a class, several classes, or values with a variance of 1/2."""

TRIED = 11
"""Documents that a task is tried on."""


@dataclass(frozen=True, kw_only=True)
class TaskFunction:
    """A function of a user's own, and what stands beside it.

    Attributes:
        name: Its name, as it was given.
        losses: Gives the losses [N] of a batch of tensors [N, ...] by column, in nats, differentiable.
        columns: Columns that a batch has.
        sampled: Gives them with labels drawn from the model, by one generator a document.
        outputs: Gives the outputs [N, ..., V] that a likelihood draws labels from, in the place of `sampled`.
        likelihood: That likelihood.
    """

    name: str
    losses: Losses
    columns: tuple[str, ...]
    sampled: SampledLosses | None
    outputs: Losses | None
    likelihood: Likelihood | None

    @classmethod
    def load(cls, name: str) -> "TaskFunction":
        """Import a function by its name.

        Raises:
            ConfigError: It cannot be imported, or lacks something.
        """
        where, _, attribute = name.rpartition(":")
        function = load_function(name, where, attribute)
        function = function() if isinstance(function, type) else function
        columns, sampled = getattr(function, "columns", ()), getattr(function, "sampled", None)
        outputs, likelihood = getattr(function, "outputs", None), getattr(function, "likelihood", None)
        if not callable(function) or isinstance(columns, str) or not all(isinstance(each, str) for each in columns):
            found = "something that is not called" if not callable(function) else f"columns {columns!r}"
            raise ConfigError(field=name, expected="a function, and a list of names as its `columns`", found=found)
        if sampled is None and (outputs is None or likelihood not in LIKELIHOODS):
            raise ConfigError(
                field=name,
                expected=f"`sampled`, or `outputs` and as `likelihood` one of {', '.join(LIKELIHOODS)}, beside it",
                found=f"the likelihood {likelihood!r}" if outputs is not None else "neither",
                remedy="see docs/tasks.md",
            )
        return cls(
            name=name,
            losses=function,
            columns=tuple(columns),
            sampled=sampled,
            outputs=outputs,
            likelihood=None if likelihood is None else LIKELIHOODS[likelihood](),
        )


class FunctionTask(PlainTask):
    """A model with a loss of a user's own: a `ModelTask`."""

    reads_tokens = False
    vocabulary = 1
    probe_tokens = 1

    def __init__(self, model: nn.Module, function: TaskFunction, examples: Sequence[Objective]) -> None:
        """Wrap a model; its weights are frozen and dropout is off.

        Args:
            model: The model.
            function: Its loss.
            examples: Documents that it is tried on.
        """
        self.model, self._function = model.requires_grad_(False).eval(), function
        self._examples = list(examples)

    @property
    def device(self) -> torch.device:
        """Device of the model's weights."""
        return next(self.model.parameters()).device

    def trial(self, ids: npt.NDArray[np.uint32]) -> Objective:
        """Return one of the documents to try the model on; the first id says which."""
        return self._examples[int(ids[0]) % len(self._examples)]

    def logits(self, batch: TokenBatch) -> Tensor:
        """Return the losses [N]: all that is known of the model."""
        return self._losses(batch)

    def outputs(self, batch: TokenBatch) -> Tensor:
        """Return the outputs [N * P, V], float32 or wider.

        Raises:
            ConfigError: The function has none.
        """
        return self._outputs(batch).flatten(0, 1)

    def output_hessian(self, outputs_MV: Tensor, v_MV: Tensor) -> Tensor:
        """Return the Hessian of the loss in the outputs, at each position, times v [M, V]."""
        return self._drawing[1].hessian(outputs_MV, v_MV)

    def losses(self, batch: TokenBatch) -> Tensor:
        """Return the loss [N] of each document times its weight, in nats, differentiable.

        Raises:
            ModelError: The function gives something else.
        """
        return self._weighted(batch, self._losses(batch))

    def sampled_losses(self, batch: TokenBatch, seeds: Sequence[int]) -> Tensor:
        """Return the same [N] with labels drawn from the model, one seed [N] an objective.

        Raises:
            ModelError: The function gives something else.
        """
        if self._function.sampled is not None:
            generators = [torch.Generator("cpu").manual_seed(seed % (1 << 63)) for seed in seeds]
            losses_N = self._function.sampled(self.model, self._tensors(batch), generators)
            return self._weighted(batch, self._checked(losses_N, len(seeds), "sampled losses"))
        outputs_NPV, likelihood = self._outputs(batch), self._drawing[1]
        _, P, V = outputs_NPV.shape
        generators_N = [np.random.Generator(np.random.Philox(seed)) for seed in seeds]
        noise = np.concatenate([likelihood.noise(generator, P, V) for generator in generators_N])
        outputs_MV = outputs_NPV.flatten(0, 1)
        labels_MK = likelihood.sampled(outputs_MV.detach(), to_device(noise, self.device))
        return self._weighted(batch, likelihood.losses(outputs_MV, labels_MK).view(len(seeds), P).sum(1))

    @property
    def _drawing(self) -> tuple[Losses, Likelihood]:
        """What gives outputs, and the likelihood of labels given them."""
        outputs, likelihood = self._function.outputs, self._function.likelihood
        if outputs is None or likelihood is None:
            raise ConfigError(
                field=self._function.name,
                expected="`outputs` and a `likelihood` beside it, which this needs",
                found="`sampled` alone",
                remedy="see docs/tasks.md",
            )
        return outputs, likelihood

    def _tensors(self, batch: TokenBatch) -> dict[str, Tensor]:
        """The tensors [N, ...] of a batch by column, floating ones in the model's format."""
        contents: Sequence[Content] = batch.contents or ()
        documents, dtype = [content.tensors() for content in contents], next(self.model.parameters()).dtype
        stacked = {name: np.stack([tensors[name] for tensors in documents]) for name in documents[0]}
        moved = {name: to_device(array, self.device) for name, array in stacked.items()}
        return {name: x.to(dtype) if x.is_floating_point() else x for name, x in moved.items()}

    def _losses(self, batch: TokenBatch) -> Tensor:
        losses_N = self._function.losses(self.model, self._tensors(batch))
        return self._checked(losses_N, len(batch.ordinals), "losses")

    def _outputs(self, batch: TokenBatch) -> Tensor:
        """The outputs [N, P, V]."""
        N = len(batch.ordinals)
        found = self._drawing[0](self.model, self._tensors(batch))
        if not isinstance(found, Tensor) or found.dim() < 2 or len(found) != N or not found.is_floating_point():
            raise self._unlike("outputs", f"outputs of shape [{N} documents, ..., values]", found)
        return found.reshape(N, -1, found.shape[-1]).to(torch.promote_types(found.dtype, torch.float32))

    def _checked(self, losses_N: object, documents: int, what: str) -> Tensor:
        if not isinstance(losses_N, Tensor) or losses_N.shape != (documents,) or not losses_N.is_floating_point():
            raise self._unlike(what, f"{what} of shape [{documents}], one for each document", losses_N)
        return losses_N.to(torch.promote_types(losses_N.dtype, torch.float32))

    def _unlike(self, what: str, expected: str, found: object) -> ModelError:
        shown = f"{list(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
        return ModelError(field=f"{self._function.name}, {what}", expected=expected, found=shown, remedy="correct it")

    def _weighted(self, batch: TokenBatch, losses_N: Tensor) -> Tensor:
        return losses_N * to_device(batch.weights[:, 0], self.device).to(losses_N.dtype)

    def check(self) -> None:
        """Try the function on a few documents: their losses are finite, differentiable, and each one's own.

        Raises:
            ModelError: They are not, or the function fails.
        """
        name, numbers = self._function.name, np.arange(len(self._examples))
        batch = pad(self._examples, numbers)
        with alone(self.model):
            self.model.requires_grad_(True)
            try:
                together = self.losses(batch), self.sampled_losses(batch, numbers.tolist())
                alone_N = torch.cat([self.losses(pad([each], numbers[:1])) for each in self._examples])
            except GindexError:
                raise
            except Exception as error:
                raise ModelError(
                    field=name,
                    expected=f"a function of the model and of {self._examples[0].texts[0].content.shown}",  # type: ignore[union-attr]
                    found=f"that it fails ({type(error).__name__}: {first_line(error)})",
                    remedy="correct it",
                ) from error
            finally:
                self.model.requires_grad_(False)
        for what, losses_N in zip(("losses", "sampled losses"), together, strict=True):
            if not losses_N.requires_grad:
                found = "some that do not depend on the weights, or are detached"
                raise ModelError(field=f"{name}, {what}", expected="differentiable ones", found=found)
            if not torch.isfinite(losses_N).all():
                raise ModelError(field=f"{name}, {what}", expected="finite ones", found=losses_N.tolist())
        together_N, alone_N = together[0].detach(), alone_N.detach()
        if not is_same_product(together_N, alone_N.to(next(self.model.parameters()).dtype)):
            raise ModelError(
                field=f"{name}, losses",
                expected="that of each document alone, whatever is in its batch",
                found=f"them moved by {relative_error(together_N, alone_N):.2g} of their size by the others",
                remedy="return sums over each document, not means over the batch",
            )
