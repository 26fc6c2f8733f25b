"""How far new text is from what the factors were fitted on, by the mean whitened norm of some parts.

Whole eigenbases and the damping of exact influence are used. What is stored does not do: its truncated eigenbases drop
the directions that the fit hardly saw, and its damping outweighs them (docs/decisions/0006-far-text.md).
"""

import logging
from functools import partial

import numpy as np

from gindex.build.vector_phase import VectorWork
from gindex.documents.table import DocumentTable
from gindex.progress import Progress
from gindex.store.part_ranges import PartRanges
from gindex.vectors.norms import whitened_norms

logger = logging.getLogger(__name__)

FAR = 1.5
"""Ratio of the mean whitened norms, either way, from which text is called far. On SmolLM2 with factors of 220
dictionary entries: other entries 1.00 to 1.13, English manual pages 1.04, French 1.79, German 2.11."""

PARTS, TOKENS = 24, 128
"""Parts that are measured of each text, and the tokens that are taken of each."""


def mean_whitened_norm(work: VectorWork, table: DocumentTable, parts: PartRanges, progress: Progress) -> float:
    """The geometric mean over some of the parts of |V| / root of the predicted tokens; 0 where none has one.

    The geometric one, because norms are heavy-tailed: a single part of a sample must not decide.

    Args:
        work: Model, factors and settings.
        table: Where the parts' tokens are.
        parts: Those to draw from, with the seed of the build.
        progress: Where the work is reported.
    """
    setup, model, size = work.setup, work.setup.model, work.batch_sizes.fit
    places = np.random.default_rng(setup.config.seed).choice(len(parts), min(PARTS, len(parts)), replace=False)
    drawn = parts.ordinals(places)
    windows = [part.window(TOKENS).unweighted() for part in table.objectives(np.sort(drawn))]
    measured = [part for part in windows if part.targets]
    damping, count = setup.config.curvature.damping_scale, len(measured)
    norms = np.zeros(count)
    batches = model.batches(measured, np.arange(count), size.tokens)
    with progress.phase("compare with the fit", count, "parts") as phase, size.passes(model):
        for batch in batches:
            losses = partial(model.task.losses, batch)
            found = whitened_norms(
                model.table.layers, setup.factors.load, damping, len(batch.ordinals), losses, batch.texts
            )
            norms[batch.ordinals] = found.numpy()
            phase.advance(len(batch.ordinals))
    each = norms / np.sqrt([part.targets for part in measured])
    usable = each[np.isfinite(each) & (each > 0)]
    return float(np.exp(np.log(usable).mean())) if len(usable) else 0.0


def norm_ratio(new: float, fitted: float) -> float:
    """The ratio of two mean whitened norms, 1 where one is missing; warns where it is far from 1."""
    ratio = round(new / fitted, 3) if new and fitted else 1.0
    if is_far(ratio):
        logger.warning(
            "the new text is far from what the factors were fitted on: its mean whitened norm is %.2f times that of "
            "the build's text (near is %.2f to %.2f); trust the new scores less, or build anew over all text",
            ratio,
            1 / FAR,
            FAR,
        )
    return ratio


def is_far(ratio: float) -> bool:
    """Whether a ratio of norms is that of text that the factors do not suit."""
    return not 1 / FAR <= ratio <= FAR
