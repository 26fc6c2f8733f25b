"""Bootstrap intervals of means, quick for groups of any size.

A group of n documents is drawn from n times with replacement. Documents of a large group are put together at random
into `LOTS` lots of equal size, and lots are drawn: their totals vary as those of as many documents do, and the
interval's width is then known to within 1 / sqrt(2 LOTS), about 2%, for a thousandth of the work. The interval is
between the percentiles of the resampled means, their distance from the mean times sqrt(n / (n - 1)): resamples of n
documents vary by so much less than n documents do.

Axes: N documents of a group, L lots, B resamples.

Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapters 6 and 13.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

RESAMPLES, LOTS = 1000, 1024
TAILS = (0.025, 0.975)

Floats = npt.NDArray[np.float64]


class MeanBootstrap:
    """The 95% intervals of the means of groups. Groups of one size share their resamples, which the seed alone sets."""

    def __init__(self, seed: int) -> None:
        """Draw nothing yet."""
        self._seed = seed
        self._shares = lru_cache(maxsize=8)(self._draw)

    def interval(self, scores_N: Floats) -> tuple[float, float] | None:
        """The interval of the mean of the scores of N documents; None for fewer than two."""
        count = len(scores_N)
        if count < 2:
            return None
        mean, lots = float(scores_N.mean()), min(count, LOTS)
        deviations_L = self._deviations(scores_N - mean, lots)
        low, high = np.quantile(self._shares(lots) @ deviations_L, TAILS) * np.sqrt(lots / (lots - 1))
        return mean + float(low), mean + float(high)

    def _deviations(self, centred_N: Floats, lots: int) -> Floats:
        """What each lot adds to the mean, times the number of lots [L]."""
        count = len(centred_N)
        if count == lots:
            return centred_N
        lot_N = np.random.default_rng(self._seed).permutation(count) % lots
        deviations_L: Floats = np.bincount(lot_N, centred_N, lots).astype(np.float64) * (lots / count)
        return deviations_L

    def _draw(self, lots: int) -> Floats:
        """Share of each lot in each resample [B, L]."""
        drawn_BL = np.random.default_rng(self._seed).integers(0, lots, (RESAMPLES, lots))
        drawn_BL += np.arange(RESAMPLES)[:, None] * lots
        counts_BL = np.bincount(drawn_BL.ravel(), minlength=RESAMPLES * lots).reshape(RESAMPLES, lots)
        return counts_BL / lots
