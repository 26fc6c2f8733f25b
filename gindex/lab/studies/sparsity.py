"""How few documents carry the influence: shares of the top, and the shape of the tail.

Source: Grosse et al. 2023, arXiv:2308.03296.

Axes: Q queries, N parts.
"""

from dataclasses import asdict
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.errors import ConfigError
from gindex.exact.fidelity import FidelityQueries
from gindex.index import GradientIndex
from gindex.lab.plots import FAINT, SERIES
from gindex.lab.report import Figure, Report, Section, Table, spread
from gindex.lab.statistics import mean_interval, top_share
from gindex.lab.studies.config import SparsityConfig
from gindex.lab.studies.material import Material, Ranked
from gindex.lab.studies.power_law import LEAST_TAIL, PowerLaw, fit_power_law
from gindex.progress import Progress
from gindex.queries.query import Query

FRACTIONS = (0.0001, 0.001, 0.01, 0.1)
"""Top fractions of the parts whose share is reported, where they are at least one part."""

CAVEATS = (
    "Influence here is that of EK-FAC: a linear estimate around the trained weights. It says which way a small change "
    "of the corpus would push, not what a model trained without the top documents would say; they may stand in for "
    "each other.",
    "A share is of the positive influence on one query, measured in nats and not divided by the number of documents. "
    "Long parts have more to give than short ones.",
    "The share of a fixed fraction depends on how many parts were ranked: the same tail looks more concentrated in a "
    "larger corpus. Compare studies of like size.",
    "A tail of a few hundred values can rule a power law out or leave it standing; it cannot prove one. A lognormal "
    "tail looks much the same over so short a range and was not tried. Where parts were drawn rather than all ranked, "
    "the far tail is seen thinned out.",
)


def study_sparsity(
    index: GradientIndex,
    config: SparsityConfig,
    queries: list[Query] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure how concentrated the influence on queries is.

    Args:
        index: The index; exact influence is recomputed for every part that is ranked.
        config: What to draw.
        queries: The reader's own; without them parts of the index are drawn, each leaving its own document out.
        progress: Where the work is reported.

    Raises:
        ConfigError: There are too few documents or parts.
    """
    material = Material(index, progress)
    if queries is None:
        asked = material.queries(config.sample, config.seed)
    else:
        asked = FidelityQueries(
            tokens=[material.asked(query) for query in queries], documents=np.full(len(queries), -1)
        )
    _check_parts(material, config)
    ranked = material.rank(asked, config.parts, config.seed)
    own = [row[counted] for row, counted in zip(ranked.influence, ranked.counted, strict=True)]
    fits = []
    with material.progress.phase("tails", len(own), "queries") as phase:
        for row in own:
            fits.append(fit_power_law(row[row > 0].astype(np.float64), config.resamples, config.seed))
            phase.advance()
    shares = {fraction: [top_share(row, fraction) for row in own] for fraction in FRACTIONS}
    return _report(material, config, ranked, own, fits, shares, len(queries or []))


def _check_parts(material: Material, config: SparsityConfig) -> None:
    parts = material.count(config.parts)
    if parts < 4 * LEAST_TAIL:
        raise ConfigError(
            field="study sparsity",
            expected=f"at least {4 * LEAST_TAIL} parts to rank",
            found=parts,
            remedy="index more",
        )


def gaussian_share(fraction: float) -> float:
    """Part of the positive sum that the top `fraction` of values adds, where they are Gaussian around zero."""
    return float(np.exp(-(NormalDist().inv_cdf(1 - fraction) ** 2) / 2))


def _report(
    material: Material,
    config: SparsityConfig,
    ranked: Ranked,
    own: list[npt.NDArray[np.float32]],
    fits: list[PowerLaw],
    shares: dict[float, list[float | None]],
    given: int,
) -> Report:
    known = {f: np.array([s for s in found if s is not None]) for f, found in shares.items()}
    means = {f: mean_interval(found, config.seed) for f, found in known.items() if len(found)}
    plausible = sum(fit.plausible for fit in fits)
    alphas = np.array([fit.alpha for fit in fits])
    beyond = sum(fit.against_exponential > 2 for fit in fits)
    top_fraction = 0.01 if 0.01 in means else max(means)
    top = means[top_fraction]
    numbers: dict[str, Any] = {
        "queries": len(own),
        "parts": len(ranked.parts),
        "top_share": {f"{f:g}": asdict(means[f]) if f in means else None for f in FRACTIONS},
        "gaussian_share": {f"{f:g}": gaussian_share(f) for f in FRACTIONS},
        "positive_share": asdict(mean_interval(np.array([(row > 0).mean() for row in own]), config.seed)),
        "plausible_power_laws": plausible,
        "heavier_than_exponential": beyond,
        "fits": [asdict(fit) for fit in fits],
    }
    findings = (
        f"The top {top_fraction:.0%} of {len(ranked.parts):,} parts carry {spread(top, '.0%')} of the positive "
        f"influence on a query, on average over {len(own)} queries; of Gaussian noise it would be "
        f"{gaussian_share(top_fraction):.0%}.",
        f"A power law fits the tail of {plausible} of {len(own)} queries (p of at least 0.1); its exponent is "
        f"{np.median(alphas):.2f} in the middle, from {alphas.min():.2f} to {alphas.max():.2f}. Clearly heavier than "
        f"an exponential: {beyond} of the tails.",
    )
    return Report(
        name="sparsity",
        title="How few documents carry the influence?",
        findings=findings,
        sections=(_shares(own, means), _tails(own, fits), _extremes(material, ranked, own)),
        caveats=CAVEATS,
        sources=(material.source,),
        settings=asdict(config) | {"queries": "given" if given else "drawn from the index"},
        numbers=numbers,
    )


def _shares(own: list[npt.NDArray[np.float32]], means: dict[float, Any]) -> Section:
    def fill(axes: Any) -> None:
        for row in own:
            falling = np.maximum(np.sort(row.astype(np.float64))[::-1], 0)
            steps = np.arange(1, len(row) + 1) / len(row)
            axes.plot(steps, np.cumsum(falling) / falling.sum(), color=SERIES[0], alpha=0.25, linewidth=1)
        grid = np.geomspace(1 / len(own[0]), 0.499, 60)
        axes.plot(grid, [gaussian_share(f) for f in grid], "--", color=FAINT, label="Gaussian noise")
        axes.plot([], [], color=SERIES[0], label="a query")
        axes.set(xscale="log", ylim=(0, 1.02), xlabel="top fraction of the parts", ylabel="share of positive influence")
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        axes.legend(loc="upper left")

    rows = tuple(
        (f"{100 * f:g}%", spread(means[f], ".1%") if f in means else "less than one part", f"{gaussian_share(f):.1%}")
        for f in FRACTIONS
    )
    return Section(
        title="Share of the top",
        figures=(
            Figure(
                label="Share of the positive influence in the top fraction of the parts",
                fill=fill,
                caption="Each line is a query; the further left it rises, the fewer parts carry the influence.",
            ),
        ),
        tables=(
            Table(
                header=("top", "share of influence", "Gaussian noise"),
                rows=rows,
                caption="Mean over the queries, with its 95% interval by bootstrap.",
            ),
        ),
    )


def _tails(own: list[npt.NDArray[np.float32]], fits: list[PowerLaw]) -> Section:
    def tails(axes: Any) -> None:
        for row, fit in zip(own, fits, strict=True):
            falling = np.sort(row[row > 0].astype(np.float64))[::-1] / fit.x_min
            axes.plot(falling, np.arange(1, len(falling) + 1) / fit.tail, color=SERIES[0], alpha=0.3, linewidth=1)
        middle = sorted(fits, key=lambda fit: fit.alpha)[len(fits) // 2]
        x = np.geomspace(1, max(float(row.max()) / fit.x_min for row, fit in zip(own, fits, strict=True)), 50)
        axes.plot(x, x ** (1 - middle.alpha), "--", color=SERIES[1], label=f"power law, exponent {middle.alpha:.2f}")
        axes.plot([], [], color=SERIES[0], label="a query")
        axes.set(xscale="log", yscale="log", xlabel="influence / start of the tail", ylabel="parts above / tail")
        axes.set(xlim=(0.02, None), ylim=(1 / max(fit.tail for fit in fits) / 2, None))
        axes.legend(loc="lower left")

    def exponents(axes: Any) -> None:
        for y, fit in enumerate(sorted(fits, key=lambda fit: fit.alpha)):
            colour = SERIES[2] if fit.plausible else SERIES[1]
            axes.plot([fit.low, fit.high], [y, y], color=colour, linewidth=1.2)
            axes.plot(fit.alpha, y, "o", color=colour, markersize=3)
        axes.plot([], [], "o-", color=SERIES[2], markersize=3, label="power law stands")
        axes.plot([], [], "o-", color=SERIES[1], markersize=3, label="ruled out (p < 0.1)")
        axes.set(xlabel="exponent of the density", ylabel="queries", yticks=[])
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)

    return Section(
        title="Shape of the tail",
        text=(
            "Of each query's positive influences the tail is fitted with a power law by maximum likelihood; it begins "
            "where the fit is closest. Synthetic samples from each fit tell whether the distance that remains is "
            "chance.",
        ),
        figures=(
            Figure(
                label="How many parts lie above an influence",
                fill=tails,
                caption="A power law is a straight line here.",
            ),
            Figure(
                label="Exponents of the tails with their intervals",
                fill=exponents,
                height=3.6,
                caption="Exponent of each query's tail, with its 95% interval by bootstrap; smaller is heavier.",
            ),
        ),
    )


def _extremes(material: Material, ranked: Ranked, own: list[npt.NDArray[np.float32]]) -> Section:
    concentration = [float(np.sort(row)[::-1][0] / np.maximum(row, 0).sum(dtype=np.float64)) for row in own]
    quotes = []
    for query, name in ((int(np.argmax(concentration)), "most"), (int(np.argmin(concentration)), "least")):
        row = np.where(ranked.counted[query], ranked.influence[query], -np.inf)
        best = int(ranked.parts[int(np.argmax(row))])
        note = f"the top part of the {name} concentrated query: {concentration[query]:.0%} of its positive influence"
        quotes.append(material.quote(best, note))
    return Section(title="The two extremes", quotes=tuple(quotes))
