"""Trials of gradients: against autograd, and that of a document whatever is in its batch or behind it."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from gindex.check.documents import AFTER, followed
from gindex.check.result import NO, NOT_TRIED, OK, WARNING, Finding
from gindex.check.sketch import Sketches, sketch
from gindex.corpus.objectives import Objective
from gindex.model.causality import LENGTH
from gindex.model.gradient_check import COARSE_GRADIENT_TOLERANCE, GRADIENT_TOLERANCE, GradientError, gradient_errors
from gindex.model.tasks.causal import CausalKind
from gindex.model.tracked_model import TrackedModel

GRADIENTS, CAUSALITY = "gradients", "causality"

COARSE = 10.0
"""Multiple of what counts as rounding, up to which 16 bits are warned of: routers and other choices fall otherwise."""


def autograd_finding(model: TrackedModel, objectives: Sequence[Objective]) -> Finding:
    """Compare the gradients of every tracked layer with those of autograd, all documents weighted in one loss."""
    kind = objectives[0].kind
    alike = [objective for objective in objectives if objective.kind == kind]
    alike = alike[:1] if alike[0].is_alone else alike
    errors = _errors(model, alike)
    if (pictured := next((each for each in objectives if each.is_alone), alike[0])) is not alike[0]:
        errors = {name: _worse(errors[name], of) for name, of in _errors(model, [pictured]).items()}
        alike = [*alike, pictured]
    reached = {name: error.relative for name, error in errors.items() if error.relative is not None}
    worst = max(reached, key=lambda name: reached[name]) if reached else ""
    error = reached.get(worst, 0.0)
    verdict = graded(error, errors[worst].tolerance if worst else 0.0, model.dtype)
    where = f", {worst}" if error else ""
    unreached = f"; no gradient reaches {len(errors) - len(reached)} layers" if len(reached) < len(errors) else ""
    return Finding(
        section=GRADIENTS,
        name="autograd",
        found=f"{len(errors)} layers, {len(alike)} documents: largest relative error {error:.1g}{where}{unreached}",
        verdict=verdict,
        remedy="" if verdict == OK else f"leave the layer out with `untrack` {worst}, or use `dtype` float32",
        figures={"error": error, "layer": worst, "layers": len(errors), "documents": len(alike)},
    )


def _errors(model: TrackedModel, objectives: Sequence[Objective]) -> dict[str, GradientError]:
    """How far the gradients of every layer are from autograd's, over one batch of documents."""
    (batch,) = model.batches(objectives, np.arange(len(objectives)), sum(map(len, objectives)) * len(objectives))
    with model.alone():
        return gradient_errors(
            model.table.layers, lambda _documents: model.task.losses(batch), len(objectives), batch.texts
        )


def _worse(first: GradientError, second: GradientError) -> GradientError:
    return max(first, second, key=lambda error: -1.0 if error.relative is None else error.relative)


def invariance_findings(
    model: TrackedModel, objectives: Sequence[Objective], together: Sketches, tried: int
) -> Iterator[Finding]:
    """See that a document's gradient is the same alone as in a batch, and with other tokens behind it.

    Args:
        model: The model.
        objectives: The documents.
        together: Their gradients in one batch.
        tried: Tokens of the sequences that the model was tried on when it was loaded.
    """
    alone = sketch(model, objectives, together=False)
    yield _difference(GRADIENTS, "batch", "together and alone", together.difference(alone), model.dtype)
    kind = model.loaded.kind
    if not isinstance(kind, CausalKind):
        found = f"{kind.described} reads all tokens of a text"
        yield Finding(section=CAUSALITY, name="later tokens", found=found, verdict=NOT_TRIED)
        return
    after = sketch(model, followed(model, objectives), together=False)
    what = f"with {AFTER} other tokens behind each"
    yield _difference(CAUSALITY, "later tokens", what, after.difference(alone), model.dtype)
    yield Finding(
        section=CAUSALITY,
        name="lengths",
        found=f"no logit of {min(LENGTH, tried)} tokens, no loss of {tried:,}, moves with a later token",
        figures={"tokens": tried},
    )


def _difference(section: str, name: str, what: str, worst: tuple[float, str], dtype: torch.dtype) -> Finding:
    error, layer = worst
    verdict = graded(error, tolerance(dtype), dtype)
    return Finding(
        section=section,
        name=name,
        found=f"{what}: largest relative difference {error:.1g}{f', {layer}' if error else ''}",
        verdict=verdict,
        remedy="" if verdict == OK else "a document's vector would depend on its batch: use `dtype` float32",
        figures={"difference": error, "layer": layer},
    )


def tolerance(dtype: torch.dtype) -> float:
    """What counts as rounding of a gradient in a number format."""
    return GRADIENT_TOLERANCE.get(dtype, COARSE_GRADIENT_TOLERANCE)


def graded(error: float, most: float, dtype: torch.dtype) -> str:
    """The verdict on an error: in 16 bits a larger one is a warning, up to a bound."""
    if error <= most:
        return OK
    return WARNING if dtype.itemsize == 2 and error <= COARSE * most else NO
