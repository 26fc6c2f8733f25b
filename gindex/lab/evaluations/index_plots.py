"""Pictures of evaluations that ask an index."""

from pathlib import Path

import numpy as np

from gindex.lab.evaluations.poison import INSPECTED, Poison
from gindex.lab.evaluations.recall import Recall, shares_within
from gindex.lab.evaluations.tail_patch import TailPatch
from gindex.lab.fidelity_plot import import_pyplot


def plot_recall(measured: Recall, path: Path) -> None:
    """Write a picture of how many of the sought documents are among the first k."""
    figure, axes = import_pyplot().subplots(figsize=(6, 4.5), layout="constrained")
    depths = np.unique(np.geomspace(1, measured.documents, 60).astype(int))
    for name, method in sorted(measured.methods.items(), key=lambda item: -item[1].mrr.mean):
        shares = [shares_within(method.ranks, int(k)).mean() for k in depths]
        axes.semilogx(depths, shares, label=f"{name}: MRR {method.mrr.mean:.3f}")
    axes.semilogx(depths, depths / measured.documents, "--", color="0.6", label="by chance")
    axes.set(xlabel="first documents looked at", ylabel="share of the sought documents", ylim=(0, 1.02))
    axes.set_title(f"{measured.queries} queries, {measured.documents:,} documents")
    axes.legend(loc="lower right", fontsize="small")
    figure.savefig(path, dpi=150)


def plot_poison(measured: Poison, path: Path) -> None:
    """Write a picture of how many planted documents are found by looking at the most suspect first."""
    figure, axes = import_pyplot().subplots(figsize=(6, 4.5), layout="constrained")
    for name, method in sorted(measured.methods.items(), key=lambda item: -item[1].auc.mean):
        axes.plot(INSPECTED, method.curve, label=f"{name}: AUC {method.auc.mean:.3f}")
    axes.plot([0, 1], [0, 1], "--", color="0.6", label="by chance")
    axes.set(xlabel="share of documents inspected", ylabel="share of planted ones found", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(f"{measured.planted} of {measured.documents:,} documents planted")
    axes.legend(loc="lower right", fontsize="small")
    figure.savefig(path, dpi=150)


def plot_tail_patch(measured: TailPatch, path: Path) -> None:
    """Write a picture of the change of the target's log-likelihood by method."""
    ordered = sorted(measured.methods.items(), key=lambda item: item[1].gain.mean)
    figure, axes = import_pyplot().subplots(figsize=(7, 1.4 + 0.4 * len(ordered)), layout="constrained")
    gains = [method.gain for _, method in ordered]
    spans = np.array([[gain.mean - gain.low, gain.high - gain.mean] for gain in gains]).T.clip(min=0)
    axes.errorbar([gain.mean for gain in gains], range(len(gains)), xerr=spans, fmt="o", capsize=3)
    axes.set_yticks(range(len(ordered)), [name for name, _ in ordered])
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.axvline(0, color="0.8", linewidth=1)
    axes.set(xlabel="change of the target's log-likelihood, in nats (95% interval)")
    axes.set_title(f"one step on each of {measured.config.k} documents, {measured.queries} queries", fontsize="medium")
    figure.savefig(path, dpi=150)
