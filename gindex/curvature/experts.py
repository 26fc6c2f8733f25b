"""Factors of experts: their own where tokens suffice, else shared with the other experts of their fused weight.

Experts that share have one A and S, over the tokens of all experts, and one Lambda, the mean of theirs. What was
measured is in docs/decisions/0018-experts.md.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence

from gindex.curvature.covariance import CovarianceObserver, TokenMoment
from gindex.model.layers import TrackedLayer

logger = logging.getLogger(__name__)

ENOUGH_TOKENS = 1.0
"""Tokens of an expert, for each row of the larger covariance, from which on its factors are its own."""


def expected_sharing(layers: Iterable[TrackedLayer], tokens: int) -> tuple[TrackedLayer, ...]:
    """The layers as they are fitted on so many tokens: experts share factors where the mean one gets too few.

    Otherwise each expert has sums of its own, and `settled_sharing` looks at the tokens that it has got.

    Args:
        layers: Tracked layers.
        tokens: Tokens of the fit.
    """
    return tuple(_sharing(layer, layer.token_share * tokens) for layer in layers)


def settled_sharing(layers: Sequence[TrackedLayer], covariances: CovarianceObserver) -> tuple[TrackedLayer, ...]:
    """The layers as they are after the first pass, when the tokens of each expert are known.

    Args:
        layers: Tracked layers, as they were fitted.
        covariances: What was fitted. Where experts have come to share factors, the sums over all experts are added, and
            those of their own dropped.
    """
    A, S = covariances.activation_moments, covariances.gradient_moments
    settled = tuple(_sharing(layer, int(S[layer.factors].tokens)) for layer in layers)
    _merge(A, layers, settled, lambda layer: layer.source)
    _merge(S, layers, settled, lambda layer: layer.factors)
    return settled


def _sharing(layer: TrackedLayer, tokens: float) -> TrackedLayer:
    """A layer that shares factors where it is an expert of so few tokens."""
    if layer.expert is None or tokens >= ENOUGH_TOKENS * max(layer.inputs, layer.outputs):
        return layer
    return layer.sharing()


def _merge(
    moments: dict[str, TokenMoment],
    before: Sequence[TrackedLayer],
    settled: Sequence[TrackedLayer],
    key: Callable[[TrackedLayer], str],
) -> None:
    pairs = list(zip(before, settled, strict=True))
    merged = {now.whole for layer, now in pairs if now.shares_factors and not layer.shares_factors}
    for layer, now in pairs:
        if layer.whole in merged:
            own = moments.pop(key(layer)) if now.shares_factors else moments[key(layer)]
            if layer.whole not in moments:
                moments[layer.whole] = TokenMoment.zeros(own.side, own.totals[0].dtype, own.totals[0].device)
            moments[layer.whole].add_moment(own)


def report_unreached(layers: Sequence[TrackedLayer], flat: Collection[str]) -> None:
    """Say which experts have no curvature, as no token of the fit came to them or to those that they share it with.

    So it is with the layers that pictures alone reach, where no document of the fit has any.

    Args:
        layers: Tracked layers.
        flat: Those `TrackedLayer.factors` whose corrected eigenvalues are all 0.
    """
    experts = [layer for layer in layers if layer.expert is not None and not layer.alone]
    unreached = [layer.name for layer in experts if layer.factors in flat]
    if unreached:
        logger.warning(
            "%d of %d experts have no curvature, such as %s: no token of the fit came to them, and they are whitened "
            "by damping alone; fit on more documents with `fit_documents`",
            len(unreached), len(experts), unreached[0],
        )  # fmt: skip
    pictured = [layer.name for layer in layers if layer.alone]
    if pictured and all(layer.factors in flat for layer in layers if layer.alone):
        logger.warning(
            "the %d layers that pictures alone reach, such as %s, have no curvature and no influence: no document of "
            "the fit has a picture; leave them out with `untrack`, or fit on more documents with `fit_documents`",
            len(pictured), pictured[0],
        )  # fmt: skip
