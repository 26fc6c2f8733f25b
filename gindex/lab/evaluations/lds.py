"""The linear datamodelling score: do sums of influence predict what training on a random subset does?

For a random subset S of the documents, the prediction for query q is the sum of q's scores over S, and the outcome is
minus q's loss after training on S, a mean over repeats. LDS is Spearman's correlation of the two over the subsets, a
mean over queries.

Axes: Q queries, M subsets, N documents, R repeats, K = R M trainings, B bootstrap resamples.

Source: Park et al. 2023, arXiv:2303.14186.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.errors import ConfigError
from gindex.lab.evaluations.config import LdsConfig
from gindex.lab.evaluations.training import Losses, Method, Ordinals, Scores
from gindex.lab.evaluations.work_folder import WorkFolder
from gindex.lab.plots import FAINT, draw_intervals
from gindex.lab.report import Figure, Report, Section, Table, spread
from gindex.lab.statistics import correlation_samples, interval, query_correlations
from gindex.progress import Progress
from gindex.statistics import Interval

CAVEATS = (
    "Subsets leave many documents out at once. A method can predict them well and yet be wrong about any single "
    "document; `gindex evaluate removal` looks at few.",
    "Sums take the effects of documents to add up. Where documents stand in for each other, no method that gives each "
    "one score can predict all of the outcome.",
    "The interval is over queries and subsets, for this model, recipe and corpus. Which method is best differs between "
    "models.",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodLds:
    """One method's score.

    Attributes:
        lds: Mean over queries, with an interval over queries and subsets.
        queries: Correlation of each query [Q].
        samples: Bootstrap resamples of the mean [B], the same draws for every method.
    """

    lds: Interval
    queries: npt.NDArray[np.float64]
    samples: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Lds:
    """What was measured.

    Attributes:
        experiment: Name of the training function.
        config: Subsets and repeats.
        documents: N.
        queries: Q.
        ceiling: What the best of all predictions could reach, given the noise that repeats leave; None for one repeat.
        methods: By name.
    """

    experiment: str
    config: LdsConfig
    documents: int
    queries: int
    ceiling: float | None
    methods: dict[str, MethodLds]


def lds_report(measured: Lds) -> Report:
    """What was measured, for readers and for programs."""
    config = measured.config
    scores = {name: method.lds for name, method in measured.methods.items()}
    ordered = dict(sorted(scores.items(), key=lambda item: -item[1].mean))
    best = next(iter(ordered))
    findings = [
        f"{measured.experiment}: {measured.documents:,} documents, {measured.queries:,} queries, {config.subsets} "
        f"subsets of {config.share:.0%}, {config.repeats} trainings on each",
        f"{best} predicts best what training on a subset does: LDS {spread(ordered[best], '.3f')}.",
    ]
    if measured.ceiling is not None:
        findings.append(f"More than {measured.ceiling:.3f} is lost in the noise between trainings.")

    def fill(axes: Any) -> None:
        draw_intervals(axes, ordered, "linear datamodelling score")
        if measured.ceiling is not None:
            axes.axvline(measured.ceiling, color=FAINT, linestyle="--", linewidth=1)

    figure = Figure(
        label="Linear datamodelling score of each method",
        fill=fill,
        caption="Mean over the queries, with its 95% interval. What lies beyond the dashed line, if there is one, is "
        "lost in the noise between trainings.",
        height=1.2 + 0.3 * len(ordered),
    )
    table = Table(
        header=("method", "LDS"),
        rows=tuple((name, spread(value, ".3f")) for name, value in ordered.items()),
        caption="95% intervals, by bootstrap over queries and subsets at once.",
    )
    return Report(
        name="lds",
        title="Do sums of influence predict what training on a subset does?",
        findings=tuple(findings),
        sections=(Section(title="Methods by their score", figures=(figure,), tables=(table,)),),
        caveats=CAVEATS,
        settings=asdict(config),
        numbers={
            "experiment": measured.experiment,
            **asdict(config),
            "documents": measured.documents,
            "queries": measured.queries,
            "ceiling": None if measured.ceiling is None else round(measured.ceiling, 4),
            "lds": {
                name: {side: round(value, 4) for side, value in asdict(interval).items()}
                for name, interval in scores.items()
            },
        },
    )


def draw_subsets(documents: int, config: LdsConfig) -> list[Ordinals]:
    """Draw random subsets, each in order; the first ones are the same however many are drawn."""
    size = round(config.share * documents)
    if not 0 < size < documents:
        raise ConfigError(
            field="share", expected=f"to leave some of {documents} documents in and some out", found=config.share
        )
    return [
        np.sort(np.random.default_rng((config.seed, m)).choice(documents, size, replace=False)).astype(np.int64)
        for m in range(config.subsets)
    ]


def evaluate_lds(work: WorkFolder, methods: Mapping[str, Method], config: LdsConfig, progress: Progress) -> Lds:
    """Train on random subsets and compare with what methods predict.

    Args:
        work: The experiment with its finished trainings.
        methods: What to compare, by name.
        config: Subsets and repeats.
        progress: Where the work is reported.

    Raises:
        ConfigError: A method's scores have another shape, or are not finite.
        TrainingError: See `WorkFolder.losses`.
    """
    subsets = draw_subsets(work.experiment.documents, config)
    seeds = [config.seed + repeat for repeat in range(config.repeats) for _ in subsets]
    losses_KQ = work.losses(subsets * config.repeats, seeds, progress)
    outcomes_RQM = -losses_KQ.reshape(config.repeats, len(subsets), -1).swapaxes(1, 2)
    scored: dict[str, MethodLds] = {}
    with progress.phase("score", len(methods), "methods") as phase:
        for name, method in methods.items():
            shape = outcomes_RQM.shape[1], work.experiment.documents
            scored[name] = compare(scores_of(name, method, shape), subsets, outcomes_RQM.mean(0))
            phase.advance()
    return Lds(
        experiment=work.experiment.name,
        config=config,
        documents=work.experiment.documents,
        queries=outcomes_RQM.shape[1],
        ceiling=ceiling(outcomes_RQM),
        methods=scored,
    )


def scores_of(name: str, method: Method, shape: tuple[int, int]) -> Scores:
    """A method's scores [Q, N].

    Raises:
        ConfigError: They have another shape, or are not finite.
    """
    scores_QN = np.asarray(method(), np.float64)
    if scores_QN.shape != shape:
        raise ConfigError(
            field=name,
            expected=f"scores of {shape[0]} queries and {shape[1]} documents",
            found=f"shape {scores_QN.shape}",
        )
    if not np.isfinite(scores_QN).all():
        query, document = np.argwhere(~np.isfinite(scores_QN))[0]
        raise ConfigError(
            field=name,
            expected="finite scores",
            found=f"{scores_QN[query, document]} for query {query} and document {document}",
            remedy="leave the method out",
        )
    return scores_QN


def compare(scores_QN: Scores, subsets: list[Ordinals], outcomes_QM: Losses) -> MethodLds:
    """Correlation of the sums of scores over subsets with the outcomes [Q, M] of training on them."""
    predicted_QM = np.stack([scores_QN[:, subset].sum(1) for subset in subsets], 1)
    queries_Q = query_correlations(predicted_QM, outcomes_QM)
    samples_B = correlation_samples(predicted_QM, outcomes_QM)
    return MethodLds(lds=interval(float(queries_Q.mean()), samples_B), queries=queries_Q, samples=samples_B)


def ceiling(outcomes_RQM: Losses) -> float | None:
    """The LDS of the best possible prediction, the expected outcome: the rest is noise between repeats.

    The means of two halves of the repeats correlate by r. For k times as many repeats as a half has, k r / (1 + (k - 1)
    r) of the variance of their mean is not noise (Spearman and Brown); its root is the best correlation.

    Args:
        outcomes_RQM: Outcomes of every repeat [R, Q, M].

    Returns:
        Its mean over queries; None for a single repeat.
    """
    repeats = len(outcomes_RQM)
    if repeats < 2:
        return None
    half = repeats // 2
    r_Q = query_correlations(outcomes_RQM[:half].mean(0), outcomes_RQM[half : 2 * half].mean(0)).clip(min=0)
    k = repeats / half
    return float(np.sqrt(k * r_Q / (1 + (k - 1) * r_Q)).mean())
