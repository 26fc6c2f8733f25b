"""Are the documents of large self-influence those that the model knows by heart?

A greedy completion equals the document's own tokens up to the first place where the model's most likely token is
another one. So how far it goes on verbatim is seen in one pass over the document, without generating anything.

Source: Feldman & Zhang 2020, arXiv:2008.03703, for self-influence; Carlini et al. 2022, arXiv:2202.07646, for verbatim
completion.

Axes: N documents, T tokens, C completion tokens.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gindex.corpus.objectives import Objective
from gindex.errors import ConfigError
from gindex.index import GradientIndex
from gindex.lab.plots import FAINT, SERIES, suited_scale
from gindex.lab.report import Figure, Report, Section, Table, spread
from gindex.lab.statistics import area_under_curve, mean_interval, spearman_interval
from gindex.lab.studies.config import MemorizationConfig
from gindex.lab.studies.material import Material, Ordinals
from gindex.progress import Progress

LEAST_DOCUMENTS = 20
LEAST_VERBATIM = 5
"""Fewest documents on either side that are worth comparing."""
BINS = 10
SHOWN = 3

CAVEATS = (
    "Self-influence is computed at the trained weights. A text that has been learnt by heart has little gradient left, "
    "so self-influence here is not what Feldman and Zhang measure, the loss on a document of models trained without "
    "it; a document can be memorised and have a small one.",
    "A verbatim completion can come from a text that is easy to guess, or that stands in many documents. It shows that "
    "the model can say it, not that it learnt it from this document.",
    "Only greedy completion from the document's beginning was tried. Other prompts and sampling bring out more.",
    "Self-influence is that of the stored vectors, with the damping and the ranks of the index, for all tokens of the "
    "part, not of the completion alone.",
)


def study_memorization(index: GradientIndex, config: MemorizationConfig, progress: Progress | None = None) -> Report:
    """Compare self-influence with how far the model goes on verbatim.

    Args:
        index: The index.
        config: What to draw, and how long prompt and completion are.
        progress: Where the work is reported.

    Raises:
        ConfigError: Too few documents are long enough.
    """
    material = Material(index, progress)
    parts = _drawn(material, config)
    right_NC, losses = completion(material, parts, config)
    targets = material.table.part_targets()[parts]
    self_influence = index.snapshot.vectors.self_influence(parts).astype(np.float64) / np.maximum(targets, 1)
    return _report(material, config, parts, right_NC, losses, self_influence)


def _drawn(material: Material, config: MemorizationConfig) -> Ordinals:
    parts, least = material.first_parts(), config.prompt_tokens + config.completion_tokens
    fitting = parts[material.table.part_lengths()[parts] >= least]
    if len(fitting) < LEAST_DOCUMENTS:
        raise ConfigError(
            field="study memorization",
            expected=f"at least {LEAST_DOCUMENTS} documents of {least} tokens or more",
            found=len(fitting),
            remedy="shorten `prompt_tokens` and `completion_tokens`, or index more",
        )
    drawn: Ordinals = np.sort(np.random.default_rng(config.seed).permutation(fitting)[: config.sample])
    return drawn


def completion(
    material: Material, parts: Ordinals, config: MemorizationConfig
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Look at the tokens that follow the prompt, each predicted from all that come before it in the document.

    Returns:
        Whether the most likely token is the document's [N, C], and the mean loss of these tokens in nats [N].
    """
    model, start = material.index.model.tracked, config.prompt_tokens
    stop = start + config.completion_tokens
    tokens = [Objective.counting(own.texts[0].ids[:stop], start) for own in material.table.objectives(parts)]
    right_NC = np.zeros((len(parts), stop - start), bool)
    losses = np.zeros(len(parts))
    with material.progress.phase("completions", len(parts), "documents") as phase:
        for batch in model.batches(tokens, np.arange(len(parts)), 0):
            with model.alone(), torch.no_grad():
                logits_NCV = model.task.logits(batch)[:, start - 1 : stop - 1].float()
            labels_NC = torch.from_numpy(batch.tokens[:, start:stop].astype(np.int64)).to(logits_NCV.device)
            right_NC[batch.ordinals] = (logits_NCV.argmax(-1) == labels_NC).cpu().numpy()
            chosen = logits_NCV.log_softmax(-1).gather(-1, labels_NC[..., None])[..., 0]
            losses[batch.ordinals] = -chosen.mean(1).double().cpu().numpy()
            phase.advance(len(batch.ordinals))
    return right_NC, losses


def verbatim_tokens(right_NC: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Number of tokens [N] that a greedy completion has right before its first wrong one."""
    leading: npt.NDArray[np.int64] = np.cumprod(right_NC.astype(np.int64), axis=1).sum(1)
    return leading


def _report(
    material: Material,
    config: MemorizationConfig,
    parts: Ordinals,
    right_NC: npt.NDArray[np.bool_],
    losses: npt.NDArray[np.float64],
    self_influence: npt.NDArray[np.float64],
) -> Report:
    matched = verbatim_tokens(right_NC)
    whole = matched == right_NC.shape[1]
    with_length = spearman_interval(self_influence, matched.astype(np.float64), config.seed)
    with_loss = spearman_interval(self_influence, losses, config.seed)
    comparable = min(whole.sum(), (~whole).sum()) >= LEAST_VERBATIM
    area = area_under_curve(self_influence[whole], self_influence[~whole]) if comparable else None
    bins = _bins(self_influence, matched, config.seed)
    numbers: dict[str, Any] = {
        "documents": len(parts),
        "verbatim": int(whole.sum()),
        "verbatim_tokens": asdict(mean_interval(matched.astype(np.float64), config.seed)),
        "right_tokens": asdict(mean_interval(right_NC.mean(1), config.seed)),
        "loss": asdict(mean_interval(losses, config.seed)),
        "self_influence_and_verbatim_tokens": asdict(with_length),
        "self_influence_and_loss": asdict(with_loss),
        "area_under_curve": area,
        "by_self_influence": bins,
    }
    goes = "larger" if with_length.low > 0 else "smaller" if with_length.high < 0 else "neither larger nor smaller"
    findings = (
        f"Given {config.prompt_tokens} tokens, the model completes {whole.sum():,} of {len(parts):,} documents "
        f"({whole.mean():.1%}) verbatim for {config.completion_tokens} tokens; on average it gets {matched.mean():.1f} "
        "tokens right before the first wrong one.",
        f"Self-influence is {goes} for documents that it completes further: rank correlation {spread(with_length)} "
        f"with the tokens completed, {spread(with_loss)} with their loss."
        + (f" A verbatim document has more of it than another in {area:.0%} of pairs." if area is not None else ""),
    )
    largest = np.argsort(-self_influence, kind="stable")[:SHOWN]
    furthest = np.argsort(-matched, kind="stable")[:SHOWN]
    return Report(
        name="memorization",
        title="Are documents of large self-influence known by heart?",
        findings=findings,
        sections=(
            _curves(bins, self_influence, losses, whole),
            _quotes(material, parts, largest, matched, "Largest self-influence"),
            _quotes(material, parts, furthest, matched, "Completed the furthest"),
        ),
        caveats=CAVEATS,
        sources=(material.source,),
        settings=asdict(config),
        numbers=numbers,
    )


def _bins(self_influence: npt.NDArray[np.float64], matched: npt.NDArray[np.int64], seed: int) -> list[dict[str, Any]]:
    """The documents in groups of rising self-influence, as equal in number as can be."""
    groups = np.array_split(np.argsort(self_influence, kind="stable"), BINS)
    return [
        {
            "documents": len(group),
            "self_influence": float(self_influence[group].mean()),
            "verbatim_tokens": asdict(mean_interval(matched[group].astype(np.float64), seed)),
        }
        for group in groups
    ]


def _curves(
    bins: list[dict[str, Any]],
    self_influence: npt.NDArray[np.float64],
    losses: npt.NDArray[np.float64],
    whole: npt.NDArray[np.bool_],
) -> Section:
    def by_bin(axes: Any) -> None:
        x = [group["self_influence"] for group in bins]
        y = [group["verbatim_tokens"] for group in bins]
        axes.fill_between(x, [v["low"] for v in y], [v["high"] for v in y], color=SERIES[0], alpha=0.15, linewidth=0)
        axes.plot(x, [v["mean"] for v in y], "o-", color=SERIES[0], markersize=4)
        axes.set(xscale=suited_scale(x), xlabel="self-influence per token", ylabel="tokens completed verbatim")
        axes.set_ylim(0, None)

    def each(axes: Any) -> None:
        axes.plot(
            self_influence[~whole], losses[~whole], "o", color=FAINT, markersize=2.5, alpha=0.5, label="not verbatim"
        )
        axes.plot(self_influence[whole], losses[whole], "o", color=SERIES[1], markersize=4, label="verbatim")
        axes.set(xscale=suited_scale(self_influence.tolist()), xlabel="self-influence per token")
        axes.set_ylabel("loss of the completion, nats a token")
        axes.legend(loc="best")

    rows = tuple(
        (str(n), f"{group['self_influence']:.3g}", f"{v['mean']:.2f} [{v['low']:.2f}, {v['high']:.2f}]")
        for n, group in enumerate(bins, start=1)
        for v in [group["verbatim_tokens"]]
    )
    return Section(
        title="Self-influence and verbatim completion",
        figures=(
            Figure(
                label="Tokens completed verbatim by self-influence",
                fill=by_bin,
                caption="Documents in tenths of rising self-influence; the band is the 95% interval of the mean.",
            ),
            Figure(
                label="Loss of the completion against self-influence",
                fill=each,
                caption="Each point is a document.",
            ),
        ),
        tables=(Table(header=("tenth", "self-influence per token", "tokens verbatim"), rows=rows),),
    )


def _quotes(
    material: Material, parts: Ordinals, which: Ordinals, matched: npt.NDArray[np.int64], title: str
) -> Section:
    quotes = [material.quote(int(parts[n]), f"{matched[n]} tokens verbatim") for n in which]
    return Section(title=title, quotes=tuple(quotes))
