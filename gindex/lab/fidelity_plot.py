"""Draw what was measured: scores against influence, and how deep the true top lies.

Axes: Q queries, N parts.
"""

from pathlib import Path
from typing import Any

import numpy as np

from gindex.distribution import install_hint
from gindex.errors import ConfigError, MissingDependencyError
from gindex.exact.fidelity import Fidelity
from gindex.statistics import overlap

FORMATS = (".pdf", ".png", ".svg")
DEPTHS = 60
"""Points of the curve."""


def check_plot(path: Path) -> None:
    """Check, before any work, that a picture can be written.

    Raises:
        ConfigError: The format is unknown, or there is no such folder.
        MissingDependencyError: matplotlib is not installed.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(field="plot", expected=f"a file ending in {', '.join(FORMATS)}", found=path)
    if not path.absolute().parent.is_dir():
        raise ConfigError(field="plot", expected="an existing folder", found=f"none at {path.parent}")
    import_pyplot()


def plot_fidelity(measured: Fidelity, path: Path) -> None:
    """Write a picture: scores against influence, each query scaled to unit spread, and the depth of the true top 10."""
    figure, (left, right) = import_pyplot().subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    pairs = list(zip(measured.scores, measured.influence, measured.ranked, strict=True))
    for scores_N, influence_N, ranked_N in pairs:
        x, y = influence_N[ranked_N], scores_N[ranked_N]
        left.plot(_scaled(x), _scaled(y), ".", markersize=2, alpha=0.5, rasterized=True)
    left.set(xlabel="exact influence (standard deviations)", ylabel="stored score (standard deviations)")
    left.set_title(f"Pearson {measured.measures['pearson'].mean:.3f}")
    least = int(measured.ranked.sum(1).min())
    windows = np.unique(np.geomspace(min(10, least), least, DEPTHS).astype(int))
    share = [np.mean([overlap(s[own], i[own], int(w), 10) for s, i, own in pairs]) for w in windows]
    right.semilogx(windows, share)
    right.semilogx(windows, windows / least, "--", color="0.6", label="by chance")
    right.set(xlabel="best scores looked at", ylabel="share of the true top 10", ylim=(0, 1.02))
    right.set_title(f"{measured.queries} queries, {measured.parts:,} parts")
    right.legend(loc="lower right")
    figure.savefig(path, dpi=150)


def _scaled(values_N: Any) -> Any:
    return values_N / (values_N.std() or 1.0)


def import_pyplot() -> Any:
    """Return matplotlib's pyplot, which draws into files alone.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingDependencyError(
            field="plot", expected="matplotlib to be installed", found=f"none ({error})", remedy=install_hint("plots")
        ) from error
    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot
