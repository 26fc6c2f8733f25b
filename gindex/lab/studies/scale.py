"""Does a larger model learn from documents that share less of a query's words? Two indexes of one corpus.

Source: Grosse et al. 2023, arXiv:2308.03296, on the top documents of models of several sizes.

Axes: Q queries, D documents, M models (smaller, larger).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.documents.selection import lexical_documents, parts_of
from gindex.documents.words import words_in
from gindex.errors import ConfigError
from gindex.index import GradientIndex
from gindex.lab.plots import FAINT, SERIES
from gindex.lab.report import Figure, Quote, Report, Section, Table, spread
from gindex.lab.statistics import mean_interval
from gindex.lab.studies.config import ScaleConfig
from gindex.lab.studies.material import Material
from gindex.progress import Progress
from gindex.queries.query import Query
from gindex.statistics import spearman

Scores = npt.NDArray[np.float64]

LEAST_DOCUMENTS = 50
SIZES = ("smaller", "larger")

CAVEATS = (
    "Two models differ in more than their size: how long they were trained and how well they fit. Their loss on the "
    "queries is given; a difference in influence may come from that.",
    "Shared words are counted as they are written, weighted by their rarity. Another form of a word, or a synonym, "
    "counts as nothing in common, so an influence on meaning alone looks the same as one on neither.",
    "Long documents hold more of a query's words and have more influence as well; part of any agreement with BM25 is "
    "length.",
    "Queries are the beginnings of documents of the corpus, which both models were trained on where the corpus is "
    "their own; the documents themselves are left out.",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Common:
    """What two indexes share.

    Attributes:
        ids: Document ids [D].
        words: The words of each document, with their counts [D].
        queries: Queries [Q].
        own: Which document each query is taken from [Q].
    """

    ids: list[str]
    words: list[Counter[str]]
    queries: list[Query]
    own: npt.NDArray[np.int64]


def study_scale(
    smaller: GradientIndex, larger: GradientIndex, config: ScaleConfig, progress: Progress | None = None
) -> Report:
    """Compare how much of a query's words the most influential documents of two models share with it.

    Args:
        smaller: The index of the smaller model.
        larger: The index of the larger one, over the same documents.
        config: What to draw.
        progress: Where the work is reported.

    Raises:
        ConfigError: The indexes are not of one corpus, the second model isn't larger, or there are too few documents.
    """
    materials = (Material(smaller, progress), Material(larger, progress))
    _check_sizes(materials)
    common = find_common(materials, config)
    influence_MQD = np.stack([document_influence(material, common) for material in materials])
    losses = [material.losses([material.asked(query) for query in common.queries]) for material in materials]
    return _report(materials, config, common, influence_MQD, losses)


def _check_sizes(materials: Sequence[Material]) -> None:
    small, large = (material.source.weights for material in materials)
    if small >= large:
        raise ConfigError(
            field="study scale",
            expected="the model of the second index to be larger",
            found=f"{small:,} and {large:,} tracked weights",
            remedy="give the smaller one first",
        )


def find_common(materials: Sequence[Material], config: ScaleConfig) -> Common:
    """Check that two indexes are of one corpus; draw documents and queries.

    Raises:
        ConfigError: They are not, or there are too few documents.
    """
    ids = [_document_ids(material) for material in materials]
    differing = set(ids[0]) ^ set(ids[1])
    if differing:
        raise ConfigError(
            field="study scale",
            expected="two indexes of the same documents",
            found=f"{len(differing):,} in one of them only, as {min(differing)!r}",
            remedy="build both over one corpus",
        )
    drawn = sorted(ids[0])
    generator = np.random.default_rng(config.seed)
    if config.documents:
        drawn = sorted(drawn[n] for n in generator.permutation(len(drawn))[: config.documents])
    if len(drawn) < max(LEAST_DOCUMENTS, 2 * config.top):
        raise ConfigError(
            field="study scale",
            expected=f"at least {max(LEAST_DOCUMENTS, 2 * config.top)} documents",
            found=len(drawn),
            remedy="index more, or rank more with `documents`",
        )
    texts = [materials[0].table.document(name).text for name in drawn]
    for name, text_of in zip(drawn, texts, strict=True):
        if materials[1].table.document(name).text != text_of:
            raise ConfigError(
                field="study scale",
                expected="two indexes of the same documents",
                found=f"two texts of {name!r}",
                remedy="build both over one corpus",
            )
    queries, own = _queries(drawn, texts, config, generator)
    return Common(ids=drawn, words=[Counter(words_in(each)) for each in texts], queries=queries, own=own)


def _document_ids(material: Material) -> list[str]:
    firsts = material.first_parts()
    return [part.document_id for part in material.table.parts(firsts)]


def _queries(
    ids: list[str], texts: list[str], config: ScaleConfig, generator: np.random.Generator
) -> tuple[list[Query], npt.NDArray[np.int64]]:
    queries: list[Query] = []
    own: list[int] = []
    half = config.query_words // 2
    for place in generator.permutation(len(ids)):
        words = texts[place].split()
        if len(words) >= config.query_words and len(queries) < config.sample:
            completion = " ".join(words[half : config.query_words])
            queries.append(Query(prompt=" ".join(words[:half]), completion=f" {completion}", id=ids[place]))
            own.append(int(place))
    if len(queries) < config.sample or half < 1:
        raise ConfigError(
            field="sample",
            expected=f"{config.sample} documents of at least {max(config.query_words, 2)} words",
            found=len(queries),
            remedy="draw fewer, or change `query_words`",
        )
    return queries, np.array(own)


def document_influence(material: Material, common: Common) -> Scores:
    """The influence [Q, D] of every document, its parts put together, on the queries."""
    ordinals = list(material.table.ordinals(common.ids).values())
    by_document = parts_of(material.table, ordinals)
    parts = np.concatenate([by_document[ordinal] for ordinal in ordinals])
    document = np.repeat(np.arange(len(ordinals)), [len(by_document[ordinal]) for ordinal in ordinals])
    asked = [material.asked(query) for query in common.queries]
    wanted_QN = np.ones((len(asked), len(parts)), bool)
    influence_QN = material.influence(asked, material.table.objectives(parts), wanted_QN)
    influence_QD = np.zeros((len(asked), len(ordinals)))
    np.add.at(influence_QD.T, document, influence_QN.T.astype(np.float64))
    return influence_QD


def lexical_scores(material: Material, common: Common) -> Scores:
    """The BM25 scores [Q, D] of the documents for the queries' words; 0 where none is there."""
    ordinals = material.table.ordinals(common.ids)
    place = {ordinal: n for n, ordinal in enumerate(ordinals[name] for name in common.ids)}
    scores_QD = np.zeros((len(common.queries), len(common.ids)))
    for row, query in zip(scores_QD, common.queries, strict=True):
        for ordinal, score in lexical_documents(material.table, _text(query), material.table.counts().documents):
            if ordinal in place:
                row[place[ordinal]] = score
    return scores_QD


def shared_words(common: Common) -> Scores:
    """The share [Q, D] of each query's different words that a document has, weighted by log(D / documents)."""
    having = Counter(word for words in common.words for word in words)
    rarity = {word: math.log(len(common.words) / count) for word, count in having.items()}
    shares_QD = np.zeros((len(common.queries), len(common.words)))
    for row, query in zip(shares_QD, common.queries, strict=True):
        asked = {word: rarity.get(word, 0.0) for word in words_in(_text(query))}
        total = sum(asked.values()) or 1.0
        row[:] = [sum(w for word, w in asked.items() if word in words) / total for words in common.words]
    return shares_QD


def _text(query: Query) -> str:
    return query.prompt + (query.completion or "")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Measured:
    """What was measured of each query, its own document left out: [M, Q] where not said otherwise."""

    shared_at: npt.NDArray[np.float64]
    """Mean share of the query's words in the documents up to each depth [M + 2, Q, depths]: models, BM25, chance."""
    depths: npt.NDArray[np.int64]
    shared: Scores
    bm25_ranks: npt.NDArray[np.float64]
    """BM25 rank of each of the top documents [M, Q, top]."""
    spearman: Scores
    agreement: npt.NDArray[np.float64]
    """Share of the top documents that both models have [Q]."""


def _measure(
    common: Common, config: ScaleConfig, influence_MQD: Scores, bm25_QD: Scores, shared_QD: Scores
) -> _Measured:
    count, top = len(common.ids) - 1, config.top
    depths = np.unique(np.geomspace(1, min(count, 20 * top), 24).astype(int))
    shape = (len(influence_MQD), len(common.queries))
    shared_at, bm25_ranks = np.zeros((shape[0] + 2, shape[1], len(depths))), np.zeros((*shape, top))
    correlation, agreement = np.zeros(shape), np.zeros(shape[1])
    for q, own in enumerate(common.own):
        others = np.delete(np.arange(len(common.ids)), own)
        shared_D, bm25_D = shared_QD[q, others], bm25_QD[q, others]
        lexical_order = np.argsort(-bm25_D, kind="stable")
        rank_D = np.empty(count)
        rank_D[lexical_order] = np.arange(1, count + 1)
        orders = [np.argsort(-influence_QD[q, others], kind="stable") for influence_QD in influence_MQD]
        for m, order in enumerate([*orders, lexical_order]):
            shared_at[m, q] = (np.cumsum(shared_D[order]) / np.arange(1, count + 1))[depths - 1]
        shared_at[-1, q] = shared_D.mean()
        for m, order in enumerate(orders):
            bm25_ranks[m, q] = rank_D[order[:top]]
            correlation[m, q] = spearman(influence_MQD[m, q, others], bm25_D)
        agreement[q] = len(np.intersect1d(orders[0][:top], orders[1][:top])) / top
    near = int(np.argmin(np.abs(depths - top)))
    return _Measured(
        shared_at=shared_at, depths=depths, shared=shared_at[:, :, near], bm25_ranks=bm25_ranks,
        spearman=correlation, agreement=agreement,
    )  # fmt: skip


def _report(
    materials: Sequence[Material],
    config: ScaleConfig,
    common: Common,
    influence_MQD: Scores,
    losses: list[npt.NDArray[np.float64]],
) -> Report:
    measured = _measure(common, config, influence_MQD, lexical_scores(materials[0], common), shared_words(common))
    seed, (small, large) = config.seed, measured.shared[:2]
    difference = mean_interval(large - small, seed)
    correlations = [mean_interval(found, seed) for found in measured.spearman]
    means = {
        name: mean_interval(found, seed)
        for name, found in zip((*SIZES, "BM25", "chance"), measured.shared, strict=True)
    }
    ranks = {name: float(np.median(found)) for name, found in zip(SIZES, measured.bm25_ranks, strict=True)}
    agreement = mean_interval(measured.agreement, seed)
    numbers: dict[str, Any] = {
        "documents": len(common.ids),
        "queries": len(common.queries),
        "weights": {name: material.source.weights for name, material in zip(SIZES, materials, strict=True)},
        "loss": {name: asdict(mean_interval(found, seed)) for name, found in zip(SIZES, losses, strict=True)},
        "shared_words": {name: asdict(interval) for name, interval in means.items()},
        "larger_minus_smaller": asdict(difference),
        "spearman_with_bm25": {name: asdict(found) for name, found in zip(SIZES, correlations, strict=True)},
        "spearman_larger_minus_smaller": asdict(mean_interval(measured.spearman[1] - measured.spearman[0], seed)),
        "median_bm25_rank_of_top": ranks,
        "shared_top": asdict(agreement),
    }
    direction = "less" if difference.high < 0 else "more" if difference.low > 0 else "neither more nor less"
    findings = (
        f"The top {config.top} documents of the larger model share {direction} of a query's words than those of the "
        f"smaller: {spread(means['larger'], '.1%')} against {spread(means['smaller'], '.1%')} (difference "
        f"{spread(difference, '+.1%')}); the top by BM25 {means['BM25'].mean:.1%}, any documents "
        f"{means['chance'].mean:.1%}.",
        f"The rank correlation of influence with BM25 is {spread(correlations[0])} for the smaller and "
        f"{spread(correlations[1])} for the larger model; BM25 places half of their top documents within the first "
        f"{ranks['smaller']:,.0f} and {ranks['larger']:,.0f} of {len(common.ids):,}.",
        f"The two models have {spread(agreement, '.0%')} of their top {config.top} in common.",
    )
    return Report(
        name="scale",
        title="Does a larger model learn from documents that share fewer words?",
        findings=findings,
        sections=(
            _curves(measured, materials),
            _ranks(measured, config, len(common.ids)),
            _models(materials, losses, means, correlations, seed),
            _example(materials[0], common, influence_MQD),
        ),
        caveats=CAVEATS,
        sources=tuple(material.source for material in materials),
        settings=asdict(config),
        numbers=numbers,
    )


def _curves(measured: _Measured, materials: Sequence[Material]) -> Section:
    def fill(axes: Any) -> None:
        names = [f"{name} ({m.source.weights:,} weights)" for name, m in zip(SIZES, materials, strict=True)]
        for colour, name, own in zip(SERIES[:2], names, measured.shared_at[:2], strict=True):
            low, high = _band(own)
            axes.fill_between(measured.depths, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(measured.depths, own.mean(0), color=colour, label=name)
        axes.plot(measured.depths, measured.shared_at[2].mean(0), color=SERIES[2], label="BM25")
        axes.plot(measured.depths, measured.shared_at[3].mean(0), "--", color=FAINT, label="any documents")
        axes.set(xscale="log", xlabel="best documents looked at", ylabel="share of the query's words")
        axes.set_ylim(0, None)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.legend(loc="best")

    caption = "Mean share of the query's words, weighted by rarity, in the best documents; bands are 95% intervals."
    return Section(
        title="Words in common",
        figures=(Figure(label="Share of the query's words in the best documents", fill=fill, caption=caption),),
    )


def _band(values_QX: Scores) -> tuple[Scores, Scores]:
    intervals = [mean_interval(column) for column in values_QX.T]
    return np.array([i.low for i in intervals]), np.array([i.high for i in intervals])


def _ranks(measured: _Measured, config: ScaleConfig, documents: int) -> Section:
    def fill(axes: Any) -> None:
        for colour, name, own in zip(SERIES[:2], SIZES, measured.bm25_ranks, strict=True):
            ranks = np.sort(own.ravel())
            axes.step(
                ranks, np.arange(1, len(ranks) + 1) / len(ranks), color=colour, where="post", label=f"{name} model"
            )
        grid = np.unique(np.geomspace(1, documents, 60).astype(int))
        axes.plot(grid, grid / documents, "--", color=FAINT, label="by chance")
        axes.set(xscale="log", ylim=(0, 1.02), xlabel="rank by BM25", ylabel=f"share of the top {config.top}")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.legend(loc="upper left")

    caption = "How many of the most influential documents a search for the query's words would find among its best."
    return Section(
        title="Ranks by BM25 of the most influential documents",
        figures=(Figure(label="Ranks by BM25 of the most influential documents", fill=fill, caption=caption),),
    )


def _models(
    materials: Sequence[Material], losses: list[Any], means: dict[str, Any], correlations: list[Any], seed: int
) -> Section:
    rows = tuple(
        (
            name,
            f"{material.source.weights:,}",
            spread(mean_interval(loss, seed)),
            spread(means[name], ".1%"),
            spread(rho),
        )
        for name, material, loss, rho in zip(SIZES, materials, losses, correlations, strict=True)
    )
    header = ("model", "tracked weights", "loss, nats a token", "words shared", "correlation with BM25")
    return Section(title="The two models", tables=(Table(header=header, rows=rows),))


def _example(material: Material, common: Common, influence_MQD: Scores) -> Section:
    quotes = [Quote(title=f"the query, from {common.queries[0].id}", text=_text(common.queries[0]))]
    for name, influence_QD in zip(SIZES, influence_MQD, strict=True):
        row = influence_QD[0].copy()
        row[common.own[0]] = -np.inf
        best = common.ids[int(np.argmax(row))]
        quotes.append(Quote(title=f"{best}, first for the {name} model", text=material.table.document(best).text))
    return Section(title="An example", quotes=tuple(quotes))
