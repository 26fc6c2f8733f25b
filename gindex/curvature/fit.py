"""Fit EK-FAC: two passes over a sample of documents, with eigendecompositions between them.

The drivers only loop; the formulas are in `covariance`, `eigenbasis` and `eigenvalues`. Labels are sampled from the
model, afresh in each pass, with a seed that depends on the document alone.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.curvature.basis import Basis
from gindex.curvature.covariance import CovarianceObserver
from gindex.curvature.eigenvalues import EigenvalueObserver
from gindex.errors import NonFiniteError
from gindex.model.capture import observe
from gindex.model.layers import TrackedLayer
from gindex.model.losses import Task
from gindex.model.observer import Chosen, Observer

logger = logging.getLogger(__name__)

COVARIANCE_STREAM, EIGENVALUE_STREAM = 1, 2
"""Keep the labels sampled in the two passes independent of one another."""


class DocumentBatch(Protocol):
    """What fitting needs to know of a batch."""

    @property
    def ordinals(self) -> npt.NDArray[np.int64]:
        """Part ordinals [N]."""
        ...

    @property
    def texts(self) -> int:
        """Rows of each document; see `observe`."""
        ...

    @property
    def masks(self) -> tuple[npt.NDArray[np.bool_], ...]:
        """Real tokens [N, T], of all texts of a document; [N, 1] stands for all positions of every layer."""
        ...


Batch = TypeVar("Batch", bound=DocumentBatch)


def label_seeds(seed: int, stream: int, ordinals: npt.NDArray[np.int64]) -> list[int]:
    """A seed for each document's sampled labels that does not depend on its batch."""
    return [int(np.random.SeedSequence((seed, stream, int(n))).generate_state(1, np.uint64)[0]) for n in ordinals]


def fit_covariances(
    layers: Sequence[TrackedLayer],
    task: Task[Batch],
    batches: Iterable[Batch],
    seed: int,
    dtype: torch.dtype = torch.float32,
    done: Callable[[int], None] = lambda _documents: None,
    only: Collection[str] | None = None,
) -> CovarianceObserver:
    """Accumulate A and S of every layer.

    Args:
        layers: Tracked layers.
        task: The model with its loss.
        batches: Batches of the sample.
        seed: Seed of the sampled labels.
        dtype: Number format of the sums.
        done: Called after each batch with its number of documents.
        only: Names of the layers to fit; None for all. The passes are the same.

    Returns:
        The observer that holds the sums.

    Raises:
        NonFiniteError: No document has a finite loss.
    """
    observer = CovarianceObserver(dtype=dtype)
    shown = observer if only is None else Chosen(observer, only)
    _pass(layers, task, batches, shown, seed, COVARIANCE_STREAM, done, lambda batch: observer.begin(*_masks(batch)))
    return observer


def fit_eigenvalues(
    layers: Sequence[TrackedLayer],
    task: Task[Batch],
    batches: Iterable[Batch],
    bases: tuple[dict[str, Basis], dict[str, Basis]],
    seed: int,
    done: Callable[[int], None] = lambda _documents: None,
    only: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Compute the corrected eigenvalues of every layer.

    Args:
        layers: Tracked layers.
        task: The model with its loss.
        batches: Batches of the sample.
        bases: Q_A by source name and Q_S by `TrackedLayer.factors`, on the model's device.
        seed: Seed of the sampled labels.
        done: Called after each batch with its number of documents.
        only: Names of the layers to fit; None for all. The passes are the same.

    Returns:
        Lambda [O, I] by `TrackedLayer.factors`, a mean over documents.

    Raises:
        NonFiniteError: No document has a finite loss.
    """
    observer = EigenvalueObserver(activation_bases=bases[0], gradient_bases=bases[1])
    shown = observer if only is None else Chosen(observer, only)
    _pass(layers, task, batches, shown, seed, EIGENVALUE_STREAM, done, lambda _batch: observer.begin())
    return observer.means()


def _pass(
    layers: Sequence[TrackedLayer],
    task: Task[Batch],
    batches: Iterable[Batch],
    observer: Observer,
    seed: int,
    stream: int,
    done: Callable[[int], None],
    begin: Callable[[Batch], None],
) -> None:
    """Observe every batch with sampled labels."""
    documents = bad = 0
    for batch in batches:
        begin(batch)
        seeds = label_seeds(seed, stream, batch.ordinals)
        losses_N = observe(layers, observer, len(seeds), partial(task.sampled_losses, batch, seeds), batch.texts)
        documents += len(losses_N)
        bad += int((~torch.isfinite(losses_N)).sum())
        done(len(losses_N))
    if documents == bad:
        raise NonFiniteError(
            expected="documents with a finite loss to fit on",
            found=f"none in {documents}",
            remedy="check the model's weights or run with `dtype` float32",
        )
    if bad:
        logger.warning("%d parts of the fit have a loss that is not finite and are left out of it", bad)


def _masks(batch: DocumentBatch) -> list[Tensor]:
    return [torch.from_numpy(mask) for mask in batch.masks]
