"""Pictures of evaluations."""

from pathlib import Path

import numpy as np

from gindex.lab.evaluations.lds import Lds
from gindex.lab.evaluations.mislabel import INSPECTED, Mislabel
from gindex.lab.evaluations.removal import BOTTOM, RANDOM, Removal
from gindex.lab.fidelity_plot import import_pyplot


def plot_lds(measured: Lds, path: Path) -> None:
    """Write a picture of the methods' scores with their intervals, best first, under the ceiling of noise."""
    ordered = sorted(measured.methods.items(), key=lambda item: item[1].lds.mean)
    figure, axes = import_pyplot().subplots(figsize=(7, 1.2 + 0.3 * len(ordered)), layout="constrained")
    means = np.array([method.lds.mean for _, method in ordered])
    spans = np.array([[m.lds.mean - m.lds.low, m.lds.high - m.lds.mean] for _, m in ordered]).T.clip(min=0)
    axes.errorbar(means, range(len(ordered)), xerr=spans, fmt="o", capsize=3)
    axes.set_yticks(range(len(ordered)), [name for name, _ in ordered])
    axes.axvline(0, color="0.8", linewidth=1)
    if measured.ceiling is not None:
        axes.axvline(measured.ceiling, color="0.5", linestyle="--", label="ceiling: noise between trainings")
        axes.legend(loc="lower right", fontsize="small")
    axes.set(xlabel="linear datamodelling score (95% interval)")
    axes.set_title(
        f"{measured.experiment}: {measured.config.subsets} subsets of {measured.config.share:.0%} of "
        f"{measured.documents:,} documents, {measured.queries} queries",
        fontsize="medium",
    )
    figure.savefig(path, dpi=150)


def plot_removal(measured: Removal, path: Path) -> None:
    """Write a picture of how the loss changed, by number of documents left out."""
    figure, axes = import_pyplot().subplots(figsize=(7, 4.5), layout="constrained")
    lines = dict.fromkeys((change.method, change.end) for change in measured.changes)
    colors = {method: f"C{n}" for n, method in enumerate(dict.fromkeys(m for m, _ in lines if m))}
    apart = 0.012 * max(
        measured.config.removed
    )  # between the points of one number, so that intervals do not cover others
    for position, (method, end) in enumerate(lines):
        points = [change for change in measured.changes if (change.method, change.end) == (method, end)]
        means = np.array([point.change.mean for point in points])
        spans = np.array([[p.change.mean - p.change.low, p.change.high - p.change.mean] for p in points]).T.clip(min=0)
        axes.errorbar(
            [point.removed + apart * (position - len(lines) / 2) for point in points],
            means,
            yerr=spans,
            capsize=3,
            marker="o",
            color=colors.get(method, "0.4"),
            linestyle="--" if end == BOTTOM else ":" if end == RANDOM else "-",
            label=f"{method}, {end}" if method else end,
        )
    axes.axhline(0, color="0.8", linewidth=1)
    axes.set(xlabel="documents left out", ylabel="change of the query's loss (95% interval)")
    axes.set_title(f"{measured.experiment}: {len(measured.queries)} queries, {measured.documents:,} documents")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def plot_mislabel(measured: Mislabel, path: Path) -> None:
    """Write a picture of how many changed labels are found by looking at the most suspect first."""
    figure, axes = import_pyplot().subplots(figsize=(6, 4.5), layout="constrained")
    for name, each in sorted(measured.methods.items(), key=lambda item: -item[1].auc.mean):
        axes.plot(INSPECTED, each.curve, label=f"{name}: AUC {each.auc.mean:.3f}")
    axes.plot([0, 1], [0, 1], "--", color="0.6", label="by chance")
    axes.set(xlabel="share of documents inspected", ylabel="share of changed labels found", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(f"{measured.experiment}: {measured.changed} of {measured.documents:,} labels changed")
    axes.legend(loc="lower right", fontsize="small")
    figure.savefig(path, dpi=150)
