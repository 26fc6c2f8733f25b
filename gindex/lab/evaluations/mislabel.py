"""Mislabelled documents: does a method find the labels that were changed?

A share of the labels is changed to another class, the model is trained on all documents, and each method says how
suspect each label is (self-influence, for one). Measured are the area under the ROC curve, the chance that a changed
label is more suspect than another, and how many are found by looking at the most suspect first.

Axes: N documents, P changed ones, S shares inspected.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.errors import ConfigError, TrainingError
from gindex.lab.evaluations.config import MislabelConfig
from gindex.lab.evaluations.training import Experiment, Ordinals, Relabels
from gindex.lab.evaluations.work_folder import WorkFolder, key_of
from gindex.lab.plots import draw_detection
from gindex.lab.report import Figure, Report, Section, Table, spread
from gindex.lab.statistics import detection_curve, mean_interval, placements
from gindex.progress import Progress
from gindex.statistics import Interval

INSPECTED = np.linspace(0, 1, 101)
"""Shares of the documents that are looked at, most suspect first."""

LEAST_CHANGED = 20
"""Fewest changed labels, over all repeats, that an interval is given for."""

CAVEATS = (
    "Labels were changed at random. Mistakes that people make are between classes that are alike, and are harder to "
    "find.",
    "The data may have wrong labels of its own. To find one of those counts as a false alarm here.",
    "A method that finds wrong labels need not rank documents for a query well: it is asked about a document alone.",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """One method's success.

    Attributes:
        auc: Area under the ROC curve, with an interval by bootstrap over the changed labels.
        found: Share of the changed labels found by inspecting as many documents as were changed.
        curve: Share found by inspecting the shares `INSPECTED` [S].
    """

    auc: Interval
    found: float
    curve: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Mislabel:
    """What was measured."""

    experiment: str
    config: MislabelConfig
    documents: int
    changed: int
    methods: dict[str, Detection]


def mislabel_report(measured: Mislabel) -> Report:
    """What was measured, for readers and for programs."""
    ordered = dict(sorted(measured.methods.items(), key=lambda item: -item[1].auc.mean))
    best = next(iter(ordered))
    curves = {name: each.curve.tolist() for name, each in ordered.items()}
    figure = Figure(
        label="Changed labels found by looking at the most suspect first",
        fill=lambda axes: draw_detection(axes, INSPECTED.tolist(), curves, "changed labels"),
        caption="A mean over the trainings, each with other changed labels.",
    )
    table = Table(
        header=("method", "AUC", "found"),
        rows=tuple((name, spread(each.auc, ".3f"), f"{each.found:.0%}") for name, each in ordered.items()),
        caption="Area under the ROC curve with its 95% interval, by bootstrap over the changed labels; and the share "
        "found by inspecting as many as were changed.",
    )
    return Report(
        name="mislabel",
        title="Does a method find labels that were changed?",
        findings=(
            f"{measured.experiment}: {measured.changed:,} of {measured.documents:,} labels changed, "
            f"{measured.config.repeats} trainings",
            f"{best} finds them best: a changed label is more suspect than another in "
            f"{spread(ordered[best].auc, '.1%')} of pairs.",
        ),
        sections=(Section(title="Methods by what they find", figures=(figure,), tables=(table,)),),
        caveats=CAVEATS,
        settings=asdict(measured.config),
        numbers={
            "experiment": measured.experiment,
            **asdict(measured.config),
            "documents": measured.documents,
            "changed": measured.changed,
            "methods": {
                name: {"auc": asdict(each.auc), "found": each.found, "curve": each.curve.round(4).tolist()}
                for name, each in measured.methods.items()
            },
        },
    )


def change_labels(labels: Ordinals, classes: int, share: float, seed: tuple[int, ...]) -> tuple[Ordinals, Ordinals]:
    """Change a share of labels to another class, each other one as likely.

    Returns:
        The labels [N], and the ordinals of the changed ones [P].
    """
    generator = np.random.default_rng(seed)
    changed = np.sort(generator.choice(len(labels), max(1, round(share * len(labels))), replace=False))
    result = labels.copy()
    result[changed] = (labels[changed] + generator.integers(1, classes, len(changed))) % classes
    return result, changed


def evaluate_mislabel(work: WorkFolder, config: MislabelConfig, progress: Progress) -> Mislabel:
    """Change labels, train, and see which methods find them.

    Args:
        work: The experiment, whose function has labels, with its finished trainings.
        config: How many labels, how often.
        progress: Where the work is reported.

    Raises:
        ConfigError: The function has no labels to change, or there are too few.
        TrainingError: The function fails, or says something else than a finite number for each document.
    """
    function = work.experiment.function
    if not isinstance(function, Relabels):
        raise ConfigError(
            field=work.experiment.name,
            expected="`labels`, `classes` and `suspicion(labels, seed)`, whose labels can be changed",
            found="none",
            remedy="the training function `digits` has them",
        )
    labels = np.asarray(function.labels, np.int64)
    changed = max(1, round(config.share * len(labels)))
    if changed * config.repeats < LEAST_CHANGED:
        raise ConfigError(
            field="repeats",
            expected=(
                f"at least {-(-LEAST_CHANGED // changed)} for a confidence interval with {changed} changed labels each"
            ),
            found=config.repeats,
        )
    found: dict[str, list[tuple[npt.NDArray[np.float64], Ordinals]]] = {}
    with progress.phase("train and score", config.repeats, "trainings") as phase:
        for repeat in range(config.repeats):
            spoilt, where = change_labels(labels, function.classes, config.share, (config.seed, repeat))
            for method, suspicion_N in _suspicion(work, spoilt, config.seed + repeat).items():
                found.setdefault(method, []).append((suspicion_N, where))
            phase.advance()
    return Mislabel(
        experiment=work.experiment.name,
        config=config,
        documents=len(labels),
        changed=changed,
        methods={method: _detection(pairs) for method, pairs in found.items()},
    )


def _suspicion(work: WorkFolder, labels: Ordinals, seed: int) -> dict[str, npt.NDArray[np.float64]]:
    key = key_of(labels.tolist(), seed)
    record = work.get("mislabel", key)
    if record is None:
        record = _checked(work.experiment, labels, seed)
        work.put("mislabel", key, record)
    return {method: np.array(values, np.float64) for method, values in record.items()}


def _checked(experiment: Experiment, labels: Ordinals, seed: int) -> dict[str, Any]:
    try:
        returned = experiment.function.suspicion(labels, seed)
        suspicion = {name: np.asarray(values, np.float64) for name, values in returned.items()}
    except Exception as error:
        raise TrainingError(
            field=experiment.name,
            expected=f"suspicions after a training with seed {seed}",
            found=f"{type(error).__name__}: {error}",
            remedy="correct the function; finished trainings are kept",
        ) from error
    for name, values_N in suspicion.items():
        if values_N.shape != labels.shape or not np.isfinite(values_N).all():
            raise TrainingError(
                field=experiment.name,
                expected=f"a finite number for each of {len(labels)} documents from {name}",
                found=f"shape {values_N.shape}, {int(np.isfinite(values_N).sum())} of them finite",
            )
    return {name: values_N.tolist() for name, values_N in suspicion.items()}


def _detection(pairs: list[tuple[npt.NDArray[np.float64], Ordinals]]) -> Detection:
    places, curves, found = [], [], []
    for suspicion_N, where in pairs:
        positive_N = np.zeros(len(suspicion_N), bool)
        positive_N[where] = True
        places.append(placements(suspicion_N[positive_N], suspicion_N[~positive_N]))
        curves.append(detection_curve(suspicion_N, positive_N, INSPECTED))
        found.append(float(detection_curve(suspicion_N, positive_N, np.array([positive_N.mean()]))[0]))
    return Detection(auc=mean_interval(np.concatenate(places)), found=float(np.mean(found)), curve=np.mean(curves, 0))
